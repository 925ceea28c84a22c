//! Cases about snapshots and bookmarks.

use super::{Bench, Case, Failure, ensure, refused};
use crate::{Bookmark, Entry, Filter, Kinds, Properties};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_snapshot_set_is_one_transaction", run: set_is_atomic },
    Case { name: "a_snapshot_set_with_an_existing_name_takes_none", run: set_existing },
    Case { name: "a_snapshot_set_with_a_missing_dataset_takes_none", run: set_missing },
    Case { name: "a_snapshot_set_takes_each_dataset_once", run: set_twice },
    Case { name: "snapshots_take_user_properties_only", run: native_property },
    Case { name: "snapshots_of_many_datasets_go_together", run: destroy_many },
    Case { name: "snapshots_that_are_gone_are_no_error", run: destroy_gone },
    Case { name: "a_cloned_snapshot_stays_until_its_clone_goes", run: destroy_cloned },
    Case { name: "a_renamed_snapshot_keeps_its_identity", run: rename },
    Case { name: "rollback_brings_back_what_was", run: rollback },
    Case { name: "rollback_of_a_mounted_filesystem_is_refused", run: rollback_mounted },
    Case { name: "rollback_never_destroys_what_is_newer", run: rollback_newer },
    Case { name: "a_bookmark_outlives_its_snapshot", run: bookmark },
    Case { name: "bookmark_errors_name_what_is_wrong", run: bookmark_errors },
];

fn set_is_atomic(b: &Bench<'_>) -> Result<(), Failure> {
    let names = [b.filesystem("a")?.snapshot("s")?, b.filesystem("b")?.snapshot("t")?];
    let marks = Properties::new().with("cryopod:checkpoint", "c1").with("cryopod:sha", "00ff");
    b.zfs.snapshot_set(&names, &marks, &b.limits)?;
    let [first, second] = [b.get_snapshot(&names[0])?, b.get_snapshot(&names[1])?];
    ensure!(first.createtxg == second.createtxg, "{} and {}", first.createtxg, second.createtxg);
    ensure!(first.guid != second.guid, "one guid for two");
    for snapshot in [first, second] {
        ensure!(snapshot.properties.own_user("cryopod:") == marks, "{:?}", snapshot.properties);
        ensure!(
            snapshot.userrefs == 0 && !snapshot.defer_destroy && snapshot.clones.is_empty(),
            "{snapshot:?}"
        );
    }
    Ok(())
}

fn set_existing(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, other) = (b.filesystem("a")?, b.filesystem("b")?);
    let taken = b.snapshot(&other, "s")?;
    let error = refused(
        b.zfs.snapshot_set(&[a.snapshot("s")?, taken.clone()], &Properties::new(), &b.limits),
        "exists",
    )?;
    ensure!(error.to_string().contains(taken.as_str()), "the error does not name {taken}: {error}");
    ensure!(!b.snapshot_exists(&a.snapshot("s")?)?, "one of the set was taken");
    Ok(())
}

fn set_missing(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let set = [a.snapshot("s")?, b.name("none")?.snapshot("s")?];
    refused(b.zfs.snapshot_set(&set, &Properties::new(), &b.limits), "not-found")?;
    ensure!(!b.snapshot_exists(&set[0])?, "one of the set was taken");
    Ok(())
}

fn set_twice(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let none = Properties::new();
    let set = [a.snapshot("s")?, a.snapshot("t")?];
    refused(b.zfs.snapshot_set(&set, &none, &b.limits), "invalid-request")?;
    let set = [a.snapshot("s")?, "nosuchpool/a@s".parse()?];
    refused(b.zfs.snapshot_set(&set, &none, &b.limits), "crosses-pools")?;
    refused(b.zfs.snapshot_set(&["nosuchpool/a@s".parse()?], &none, &b.limits), "pool-missing")?;
    ensure!(!b.snapshot_exists(&a.snapshot("s")?)?, "one of the set was taken");
    Ok(b.zfs.snapshot_set(&[], &none, &b.limits)?)
}

fn native_property(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?.snapshot("s")?;
    let native = Properties::new().with("compression", "lz4");
    refused(b.zfs.snapshot_set(std::slice::from_ref(&name), &native, &b.limits), "invalid-property")?;
    ensure!(!b.snapshot_exists(&name)?, "it was taken");
    Ok(())
}

fn destroy_many(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, other) = (b.filesystem("a")?, b.filesystem("b")?);
    let all = [b.snapshot(&a, "s")?, b.snapshot(&a, "t")?, b.snapshot(&other, "s")?];
    let kept = b.snapshot(&other, "kept")?;
    b.zfs.destroy_snapshots(&all, false, &b.limits)?;
    let left = b.zfs.list(&Filter::below(&b.root, Kinds::SNAPSHOTS), &b.limits)?;
    let left: Vec<_> =
        left.into_iter().filter_map(Entry::into_snapshot).map(|snapshot| snapshot.name).collect();
    ensure!(left == [kept], "{left:?}");
    Ok(())
}

fn destroy_gone(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let there = b.snapshot(&a, "s")?;
    let gone = [a.snapshot("none")?, b.name("none")?.snapshot("s")?, there.clone()];
    b.zfs.destroy_snapshots(&gone, false, &b.limits)?;
    ensure!(!b.snapshot_exists(&there)?, "{there} is still there");
    b.zfs.destroy_snapshots(&gone, true, &b.limits)?;
    refused(b.zfs.destroy_snapshots(&["nosuchpool/a@s".parse()?], false, &b.limits), "pool-missing")?;
    Ok(b.zfs.destroy_snapshots(&[], false, &b.limits)?)
}

fn destroy_cloned(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let snapshot = b.snapshot(&a, "s")?;
    let clone = b.name("clone")?;
    b.zfs.clone_snapshot(&snapshot, &clone, &Properties::new(), &b.limits)?;
    let set = std::slice::from_ref(&snapshot);
    let error = refused(b.zfs.destroy_snapshots(set, false, &b.limits), "has-dependents")?;
    ensure!(error.to_string().contains(clone.as_str()), "the error does not name {clone}: {error}");
    b.zfs.destroy_snapshots(set, true, &b.limits)?;
    ensure!(b.get_snapshot(&snapshot)?.defer_destroy, "it is not marked");
    b.zfs.destroy(&clone, false, &b.limits)?;
    ensure!(!b.snapshot_exists(&snapshot)?, "it did not go with its clone");
    Ok(())
}

fn rename(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let (snapshot, taken) = (b.snapshot(&a, "s")?, b.snapshot(&a, "taken")?);
    let guid = b.get_snapshot(&snapshot)?.guid;
    refused(b.zfs.rename_snapshot(&snapshot, taken.leaf(), &b.limits), "exists")?;
    let renamed = b.zfs.rename_snapshot(&snapshot, "new", &b.limits)?;
    ensure!(renamed == a.snapshot("new")? && b.get_snapshot(&renamed)?.guid == guid, "{renamed}");
    refused(b.zfs.rename_snapshot(&snapshot, "other", &b.limits), "not-found")?;
    Ok(())
}

fn rollback(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    b.write(&a, "file", "before")?;
    let snapshot = b.snapshot(&a, "s")?;
    b.write(&a, "file", "after")?;
    b.write(&a, "new", "x")?;
    b.zfs.unmount(&a, &b.limits)?;
    refused(b.zfs.rollback(&a.snapshot("none")?, &b.limits), "not-found")?;
    b.zfs.rollback(&snapshot, &b.limits)?;
    b.zfs.mount(&a, &b.limits)?;
    ensure!(b.read(&a, "file")? == "before" && !b.has(&a, "new")?, "the content is not the old one");
    Ok(())
}

fn rollback_mounted(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let snapshot = b.snapshot(&a, "s")?;
    b.write(&a, "file", "kept")?;
    let error = refused(b.zfs.rollback(&snapshot, &b.limits), "mounted")?;
    let dir = b.dir(&a)?;
    ensure!(
        error.to_string().contains(&dir.display().to_string()),
        "the error does not name {dir:?}: {error}"
    );
    ensure!(b.read(&a, "file")? == "kept", "it was rolled back");
    Ok(())
}

fn rollback_newer(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let (old, new) = (b.snapshot(&a, "old")?, b.snapshot(&a, "new")?);
    b.zfs.unmount(&a, &b.limits)?;
    let error = refused(b.zfs.rollback(&old, &b.limits), "not-latest")?;
    ensure!(error.to_string().contains(new.as_str()), "the error does not name {new}: {error}");
    ensure!(b.snapshot_exists(&new)?, "{new} is gone");
    b.zfs.bookmark(&new, &a.bookmark("m")?, &b.limits)?;
    b.zfs.destroy_snapshots(&[new], false, &b.limits)?;
    refused(b.zfs.rollback(&old, &b.limits), "not-latest")?;
    Ok(())
}

fn bookmark(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let snapshot = b.snapshot(&a, "s")?;
    let found = b.get_snapshot(&snapshot)?;
    let name = a.bookmark("m")?;
    b.zfs.bookmark(&snapshot, &name, &b.limits)?;
    b.zfs.destroy_snapshots(&[snapshot], false, &b.limits)?;
    let listed = b.zfs.list(&Filter::below(&a, Kinds::BOOKMARKS), &b.limits)?;
    let [Entry::Bookmark(Bookmark { name: listed_name, guid, createtxg, .. })] = listed.as_slice() else {
        return Err(Failure(format!("{listed:?}")));
    };
    ensure!(*listed_name == name && *guid == found.guid && *createtxg == found.createtxg, "{listed:?}");
    b.zfs.destroy_bookmark(&name, &b.limits)?;
    ensure!(b.zfs.list(&Filter::below(&a, Kinds::BOOKMARKS), &b.limits)?.is_empty(), "it is still there");
    Ok(())
}

fn bookmark_errors(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let snapshot = b.snapshot(&a, "s")?;
    let name = a.bookmark("m")?;
    refused(b.zfs.destroy_bookmark(&name, &b.limits), "not-found")?;
    refused(b.zfs.bookmark(&a.snapshot("none")?, &name, &b.limits), "not-found")?;
    b.zfs.bookmark(&snapshot, &name, &b.limits)?;
    refused(b.zfs.bookmark(&snapshot, &name, &b.limits), "exists")?;
    refused(b.zfs.bookmark(&snapshot, &b.root.bookmark("m")?, &b.limits), "invalid-request")?;
    Ok(())
}
