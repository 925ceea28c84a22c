use super::*;
use crate::oci::{OciBackend, OciOptions};
use std::path::{Path, PathBuf};

fn cgroup(dir: &Path, name: &str, frozen: bool) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir(&path).expect("directory");
    let events = if frozen { "populated 1\nfrozen 1\n" } else { "populated 1\nfrozen 0\n" };
    for (file, text) in [("cgroup.procs", ""), ("cgroup.freeze", "0"), ("cgroup.events", events)] {
        std::fs::write(path.join(file), text).expect("file");
    }
    path
}

fn member(id: &str, cgroup: PathBuf, was_paused: bool) -> Member {
    Member {
        name: id.into(),
        id: id.into(),
        image: String::new(),
        runtime: "oci/crun".into(),
        pid: 1,
        rss_bytes: 0,
        cgroup,
        was_paused,
        terminal: false,
        rootfs: "/r".into(),
        spec: serde_json::Value::Null,
        disks: vec![],
    }
}

fn target(members: Vec<Member>) -> PodTarget {
    let options = OciOptions {
        name: "crun".into(),
        program: "/nonexistent/crun".into(),
        root: "/nonexistent".into(),
        extra_args: vec![],
        systemd_cgroup: false,
        criu: "/nonexistent/criu".into(),
        criu_base: "/nonexistent".into(),
        ghost_limit: 0,
    };
    PodTarget::new(PodIdentity::default(), members, Arc::new(OciBackend::new(options)))
}

fn state(path: &Path) -> String {
    std::fs::read_to_string(path.join("cgroup.freeze")).expect("file")
}

#[test]
fn when_one_member_does_not_freeze_none_stays_frozen() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (good, bad) = (cgroup(dir.path(), "good", true), cgroup(dir.path(), "bad", false));
    let target = target(vec![member("good", good.clone(), false), member("bad", bad.clone(), false)]);
    let error = target.freeze(&Limits::within(Duration::from_millis(20))).expect_err("bad never freezes");
    assert_eq!((error.step, error.container.as_str()), ("freeze", "bad"));
    assert_eq!((state(&good), state(&bad)), ("0".into(), "0".into()));
}

#[test]
fn a_member_that_was_paused_is_left_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (ours, paused) = (cgroup(dir.path(), "ours", true), cgroup(dir.path(), "paused", true));
    std::fs::write(paused.join("cgroup.freeze"), "1").expect("file");
    let target = target(vec![member("ours", ours.clone(), false), member("paused", paused.clone(), true)]);
    target.freeze(&Limits::within(Duration::from_secs(5))).expect("frozen");
    assert_eq!(state(&ours), "1");
    std::fs::write(ours.join("cgroup.events"), "populated 1\nfrozen 0\n").expect("file");
    target.thaw().expect("thawed");
    assert_eq!((state(&ours), state(&paused)), ("0".into(), "1".into()));
}

#[test]
fn a_member_that_ended_fails_the_freeze_and_not_the_thaw() {
    let target = target(vec![member("gone", "/nonexistent/cgroup".into(), false)]);
    let error = target.freeze(&Limits::none()).expect_err("gone");
    assert_eq!(error.kind, cryopod_checkpoint::kind::Kind::NotFound);
    target.thaw().expect("nothing to thaw");
}
