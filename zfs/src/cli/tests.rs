//! The command without a pool: `tests/tools/busy` stands for `zfs` and `zpool`, and finds everything busy.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::*;
use crate::{MountOptions, Name, Properties, SendRequest, SnapshotName, Zfs};

fn cli() -> Cli {
    let tool = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/busy"));
    Cli::new(tool.clone(), tool, &Limits::none()).unwrap()
}

/// A process that is called `zfs send NAME` and waits until its input ends.
fn sending(dir: &Path, name: &str) -> Child {
    std::fs::write(dir.join("send"), "read line\n").unwrap();
    // The kernel names a process after the file that it was started from.
    std::os::unix::fs::symlink("/bin/sh", dir.join("zfs")).unwrap();
    let mut command = std::process::Command::new(dir.join("zfs"));
    command.arg0("zfs").args(["send", name]).current_dir(dir).stdin(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn whoever_keeps_it_busy_is_told_by_every_call() {
    let dir = tempfile::tempdir().unwrap();
    // Named after this process: others of the same name would be found as well.
    let dataset: DatasetName = format!("tank/busy-{}", std::process::id()).parse().unwrap();
    let [first, second]: [SnapshotName; 2] = ["s1", "s2"].map(|leaf| dataset.snapshot(leaf).unwrap());
    let mut child = sending(dir.path(), second.as_str());
    let (zfs, limits) = (cli(), Limits::within(Duration::from_secs(60)));
    let properties = Properties::new().with("cryopod:a", "b");
    let null = || std::fs::File::create("/dev/null").unwrap().into();
    let calls: [(&str, Result<(), Error>); 9] = [
        ("promote", zfs.promote(&dataset, &limits)),
        ("set", zfs.set(&Name::from(&dataset), &properties, &limits)),
        ("set of a snapshot", zfs.set(&Name::from(&second), &properties, &limits)),
        ("inherit", zfs.inherit(&Name::from(&dataset), "cryopod:a", &limits)),
        ("rename", zfs.rename_snapshot(&second, "s3", &limits).map(|_| ())),
        ("abort", zfs.abort_receive(&dataset, &limits)),
        ("send", zfs.send(&SendRequest::incremental(&first, &second), null(), &limits)),
        ("destroy", zfs.destroy(&dataset, true, &limits)),
        ("destroy of a snapshot", zfs.destroy_snapshots(std::slice::from_ref(&second), false, &limits)),
    ];
    child.kill().unwrap();
    child.wait().unwrap();
    for (call, result) in calls {
        let error = result.unwrap_err();
        assert!(error.is_busy(), "{call}: {error}");
        let holder = format!("`zfs send {second}` (pid {})", child.id());
        assert!(error.to_string().contains(&holder), "{call}: {error}");
    }
}

#[test]
fn a_mount_point_is_looked_at_within_the_limits() {
    let dataset = "tank/a".parse().unwrap();
    let missing = Path::new("/nonexistent/place");
    let mount = |limits: &Limits| {
        cli().mount_at(&dataset, missing, MountOptions::default(), limits).unwrap_err().kind()
    };
    assert_eq!(mount(&Limits::within(Duration::ZERO)), "deadline");
    assert_eq!(mount(&Limits::none()), "system");
}
