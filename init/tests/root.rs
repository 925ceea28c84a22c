//! The program itself, started as a process of the host: into namespaces and a root of its own. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use cryopod_init::options::Options;
use cryopod_init::plan::{Enter, Hook, Mount, Plan, What};
use cryopod_init::report::Report;
use rustix::mount::OpenTreeFlags;

mod container;

use container::{Container, ended, field, plan};

const PID: u32 = libc::CLONE_NEWPID.unsigned_abs();
const OWN: u32 = (libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS).unsigned_abs();
const USER: u32 = libc::CLONE_NEWUSER.unsigned_abs();

/// A root with the programs of this host, and whoever may run in it.
struct Root {
    dir: tempfile::TempDir,
    trees: Vec<OwnedFd>,
}

impl Root {
    fn make() -> Self {
        // Nobody but root of this host gets here by the path.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rootfs");
        for name in ["usr", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let usr = rustix::mount::open_tree(rustix::fs::CWD, "/usr", flags).unwrap();
        Self { dir, trees: vec![usr] }
    }

    fn plan(&self, new: u32, script: &str) -> Plan {
        let mut plan = plan(script);
        let mount = |at: &str, what, options: &[&str]| Mount {
            destination: at.into(),
            what,
            options: Options::parse(options.iter().copied()).unwrap(),
        };
        plan.files.mounts = vec![
            mount("/proc", What::Early { fstype: "proc".to_owned() }, &["nosuid", "noexec", "nodev"]),
            mount("/usr", What::Tree { fd: self.trees[0].as_raw_fd(), directory: true }, &["rbind", "ro"]),
            mount("/dev", What::Filesystem { fstype: "tmpfs".to_owned(), source: "dev".to_owned() }, &[]),
        ];
        let root = self.dir.path().join("rootfs");
        let user = new & USER != 0;
        plan.enter = Some(Enter { root, new, second: true, user, ..Enter::default() });
        plan
    }
}

#[test]
fn the_process_is_the_first_one_and_sees_its_root_alone() {
    let root = Root::make();
    let script = "echo $$; cd /; echo *; cut -d' ' -f5 /proc/self/mountinfo; grep -c ' /proc .*nosuid,nodev,noexec' /proc/self/mountinfo";
    let mut container = Container::create(&root.plan(PID | OWN, script), &root.trees);
    assert_eq!(container.answer(), Report::Ready);
    let said = ended(container);
    assert_eq!(said, "1\nbin dev lib lib64 proc tmp usr\n/\n/proc\n/usr\n/dev\n1\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&root.dir.path().display().to_string()),
        "the host has a mount of the container"
    );
}

#[test]
fn in_a_user_namespace_it_waits_for_its_mappings_and_becomes_root() {
    let root = Root::make();
    let script =
        "id -u; cat /proc/self/uid_map; grep ^CapEff /proc/self/status; stat -c %u /proc/self/status";
    let mut plan = root.plan(PID | OWN | USER, script);
    plan.process.oom_score_adj = Some(500);
    let mut container = Container::create(&plan, &root.trees);
    assert_eq!(container.answer(), Report::Unmapped);
    // Beside the process that was started, which has ended: a child of this test.
    let own = std::process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let all: String = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .chain(children)
        .collect::<Vec<_>>()
        .join(" ");
    let in_own_namespace = |pid: &&str| {
        let user = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        user(pid).is_some_and(|found| Some(found) != user("self"))
    };
    let pid = all.split_whitespace().find(in_own_namespace).expect("no child in a user namespace").to_owned();
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), "0 100000 65536\n").unwrap();
    }
    container.report.write_all(&pid.parse::<u32>().unwrap().to_ne_bytes()).unwrap();
    assert_eq!(container.answer(), Report::Ready);
    let said = ended(container);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_ne!(field(&said, "CapEff:"), "0000000000000000");
    assert_eq!(lines[3], "0", "its files in /proc are not its own");
}

#[test]
fn hooks_run_between_the_namespaces_and_the_root() {
    let root = Root::make();
    let said = root.dir.path().join("said");
    let hook = |script: String| Hook {
        path: "/bin/sh".into(),
        args: ["sh".to_owned(), "-c".to_owned(), script].into(),
        env: Vec::new(),
        timeout: None,
        state: r#"{"id":"c1"}"#.to_owned(),
    };
    for (script, fine) in [
        (format!("cat > {}; readlink /proc/self/ns/uts >> {0}", said.display()), true),
        ("exit 3".to_owned(), false),
    ] {
        let mut plan = root.plan(PID | OWN, "echo ran");
        let enter = plan.enter.as_mut().unwrap();
        enter.gate = true;
        enter.hooks = vec![hook(script)];
        let mut container = Container::create(&plan, &root.trees);
        assert_eq!(container.answer(), Report::Entered);
        assert!(!said.exists() || !fine, "a hook ran before its time");
        container.report.write_all(&77_u32.to_ne_bytes()).unwrap();
        if !fine {
            assert!(matches!(container.answer(), Report::Failed { .. }));
            continue;
        }
        assert_eq!(container.answer(), Report::Hooked);
        let text = fs::read_to_string(&said).unwrap();
        let own = fs::read_link("/proc/self/ns/uts").unwrap();
        assert!(
            text.contains("\"pid\":77") && text.contains("uts:") && !text.contains(own.to_str().unwrap()),
            "{text}"
        );
        assert_eq!(container.answer(), Report::Ready);
        assert_eq!(ended(container), "ran\n");
    }
}

#[test]
fn no_signal_is_ignored_that_only_the_runtime_ignored() {
    let root = Root::make();
    let mut container =
        Container::create(&root.plan(PID | OWN, "grep ^SigIgn /proc/self/status"), &root.trees);
    assert_eq!(container.answer(), Report::Ready);
    assert_eq!(field(&ended(container), "SigIgn:"), "0000000000000000");
}

#[test]
fn a_root_that_is_not_there_is_said() {
    let root = Root::make();
    let mut plan = root.plan(PID | OWN, "true");
    plan.enter.as_mut().unwrap().root = Path::new("/no/such/root").into();
    let mut container = Container::create(&plan, &root.trees);
    let Report::Failed { message, errno } = container.answer() else { panic!("it was found") };
    assert!(message.contains("/no/such/root") && errno == Some(libc::ENOENT), "{message}");
}
