//! Cases about names: whatever ZFS allows in one works, and none changes what an error means.

use super::{Bench, Case, Failure, ensure, refused};
use crate::{CreateRequest, Properties, ReceiveRequest, SendRequest};

pub(super) const CASES: &[Case] = &[
    Case { name: "names_with_spaces_and_dashes_work", run: odd_names },
    Case { name: "no_name_is_taken_for_a_reason", run: telling_names },
];

fn odd_names(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("with space and-dash_dot.colon:1")?;
    let snapshot = b.snapshot(&name, "-r 1")?;
    ensure!(b.exists(&name)? && b.snapshot_exists(&snapshot)?, "not there");
    let clone = b.name("-clone")?;
    b.zfs.clone_snapshot(&snapshot, &clone, &Properties::new(), &b.limits)?;
    ensure!(b.get(&clone)?.origin.as_ref() == Some(&snapshot), "the origin is wrong");
    ensure!(b.get_snapshot(&snapshot)?.clones == [clone.clone()], "the clone is not listed");
    b.zfs.destroy(&clone, false, &b.limits)?;
    b.zfs.destroy_snapshots(&[snapshot], false, &b.limits)?;
    Ok(b.zfs.destroy(&name, false, &b.limits)?)
}

/// Every name is a word or phrase that the tool uses for some reason of its own.
fn telling_names(b: &Bench<'_>) -> Result<(), Failure> {
    for leaf in
        ["encryption-x", "busy", "is busy", "permission denied x", "does not exist", "already mounted"]
    {
        let name = b.name(leaf)?;
        let none = Properties::new();
        ensure!(!b.exists(&name)?, "{leaf}: it exists");
        ensure!(!b.snapshot_exists(&name.snapshot(leaf)?)?, "{leaf}: its snapshot exists");
        refused(b.zfs.destroy(&name, false, &b.limits), "not-found")?;
        refused(b.zfs.mount(&name, &b.limits), "not-found")?;
        let create = CreateRequest::filesystem(&name, none.clone());
        b.zfs.create(&create, &b.limits)?;
        refused(b.zfs.create(&create, &b.limits), "exists")?;
        refused(b.zfs.promote(&name, &b.limits), "not-a-clone")?;
        let snapshot = b.snapshot(&name, leaf)?;
        let set = std::slice::from_ref(&snapshot);
        refused(b.zfs.snapshot_set(set, &none, &b.limits), "exists")?;
        refused(b.zfs.destroy(&name, false, &b.limits), "has-dependents")?;
        let tag = "t".parse()?;
        b.zfs.hold(set, &tag, &b.limits)?;
        refused(b.zfs.destroy_snapshots(set, false, &b.limits), "busy")?;
        refused(b.zfs.destroy(&name, true, &b.limits), "busy")?;
        b.zfs.release(set, &tag, &b.limits)?;
        let copy = b.name("copy")?;
        b.zfs.copy(&SendRequest::full(&snapshot), &ReceiveRequest::new(&copy), &b.limits)?;
        let again = b.zfs.copy(&SendRequest::full(&snapshot), &ReceiveRequest::new(&copy), &b.limits);
        refused(again, "exists")?;
        b.zfs.destroy(&copy, true, &b.limits)?;
        b.zfs.destroy(&name, true, &b.limits)?;
        ensure!(!b.exists(&name)?, "{leaf}: it is still there");
    }
    Ok(())
}
