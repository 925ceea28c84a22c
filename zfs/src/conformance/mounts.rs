//! Cases about mounts, and about datasets that somebody uses.

use std::fs::File;
use std::io::Write;

use super::{Bench, Case, Failure, ensure, refused};
use crate::{DatasetName, MountOptions, Properties, Rename};

pub(super) const CASES: &[Case] = &[
    Case { name: "mount_and_unmount_can_be_repeated", run: repeated },
    Case { name: "a_legacy_filesystem_is_mounted_where_the_caller_likes", run: legacy },
    Case { name: "mount_at_errors_name_what_is_wrong", run: legacy_errors },
    Case { name: "mounts_are_found", run: found },
    Case { name: "a_busy_unmount_says_who", run: busy_unmount },
    Case { name: "a_busy_destroy_says_who", run: busy_destroy },
    Case { name: "a_detached_mount_is_gone_from_the_tree", run: detached },
    Case { name: "a_legacy_mount_goes_on_through_a_rename", run: rename_legacy },
    Case { name: "a_mount_can_be_kept_through_a_rename", run: rename_kept },
];

fn repeated(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    b.write(&a, "file", "x")?;
    b.zfs.mount(&a, &b.limits)?;
    b.zfs.unmount(&a, &b.limits)?;
    ensure!(!b.get(&a)?.mounted && !b.has(&a, "file")?, "it is still mounted");
    b.zfs.unmount(&a, &b.limits)?;
    b.zfs.mount(&a, &b.limits)?;
    ensure!(b.get(&a)?.mounted && b.read(&a, "file")? == "x", "it is not mounted");
    refused(b.zfs.mount(&b.name("none")?, &b.limits), "not-found")?;
    Ok(())
}

fn legacy_filesystem(b: &Bench<'_>, leaf: &str) -> Result<DatasetName, Failure> {
    b.filesystem_with(leaf, Properties::new().with("mountpoint", "legacy"))
}

fn legacy(b: &Bench<'_>) -> Result<(), Failure> {
    let a = legacy_filesystem(b, "a")?;
    let (one, two) = (b.place("one")?, b.place("two")?);
    b.zfs.mount_at(&a, &one, MountOptions::default(), &b.limits)?;
    std::fs::write(one.join("file"), "x")?;
    ensure!(b.get(&a)?.mounted, "it is not reported as mounted");
    b.zfs.unmount_at(&one, false, &b.limits)?;
    ensure!(!one.join("file").exists() && !b.get(&a)?.mounted, "it is still mounted");
    b.zfs.unmount_at(&one, false, &b.limits)?;
    b.zfs.mount_at(
        &a,
        &two,
        MountOptions { read_only: true, nodev: true, ..Default::default() },
        &b.limits,
    )?;
    ensure!(std::fs::read_to_string(two.join("file"))? == "x", "the content is lost");
    Ok(b.zfs.unmount_at(&two, false, &b.limits)?)
}

fn legacy_errors(b: &Bench<'_>) -> Result<(), Failure> {
    let a = legacy_filesystem(b, "a")?;
    refused(b.zfs.mount(&a, &b.limits), "unsupported")?;
    let place = b.place("one")?;
    let options = MountOptions::default();
    refused(b.zfs.mount_at(&b.name("none")?, &place, options, &b.limits), "not-found")?;
    refused(b.zfs.mount_at(&a, &b.scratch.join("none"), options, &b.limits), "system")?;
    b.zfs.mount_at(&a, &place, options, &b.limits)?;
    let other = b.place("two")?;
    let read_only = MountOptions { read_only: true, ..options };
    let error = refused(b.zfs.mount_at(&a, &other, read_only, &b.limits), "busy")?;
    ensure!(error.to_string().contains(&place.display().to_string()), "it does not name {place:?}: {error}");
    Ok(b.zfs.unmount_at(&place, false, &b.limits)?)
}

fn found(b: &Bench<'_>) -> Result<(), Failure> {
    let a = legacy_filesystem(b, "a")?;
    ensure!(b.zfs.mounts(&a, &b.limits)?.is_empty(), "mounted already");
    let place = b.place("with space")?;
    b.zfs.mount_at(&a, &place, MountOptions::default(), &b.limits)?;
    let mounts = b.zfs.mounts(&a, &b.limits)?;
    let here = mounts.iter().find(|mount| mount.mount_point == place.display().to_string());
    ensure!(here.is_some_and(|mount| mount.pid > 0 && !mount.process.is_empty()), "{mounts:?}");
    Ok(b.zfs.unmount_at(&place, false, &b.limits)?)
}

fn busy_unmount(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let dir = b.dir(&a)?;
    let open = File::create(dir.join("open"))?;
    let error = refused(b.zfs.unmount(&a, &b.limits), "busy")?;
    ensure!(error.to_string().contains(&dir.display().to_string()), "it does not name {dir:?}: {error}");
    drop(open);
    Ok(b.zfs.unmount(&a, &b.limits)?)
}

fn busy_destroy(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let dir = b.dir(&a)?;
    let open = File::create(dir.join("open"))?;
    let error = refused(b.zfs.destroy(&a, false, &b.limits), "busy")?;
    ensure!(error.to_string().contains(&dir.display().to_string()), "it does not name {dir:?}: {error}");
    ensure!(b.exists(&a)?, "it is gone");
    drop(open);
    Ok(b.zfs.destroy(&a, false, &b.limits)?)
}

fn detached(b: &Bench<'_>) -> Result<(), Failure> {
    let a = legacy_filesystem(b, "a")?;
    let place = b.place("one")?;
    b.zfs.mount_at(&a, &place, MountOptions::default(), &b.limits)?;
    let mut open = File::create(place.join("open"))?;
    refused(b.zfs.unmount_at(&place, false, &b.limits), "busy")?;
    b.zfs.unmount_at(&place, true, &b.limits)?;
    ensure!(!place.join("open").exists(), "it is still in the tree");
    open.write_all(b"goes on")?;
    Ok(())
}

fn rename_legacy(b: &Bench<'_>) -> Result<(), Failure> {
    let a = legacy_filesystem(b, "a")?;
    let place = b.place("one")?;
    b.zfs.mount_at(&a, &place, MountOptions::default(), &b.limits)?;
    let mut open = File::create(place.join("log"))?;
    open.write_all(b"one ")?;
    let to = b.name("b")?;
    b.zfs.rename(&a, &to, Rename::default(), &b.limits)?;
    open.write_all(b"two")?;
    ensure!(std::fs::read_to_string(place.join("log"))? == "one two", "the open file did not go on");
    ensure!(b.get(&to)?.mounted, "it is not mounted any more");
    let mounts = b.zfs.mounts(&to, &b.limits)?;
    ensure!(!mounts.is_empty(), "the mount is not found under the new name");
    drop(open);
    Ok(b.zfs.unmount_at(&place, false, &b.limits)?)
}

fn rename_kept(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let before = b.dir(&a)?;
    let open = File::create(before.join("file"))?;
    let to = b.name("b")?;
    b.zfs.rename(&a, &to, Rename { keep_mounts: true, parents: false }, &b.limits)?;
    ensure!(before.join("file").exists(), "it was unmounted");
    drop(open);
    b.zfs.unmount(&to, &b.limits)?;
    b.zfs.mount(&to, &b.limits)?;
    ensure!(b.dir(&to)?.join("file").exists(), "the file is not at the new place");
    Ok(())
}
