//! What the command makes of checkpoints that are there, whoever captured them: written into a directory store as
//! `checkpoint::store` draws it, since a capture needs a node.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cryopod_checkpoint::digest;
use cryopod_checkpoint::manifest::Manifest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Place, is_root, with_store};

/// A committed checkpoint of a standalone container, disk only, without disks.
struct Stored<'a> {
    id: &'a str,
    of: &'a str,
    created: &'a str,
    runtime: &'a str,
    imported: bool,
    /// Bytes that make the manifest longer.
    padding: usize,
}

const CAPTURED: Stored<'_> = Stored {
    id: "web-1",
    of: "web",
    created: "2026-03-04T05:06:07Z",
    runtime: "oci/crun 1.21",
    imported: false,
    padding: 0,
};

impl Stored<'_> {
    fn manifest(&self) -> Vec<u8> {
        let member = json!({
            "name": self.of, "id": self.of, "image": "", "runtime": self.runtime, "pid": 4711,
            "rss_bytes": 0, "cgroup": "/sys/fs/cgroup/web", "was_paused": false, "terminal": false,
            "rootfs": "/b/rootfs", "disks": [],
            "spec": {
                "ociVersion": "1.2.0",
                "root": { "path": "rootfs" },
                "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["sh"] },
                "annotations": { "padding": "x".repeat(self.padding) },
                "hooks": { "prestart": [{ "path": "/tmp/x" }] }
            },
        });
        let manifest = json!({
            "version": 1, "id": self.id, "created": self.created, "tool": "cryopod 0.1.0", "mode": "disk",
            "memory_refused": null, "labels": {}, "tcp": "keep",
            "pod": { "id": self.of, "name": self.of, "namespace": "", "uid": "" },
            "node": {
                "hostname": "node1", "kernel": "6.12.107", "arch": "x86_64", "cpu_vendor": "GenuineIntel",
                "cpu_flags": [], "criu": null
            },
            "timeline": {
                "phases": [], "freeze_us": 0, "total_us": 0, "memory_bytes": 0, "copied_bytes": 0
            },
            "members": [{ "member": member, "disks": [], "memory": null }],
        });
        serde_json::to_vec(&manifest).unwrap()
    }

    /// Puts it into the store of [`with_store`].
    fn put(&self, place: &Place) {
        let manifest = self.manifest();
        let summary = Manifest::parse(&manifest).unwrap().summary();
        let sha256 = digest::of(&manifest);
        let marker = json!({ "version": 1, "manifest": sha256, "summary": summary }).to_string();
        place.write("store/cryopod", "");
        let file =
            |name: &str, text: &str| place.write(&format!("store/checkpoints/{}/{name}", self.id), text);
        file("cryopod", "");
        file("memory/manifest.json", std::str::from_utf8(&manifest).unwrap());
        if self.imported {
            file("imported", "");
        }
        file("committed", &marker);
    }
}

/// A place with a store in which these are; None where only root may look into it.
fn with(stored: &[Stored<'_>]) -> Option<(Place, String)> {
    if !is_root() {
        return None;
    }
    let place = Place::new();
    let config = with_store(&place);
    for one in stored {
        one.put(&place);
    }
    Some((place, config))
}

fn ids(place: &Place, config: &str) -> Vec<String> {
    let list = place.works(&["--config", config, "checkpoints", "list", "-q"]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn an_import_is_not_restored_with_the_configuration_that_it_brings() {
    let imported = Stored { id: "foreign-1", runtime: "oci//tmp/x", imported: true, ..CAPTURED };
    let Some((place, config)) = with(&[imported]) else { return };
    let restore = ["--config", &config, "restore", "foreign-1", "--name", "back"];
    let message = place.fails(6, &restore);
    assert!(message.contains("came in a stream") && message.contains("--bundle DIR"), "{message}");

    // With a bundle of one's own, the runtime is still not the sender's to name.
    place.write("own/config.json", &String::from_utf8_lossy(&spec()));
    fs::create_dir(place.path().join("own/rootfs")).unwrap();
    let own = place.path().join("own");
    let message = place.fails(6, &[&restore[..], &["--bundle", own.to_str().unwrap()]].concat());
    assert!(message.contains("'/tmp/x'") && message.contains("--runtime"), "{message}");
    assert_eq!(place.works(&["list", "--all", "-q"]), "", "a refused restore took a name");
}

fn spec() -> Vec<u8> {
    let manifest: Value = serde_json::from_slice(&CAPTURED.manifest()).unwrap();
    serde_json::to_vec(&manifest["members"][0]["member"]["spec"]).unwrap()
}

#[test]
fn what_is_held_is_not_pruned_until_it_is_released() {
    let older = Stored { id: "web-0", created: "2026-03-01T00:00:00Z", ..CAPTURED };
    let Some((place, config)) = with(&[older, CAPTURED]) else { return };
    let checkpoints = |args: &[&str]| place.works(&[&["--config", &config, "checkpoints"], args].concat());
    assert!(checkpoints(&["hold", "web-0"]).contains("web-0 is held"));
    // Held is held, however often.
    let json: Value = serde_json::from_str(&checkpoints(&["hold", "web-0", "-o", "json"])).unwrap();
    assert_eq!(json, json!({ "held": ["web-0"] }));
    assert!(checkpoints(&["list"]).contains("held"));
    assert!(checkpoints(&["show", "web-0"]).contains("prune never deletes it"));
    let pruned = checkpoints(&["prune", "--keep-last", "1"]);
    assert!(pruned.contains("a person holds it"), "{pruned}");
    assert_eq!(ids(&place, &config), ["web-1", "web-0"]);

    let json: Value = serde_json::from_str(&checkpoints(&["release", "web-0", "-o", "json"])).unwrap();
    assert_eq!(json, json!({ "released": ["web-0"] }));
    checkpoints(&["prune", "--keep-last", "1"]);
    assert_eq!(ids(&place, &config), ["web-1"]);
}

#[test]
fn one_that_cannot_be_held_does_not_keep_the_others() {
    let Some((place, config)) = with(&[CAPTURED]) else { return };
    let done = place.run(&["--config", &config, "checkpoints", "hold", "ghost", "web-1"]);
    assert_eq!(done.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&done.stdout).contains("web-1 is held"));
    assert!(String::from_utf8_lossy(&done.stderr).contains("ghost"));
    // A typing error in one leaves all as they were.
    place.fails(5, &["--config", &config, "checkpoints", "release", "web-1", "../web"]);
    assert!(place.works(&["--config", &config, "checkpoints", "list"]).contains("held"));
}

#[test]
fn a_damaged_checkpoint_decides_the_code_also_after_one_that_is_not_there() {
    let Some((place, config)) = with(&[CAPTURED]) else { return };
    place.works(&["--config", &config, "checkpoints", "verify", "--all"]);
    place.write("store/checkpoints/web-1/memory/manifest.json", "{}");
    let message = place.fails(12, &["--config", &config, "checkpoints", "verify", "ghost", "web-1"]);
    assert!(message.contains("ghost") && message.contains("web-1"), "{message}");
}

#[test]
fn the_latest_of_a_name_was_captured_here() {
    let foreign = Stored { id: "foreign-1", created: "2999-01-01T00:00:00Z", imported: true, ..CAPTURED };
    let cache = Stored { id: "foreign-2", of: "cache", imported: true, ..CAPTURED };
    let Some((place, config)) = with(&[CAPTURED, foreign, cache]) else { return };
    let shown = place.works(&["--config", &config, "checkpoints", "show", "web", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["checkpoint"]["id"], "web-1");
    let message = place.fails(5, &["--config", &config, "restore", "cache"]);
    assert!(message.contains("foreign-2") && message.contains("imported"), "{message}");
}

/// A verb on checkpoints with pipes whose other ends are ours.
fn piped(place: &Place, config: &str, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_cryopod"))
        .arg("--root")
        .arg(place.path().join("root"))
        .args(["--config", config, "checkpoints"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Sends SIGINT, after which it has to end as cancelled, and soon.
fn interrupt(mut child: Child) {
    let sent = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let mut ended = None;
    while ended.is_none() && sent.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        ended = child.try_wait().unwrap();
    }
    if ended.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(ended.expect("it ignores SIGINT").code(), Some(130));
}

#[test]
fn an_import_that_waits_for_its_stream_can_be_interrupted() {
    let Some((place, config)) = with(&[]) else { return };
    let mut child = piped(&place, &config, &["import", "-"]);
    let mut stream = b"CRYOPOD-EXPORT\n\0\x01\0\0\0M\0\0\0\0\x10\0".to_vec();
    // More than a pipe holds: when all of it is written, the command has begun to read.
    stream.resize(stream.len() + (200 << 10), b' ');
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&stream).unwrap();
    interrupt(child);
    drop(stdin);
    assert!(ids(&place, &config).is_empty());
    assert!(place.works(&["--config", &config, "recover"]).contains("nothing to recover"));
}

#[test]
fn an_export_whose_reader_does_not_read_can_be_interrupted() {
    let large = Stored { padding: 4 << 20, ..CAPTURED };
    let Some((place, config)) = with(&[large]) else { return };
    let mut child = piped(&place, &config, &["export", "web-1"]);
    let mut stdout = child.stdout.take().unwrap();
    // It writes, and more than a pipe holds.
    stdout.read_exact(&mut [0; 16]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    interrupt(child);
    assert_eq!(ids(&place, &config), ["web-1"]);
}
