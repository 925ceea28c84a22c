//! Every refusal on a node that is made up: what the kernel would say lies in a temporary directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// Init of the container.
const INIT: u32 = 100;
/// Its child.
const CHILD: u32 = 101;

/// A node with one container, of which everything can be captured.
struct Node {
    facts: Facts,
    cgroup: PathBuf,
    spec: Value,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        let facts = Facts { proc: at("proc"), cgroups: at("cgroup"), dev: at("dev") };
        let cgroup = at("cgroup/pod/web");
        let spec = json!({"linux": {"namespaces": [{"type": "mount"}]}});
        let node = Self { facts, cgroup, spec, dir };
        node.write("proc/thread-self/children", "");
        node.write("cgroup/cgroup.controllers", "memory pids\n");
        for below in ["cgroup/pod", "cgroup/pod/web"] {
            node.write(&format!("{below}/cgroup.freeze"), "0\n");
            node.write(&format!("{below}/cgroup.procs"), "");
        }
        node.write("cgroup/pod/web/cgroup.procs", &format!("{INIT}\n{CHILD}\n"));
        node.process(INIT, 1, 'S');
        node.process(CHILD, INIT, 'S');
        // What is frozen at its own level is captured.
        node.write("cgroup/pod/web/cgroup.freeze", "1\n");
        // A character device whatever the node of the test has.
        fs::create_dir_all(node.facts.dev.join("dri")).expect("directory");
        symlink("/dev/null", node.facts.dev.join("dri/card0")).expect("link");
        node
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("directory");
        fs::write(path, text).expect("file");
    }

    fn process(&self, pid: u32, parent: u32, state: char) {
        let rest = "0 ".repeat(17);
        self.write(&format!("proc/{pid}/stat"), &format!("{pid} (web) {state} {parent} {rest}7 0 0\n"));
        self.write(&format!("proc/{pid}/status"), "Name:\tweb\nTracerPid:\t0\n");
        self.write(&format!("proc/{pid}/cmdline"), "web\0--serve\0");
        self.write(
            &format!("proc/{pid}/mountinfo"),
            "30 1 0:30 / / rw - zfs tank/web rw\n31 30 0:31 / /proc rw - proc proc rw\n",
        );
        self.open(pid, 3, "/data/log", 30);
        self.open(pid, 4, "socket:[4711]", 9);
        self.open(pid, 5, "/dev/null", 30);
    }

    fn open(&self, pid: u32, number: u32, target: &str, mount: u32) {
        let fds = self.facts.of(pid, "fd");
        fs::create_dir_all(&fds).expect("directory");
        symlink(target, fds.join(number.to_string())).expect("link");
        self.write(&format!("proc/{pid}/fdinfo/{number}"), &format!("pos:\t0\nmnt_id:\t{mount}\n"));
    }

    fn preflight(&self) -> Result<(), Refusal> {
        let member = Member {
            name: "web".into(),
            id: "web-id".into(),
            image: String::new(),
            runtime: "oci/crun".into(),
            pid: INIT,
            rss_bytes: 0,
            cgroup: self.cgroup.clone(),
            was_paused: false,
            terminal: false,
            rootfs: "/r".into(),
            spec: self.spec.clone(),
            disks: vec![],
        };
        kernel(&self.facts).and_then(|()| container(&self.facts, &member))
    }
}

/// Spoils a node, and what the refusal has to name.
type Spoil = (&'static str, &'static str, fn(&mut Node));

const SPOILS: &[Spoil] = &[
    ("kernel-unsupported", "cgroup v2", |node| {
        fs::remove_file(node.facts.cgroups.join("cgroup.controllers")).expect("removed");
    }),
    ("kernel-unsupported", "CONFIG_CHECKPOINT_RESTORE", |node| {
        fs::remove_file(node.facts.proc.join("thread-self/children")).expect("removed");
    }),
    ("not-running", "web", |node| fs::remove_dir_all(node.facts.of(INIT, "")).expect("removed")),
    ("not-running", "web", |node| node.process_again(INIT, 1, 'Z')),
    ("parent-frozen", "cgroup/pod above", |node| node.write("cgroup/pod/cgroup.freeze", "1\n")),
    ("userns", "web", |node| {
        node.spec = json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}});
    }),
    ("exec-session", "process 101 (web --serve)", |node| node.process_again(CHILD, 1, 'S')),
    ("traced", "traced by process 4242", |node| {
        node.write(&format!("proc/{CHILD}/status"), "Name:\tweb\nTracerPid:\t4242\n");
    }),
    ("io-uring", "process 101", |node| node.open(CHILD, 6, "anon_inode:[io_uring]", 9)),
    ("device-file", "/dev/dri/card0", |node| node.open(CHILD, 6, "/dev/dri/card0", 30)),
    ("host-file", "/var/log/host.log of the host open as descriptor 6", |node| {
        node.open(CHILD, 6, "/var/log/host.log", 77);
    }),
    ("unsupported-mount", "fuse.sshfs mounted at /mnt", |node| {
        let path = node.facts.of(INIT, "mountinfo");
        let table = fs::read_to_string(&path).expect("table");
        let fuse = "32 30 0:32 / /mnt rw - fuse.sshfs host:/srv rw\n";
        fs::write(path, table + fuse).expect("file");
    }),
];

impl Node {
    fn process_again(&self, pid: u32, parent: u32, state: char) {
        fs::remove_dir_all(self.facts.of(pid, "")).expect("removed");
        self.process(pid, parent, state);
    }
}

#[test]
fn a_container_of_which_everything_can_be_captured_passes() {
    Node::new().preflight().expect("nothing is in the way");
}

#[test]
fn whatever_is_in_the_way_is_refused_by_its_code_and_named() {
    for (code, named, spoil) in SPOILS {
        let mut node = Node::new();
        spoil(&mut node);
        let refusal = node.preflight().expect_err(code);
        assert_eq!(refusal.code, *code, "{refusal}");
        assert!(refusal.text.contains(named), "{refusal}");
        assert!(!refusal.advice.is_empty());
    }
}

#[test]
fn what_only_looks_like_it_passes() {
    let looks: &[fn(&mut Node)] = &[
        // Ordinary files of the container's /dev, memory files, files without a name.
        |node| node.open(CHILD, 6, "/dev/notes.txt", 30),
        |node| node.open(CHILD, 6, "/memfd:x (deleted)", 77),
        |node| node.open(CHILD, 6, "/data/gone (deleted)", 77),
        // A process that ends while it is looked at.
        |node| fs::remove_dir_all(node.facts.of(CHILD, "")).expect("removed"),
        |node| node.process_again(CHILD, 1, 'Z'),
    ];
    for (at, look) in looks.iter().enumerate() {
        let mut node = Node::new();
        look(&mut node);
        if let Err(refusal) = node.preflight() {
            panic!("number {at}: {refusal}");
        }
    }
}

#[test]
fn a_missing_an_old_and_a_strange_criu_have_their_codes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (code, answer) in [("criu-too-old", "Version: 4.1"), ("criu-broken", "hello")] {
        let criu = dir.path().join(code);
        crate::test_script::write(&criu, &format!("#!/bin/sh\necho '{answer}'\n"));
        assert_eq!(version(&criu, &Limits::none()).expect_err(code).code, code);
        assert_eq!(memory(&[], &criu, &Limits::none()).expect_err(code).code, code);
    }
    let refusal = node(Path::new("/nonexistent/criu"), &Limits::none()).expect_err("missing");
    assert_eq!(refusal.code, "criu-missing");
    assert!(refusal.advice.contains("disk only"));
}

#[test]
fn codes_are_unique_and_described_and_each_one_of_this_module_is_made_here() {
    let codes: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), CODES.len());
    assert!(CODES.iter().all(|(_, meaning)| !meaning.is_empty()));
    let elsewhere = [
        "criu-missing",
        "criu-too-old",
        "criu-broken",
        "backend-memory",
        crate::disk::VOLUME_REFUSED,
        crate::disk::VOLUME_NOT_A_DIRECTORY,
        crate::disk::BAD_ANNOTATION,
    ];
    let made: BTreeSet<&str> = SPOILS.iter().map(|(code, _, _)| *code).chain(elsewhere).collect();
    assert_eq!(codes, made);
}
