//! Cases about deadlines, cancelling, and pools.

use std::time::{Duration, Instant};

use super::{Bench, Case, Failure, ensure, refused};
use crate::{
    Cancel, CreateRequest, Error, Health, Limits, MountOptions, PoolName, Properties, ReceiveRequest,
    SendRequest,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_call_past_its_deadline_does_nothing", run: expired },
    Case { name: "a_cancelled_send_ends_at_once_and_leaves_no_child", run: cancel_send },
    Case { name: "a_receive_at_its_deadline_leaves_no_child", run: deadline_receive },
    Case { name: "a_cancelled_copy_leaves_neither_side", run: cancel_copy },
    Case { name: "versions_are_told", run: version },
    Case { name: "the_pool_is_listed_and_well", run: pools },
    Case { name: "a_missing_pool_is_told", run: missing_pool },
];

fn expired(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.name("a")?;
    let create = CreateRequest::filesystem(&name, Properties::new());
    refused(b.zfs.create(&create, &Limits::within(Duration::ZERO)), "deadline")?;
    let cancel = Cancel::new();
    cancel.cancel();
    let cancelled = Limits::none().with_cancel(cancel);
    refused(b.zfs.create(&create, &cancelled), "cancelled")?;
    refused(b.zfs.dataset(&b.root, &cancelled), "cancelled")?;
    refused(b.zfs.mounts(&b.root, &cancelled), "cancelled")?;
    // A path may lie on a pool that hangs, so not even that is looked at.
    let nowhere = b.scratch.join("none");
    refused(b.zfs.mount_at(&b.root, &nowhere, MountOptions::default(), &cancelled), "cancelled")?;
    ensure!(!b.exists(&name)?, "it was created");
    Ok(())
}

/// Processes whose parent is this one.
pub(super) fn children() -> Result<Vec<u32>, Failure> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        if after_name.split_whitespace().nth(1) == Some(own.as_str()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Fails when another child than those of `before` is there for longer than the kernel needs to end it.
fn no_child_is_left(before: &[u32]) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let now = children()?;
        if now == before {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(20), "children are left: {now:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn cancel_send(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    b.write_noise(&a, "noise", 1 << 20)?;
    let snapshot = b.snapshot(&a, "s")?;
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let cancel = Cancel::new();
    let limits = b.limits.clone().with_cancel(cancel.clone());
    let before = children()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| b.zfs.send(&SendRequest::full(&snapshot), write, &limits));
        nix::unistd::read(&read, &mut [0])?;
        let thrown = Instant::now();
        cancel.cancel();
        let sent = sending.join().map_err(|_| Failure("the sender panicked".to_owned()))?;
        refused(sent, "cancelled")?;
        ensure!(thrown.elapsed() < Duration::from_secs(10), "it took {:?}", thrown.elapsed());
        Ok::<(), Failure>(())
    })?;
    no_child_is_left(&before)?;
    Ok(b.zfs.destroy_snapshots(&[snapshot], false, &b.limits)?)
}

fn deadline_receive(b: &Bench<'_>) -> Result<(), Failure> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let before = children()?;
    let started = Instant::now();
    let request = ReceiveRequest::new(&b.name("copy")?);
    refused(b.zfs.receive(&request, read, &Limits::within(Duration::from_millis(700))), "deadline")?;
    ensure!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    drop(write);
    no_child_is_left(&before)?;
    ensure!(!b.exists(&request.target)?, "something was left");
    Ok(())
}

fn cancel_copy(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    b.write_noise(&a, "noise", 8 << 20)?;
    let snapshot = b.snapshot(&a, "s")?;
    let cancel = Cancel::new();
    let limits = b.limits.clone().with_cancel(cancel.clone());
    let before = children()?;
    let request = ReceiveRequest { resumable: false, ..ReceiveRequest::new(&b.name("copy")?) };
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| b.zfs.copy(&SendRequest::full(&snapshot), &request, &limits));
        std::thread::sleep(Duration::from_millis(20));
        cancel.cancel();
        let copied = copying.join().map_err(|_| Failure("the copier panicked".to_owned()))?;
        // It may have been done before: then nothing was cancelled, and all of it arrived.
        if let Err(error) = copied {
            refused::<()>(Err(error), "cancelled")?;
        }
        Ok::<(), Failure>(())
    })?;
    no_child_is_left(&before)?;
    Ok(b.zfs.destroy_snapshots(&[snapshot], false, &b.limits)?)
}

fn version(b: &Bench<'_>) -> Result<(), Failure> {
    let version = b.zfs.version(&b.limits)?;
    ensure!(version.number >= (2, 1), "{version:?}");
    ensure!(version.userland.starts_with("zfs-") && version.kernel.starts_with("zfs-kmod-"), "{version:?}");
    Ok(())
}

fn pools(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.root.pool();
    let pools = b.zfs.pools(&b.limits)?;
    let Some(pool) = pools.iter().find(|pool| pool.name == name) else {
        return Err(Failure(format!("{name} is not in {pools:?}")));
    };
    ensure!(pool.health == Health::Online && !pool.read_only && pool.guid.0 != 0, "{pool:?}");
    ensure!(pool.size.0 > 0 && pool.free <= pool.size && pool.allocated <= pool.size, "{pool:?}");
    let status = b.zfs.pool_status(&name, &b.limits)?;
    ensure!(status.name == name && status.health == Health::Online && status.data_errors == 0, "{status:?}");
    // Figures are those of the last transaction group that is on disk.
    let a = b.filesystem("a")?;
    b.write_noise(&a, "noise", 1 << 20)?;
    b.zfs.pool_sync(&name, &b.limits)?;
    let referenced = b.get(&a)?.referenced;
    ensure!(referenced.0 >= 1 << 20, "after the sync it refers to {referenced} only");
    Ok(())
}

fn missing_pool(b: &Bench<'_>) -> Result<(), Failure> {
    let name: PoolName = "nosuchpool".parse()?;
    refused(b.zfs.pool_status(&name, &b.limits), "pool-missing")?;
    let error = refused(b.zfs.pool_sync(&name, &b.limits), "pool-missing")?;
    ensure!(
        matches!(error, Error::PoolMissing { .. }) && error.to_string().contains("nosuchpool"),
        "{error}"
    );
    Ok(())
}
