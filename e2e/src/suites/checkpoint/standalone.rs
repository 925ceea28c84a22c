//! A standalone container, without containerd: every verb of the command on one, as a person reads it and as a script
//! does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Case;
use crate::cryopod;
use crate::shell::{self, Finished, eventually, exec, sh};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("a_standalone_container_lives_by_every_verb_in_text", true, || lives(&[])),
    ("a_standalone_container_lives_by_every_verb_in_json", false, || lives(&["-o", "json"])),
    ("a_standalone_container_comes_back_as_the_latest_and_as_a_chosen_checkpoint", true, comes_back),
    ("what_is_held_is_pruned_only_after_its_release", false, held),
    ("a_bundle_of_its_own_gets_the_captured_volume", false, into_bundle),
    ("connections_are_closed_where_the_capture_chose_so", false, closed),
];

const ROOT: &str = "/tank/walk";
const WORK: &str = "/run/cryopod-e2e/walk";
const PATIENCE: Duration = Duration::from_secs(30);
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >> /count; sleep 0.1; done";

/// A root file system on a dataset of its own, and bundles that use it; removed when dropped.
struct Ground;

impl Ground {
    fn prepare() -> Result<Self, Failure> {
        sh("cryopod delete --force walk walk-b")?;
        shell::ok(&format!(
            "rm -rf {WORK}; mkdir -p {WORK}; zfs create -o mountpoint={ROOT} tank/walk && cd {ROOT} && \
             mkdir -p bin dev proc sys tmp etc volume && cp /bin/busybox bin/busybox && \
             for a in sh sleep cat echo nc; do ln -s busybox bin/$a; done"
        ))?;
        Ok(Self)
    }

    /// A bundle that runs `script`, with `patch` laid over its specification; its directory.
    fn bundle(&self, name: &str, script: &str, patch: &Value) -> Result<String, Failure> {
        let dir = format!("{WORK}/{name}");
        fs::create_dir_all(&dir).map_err(|e| format!("{dir}: {e}"))?;
        shell::exec_ok(&["cryopod", "spec", "--bundle", &dir, "--", "sh", "-c", script])?;
        let path = format!("{dir}/config.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let mut spec: Value = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
        let mounts = spec["mounts"].take();
        crate::crictl::merge(&mut spec, &json!({"root": {"path": ROOT, "readonly": false}}));
        crate::crictl::merge(&mut spec, patch);
        let more = spec["mounts"].as_array().cloned().unwrap_or_default();
        spec["mounts"] = mounts.as_array().into_iter().flatten().cloned().chain(more).collect();
        fs::write(&path, spec.to_string()).map_err(|e| format!("{path}: {e}"))?;
        Ok(dir)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let gone = "for i in 1 2 3 4 5; do zfs destroy -r tank/walk && exit; sleep 1; done; exit 1";
        for script in ["cryopod delete --force walk walk-b", gone, &format!("rm -rf {WORK}")] {
            if let Err(e) = shell::ok(script) {
                eprintln!("clean-up: {e}");
            }
        }
    }
}

/// Runs the command in one of its forms; it has to end with `code`.
fn say(form: &[&str], args: &[&str], code: i32) -> Result<Finished, Failure> {
    let done = exec(&[&["cryopod"], form, args].concat())?;
    ensure(done.code == code, || {
        let said = format!("{}{}", done.stdout.trim(), done.stderr.trim());
        format!("`cryopod {}` ended with {}, not {code}: {said}", args.join(" "), done.code)
    })?;
    ensure(
        form.is_empty() || done.stdout.is_empty() || speaks_for_a_process(args) || is_json(&done),
        || format!("`cryopod {}` writes no JSON: {}", args.join(" "), done.stdout.trim()),
    )?;
    Ok(done)
}

/// Their standard output is the process's.
fn speaks_for_a_process(args: &[&str]) -> bool {
    matches!(args.first(), Some(&"exec" | &"run")) && !args.contains(&"--detach")
}

fn is_json(done: &Finished) -> bool {
    serde_json::from_str::<Value>(&done.stdout).is_ok()
}

/// What `state` says, whatever the form.
fn is(form: &[&str], name: &str, status: &str) -> Result<(), Failure> {
    eventually(&format!("{name} is {status}"), PATIENCE, || {
        let said = say(form, &["state", name], 0)?.stdout;
        let seen = match serde_json::from_str::<Value>(&said) {
            Ok(state) => state["status"] == status,
            Err(_) => said.lines().any(|line| line.starts_with("status") && line.ends_with(status)),
        };
        Ok(seen.then_some(()))
    })
}

fn lives(form: &[&str]) -> Result<(), Failure> {
    let ground = Ground::prepare()?;
    let counter = ground.bundle("counter", COUNT, &json!({}))?;
    let once = ground.bundle("once", "echo out; echo err >&2; exit 7", &json!({}))?;
    say(form, &["create", "--bundle", &counter, "walk"], 0)?;
    is(form, "walk", "created")?;
    say(form, &["exec", "walk", "true"], 125)?;
    say(form, &["start", "walk"], 0)?;
    is(form, "walk", "running")?;
    ensure(say(form, &["list"], 0)?.stdout.contains("walk"), || "`list` does not show it".into())?;

    let done = say(form, &["exec", "walk", "sh", "-c", "echo hello; exit 3"], 3)?;
    ensure(done.stdout == "hello\n", || format!("exec wrote {:?}", done.stdout))?;
    let done = say(form, &["exec", "-t", "walk", "sh", "-c", "[ -t 0 ] && [ -t 1 ] && echo terminal"], 0)?;
    ensure(done.stdout == "terminal\r\n", || format!("exec -t wrote {:?}", done.stdout))?;

    say(form, &["pause", "walk"], 0)?;
    is(form, "walk", "paused")?;
    say(form, &["pause", "walk"], 6)?;
    say(form, &["resume", "walk"], 0)?;
    is(form, "walk", "running")?;
    say(form, &["delete", "walk"], 6)?;
    say(form, &["kill", "walk", "KILL"], 0)?;
    is(form, "walk", "stopped")?;
    say(form, &["kill", "walk", "KILL"], 6)?;
    say(form, &["delete", "walk"], 0)?;
    say(form, &["state", "walk"], 3)?;

    let done = say(form, &["run", "--bundle", &once, "walk"], 7)?;
    ensure(done.stdout == "out\n" && done.stderr.contains("err\n"), || {
        format!("run wrote {:?} and {:?}", done.stdout, done.stderr)
    })?;
    say(form, &["state", "walk"], 3)?;

    let dump = say(form, &["config", "dump"], 0)?.stdout;
    ensure(dump.contains("volume_copy_limit"), || format!("`config dump` wrote {dump}"))?;
    // What it finds is the node's affair; here it has to look and to say it.
    let doctor = exec(&[&["cryopod"], form, &["doctor"]].concat())?;
    ensure([0, 20, 21].contains(&doctor.code), || format!("doctor ended with {}", doctor.code))?;
    let said = if form.is_empty() { "checks:" } else { "\"findings\"" };
    ensure(doctor.stdout.contains(said), || format!("doctor wrote {}", doctor.stdout))
}

/// Lines that the container has counted; a gap or a repeat is an error, since memory and file are of one instant.
fn counted(name: &str) -> Result<u64, Failure> {
    let state = cryopod::ok(&["state", name])?;
    let path = format!("/proc/{}/root/count", state["pid"]);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|e| format!("{path}: {e}"))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (line, expected) in whole.lines().zip(1_u64..) {
        ensure(line == expected.to_string(), || format!("line {expected} of {path} is {line:?}"))?;
    }
    Ok(whole.lines().count() as u64)
}

/// Waits until it has counted beyond `number`; returns how far it is.
fn beyond(name: &str, number: u64) -> Result<u64, Failure> {
    eventually(&format!("{name} counts beyond {number}"), PATIENCE, || {
        let count = counted(name)?;
        Ok((count > number).then_some(count))
    })
}

fn comes_back() -> Result<(), Failure> {
    let ground = Ground::prepare()?;
    // Where no option says it, the annotation of the bundle decides what is captured.
    let note = json!({"annotations": {"cryopod.dev/checkpoint-mode": "disk"}});
    let bundle = ground.bundle("counter", COUNT, &note)?;
    cryopod::ok(&["run", "--detach", "--bundle", &bundle, "walk"])?;
    beyond("walk", 3)?;
    let disk = cryopod::ok(&["checkpoint", "walk", "--id", "walk-0", "--wait"])?;
    ensure(disk["mode"] == "disk" && disk["settled"] == true, || format!("the answer is {disk}"))?;
    let first = counted("walk")?;
    let full = ["checkpoint", "walk", "--mode", "full", "--wait", "--id"];
    cryopod::ok(&[&full[..], &["walk-1"]].concat())?;
    let second = beyond("walk", first + 20)?;
    let text = say(&[], &[&full[..], &["walk-2"]].concat(), 0)?.stdout;
    ensure(text.contains("walk-2") && text.contains("settled"), || format!("`checkpoint` wrote {text}"))?;
    beyond("walk", second)?;
    say(&[], &["delete", "--force", "walk"], 0)?;

    let latest = cryopod::ok(&["restore", "walk"])?;
    ensure(latest["checkpoint"] == "walk-2" && latest["memory"] == true, || format!("{latest}"))?;
    let state = cryopod::ok(&["state", "walk"])?;
    ensure(state["restored_from"] == "walk-2", || format!("the state is {state}"))?;
    ensure(counted("walk")? >= second, || "the latest is an earlier one".into())?;
    beyond("walk", second + 3)?;

    let text = say(&[], &["restore", "walk", "--snapshot", "walk-1", "--name", "walk-b"], 0)?.stdout;
    ensure(text.trim() == "walk-b", || format!("`restore` wrote {text}"))?;
    ensure(say(&[], &["state", "walk-b"], 0)?.stdout.contains("walk-1"), || "no source in its state".into())?;
    beyond("walk-b", first + 3)?;
    beyond("walk", second + 5)?;
    say(&[], &["delete", "--force", "walk", "walk-b"], 0)?;

    for form in [&[][..], &["-o", "json"]] {
        let list = say(form, &["checkpoints", "list", "--pod", "walk"], 0)?.stdout;
        ensure(["walk-0", "walk-1", "walk-2"].iter().all(|id| list.contains(id)), || {
            format!("listed: {list}")
        })?;
        say(form, &["checkpoints", "show", "walk-1"], 0)?;
        say(form, &["checkpoints", "verify", "walk-2"], 0)?;
    }
    say(&[], &["checkpoints", "delete", "walk-0", "walk-1"], 0)?;
    cryopod::ok(&["checkpoints", "delete", "walk-2"]).map(drop)
}

fn held() -> Result<(), Failure> {
    let ground = Ground::prepare()?;
    let bundle = ground.bundle("counter", COUNT, &json!({}))?;
    cryopod::ok(&["run", "--detach", "--bundle", &bundle, "walk"])?;
    for id in ["walk-1", "walk-2"] {
        cryopod::ok(&["checkpoint", "walk", "--mode", "disk", "--wait", "--id", id])?;
    }
    let prune = ["checkpoints", "prune", "--pod", "walk", "--keep-last", "1"];
    cryopod::ok(&["checkpoints", "hold", "walk-1"])?;
    let info = &cryopod::ok(&["checkpoints", "show", "walk-1"])?["checkpoint"];
    ensure(info["held"] == true, || format!("`show` says {info}"))?;
    let kept = cryopod::ok(&prune)?;
    let ours = || -> Result<Vec<String>, Failure> {
        Ok(cryopod::checkpoints()?.into_iter().filter(|id| id.starts_with("walk-")).collect())
    };
    ensure(ours()? == ["walk-2", "walk-1"], || format!("prune of a held one: {kept}"))?;
    cryopod::ok(&["checkpoints", "release", "walk-1"])?;
    let gone = cryopod::ok(&prune)?;
    ensure(ours()? == ["walk-2"], || format!("prune of a released one: {gone}"))?;
    say(&[], &["delete", "--force", "walk"], 0)?;
    cryopod::ok(&["checkpoints", "delete", "walk-2"]).map(drop)
}

/// A bundle's specification with a writable volume that is captured, and where that is.
fn with_volume(dir: &str) -> Result<Value, Failure> {
    let source = format!("{WORK}/{dir}-volume");
    fs::create_dir_all(&source).map_err(|e| format!("{source}: {e}"))?;
    Ok(json!({
        "annotations": {"cryopod.dev/volumes": "capture"},
        "mounts": [{"destination": "/volume", "type": "bind", "source": source, "options": ["rbind", "rw"]}],
    }))
}

fn into_bundle() -> Result<(), Failure> {
    let ground = Ground::prepare()?;
    let script = format!("echo kept > /volume/file; {COUNT}");
    let old = ground.bundle("old", &script, &with_volume("old")?)?;
    let new = ground.bundle("new", &script, &with_volume("new")?)?;
    cryopod::ok(&["run", "--detach", "--bundle", &old, "walk"])?;
    let before = beyond("walk", 3)?;
    cryopod::ok(&["checkpoint", "walk", "--mode", "full", "--wait", "--id", "walk-1"])?;
    // Its own volume is in use, so that it cannot be restored over it.
    let error = cryopod::refused(&["restore", "walk", "--name", "walk-b"], 6)?;
    ensure(error.contains("not empty"), || format!("the error is {error}"))?;
    cryopod::ok(&["restore", "walk", "--name", "walk-b", "--bundle", &new])?;
    beyond("walk-b", before)?;
    let kept = fs::read_to_string(Path::new(WORK).join("new-volume/file")).map_err(|e| e.to_string())?;
    ensure(kept == "kept\n", || format!("the volume of the new bundle has {kept:?}"))?;
    say(&[], &["delete", "--force", "walk", "walk-b"], 0)?;
    // What came in a stream comes back on a bundle of one's own alone.
    let stream = format!("{WORK}/walk-1.cryopod");
    cryopod::ok(&["checkpoints", "export", "walk-1", &stream])?;
    cryopod::ok(&["checkpoints", "delete", "walk-1"])?;
    cryopod::ok(&["checkpoints", "import", &stream])?;
    let error = cryopod::refused(&["restore", "walk-1", "--name", "walk-b"], 6)?;
    ensure(error.contains("--bundle"), || format!("the error is {error}"))?;
    let onto = ["--name", "walk-b", "--bundle", &new, "--overwrite-volumes"];
    cryopod::ok(&[&["restore", "walk-1"], &onto[..]].concat())?;
    beyond("walk-b", before)?;
    say(&[], &["delete", "--force", "walk-b"], 0)?;
    cryopod::ok(&["checkpoints", "delete", "walk-1"]).map(drop)
}

/// Established connections in the network of a container, by /proc/net/tcp.
/// Established ones, both ends: a listener of busybox is one of IPv6 that takes IPv4 as well.
fn connections(name: &str) -> Result<usize, Failure> {
    let state = cryopod::ok(&["state", name])?;
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let table = format!("/proc/{}/net/{table}", state["pid"]);
        let text = fs::read_to_string(&table).map_err(|e| format!("{table}: {e}"))?;
        count += text.lines().filter(|line| line.split_whitespace().nth(3) == Some("01")).count();
    }
    Ok(count)
}

fn closed() -> Result<(), Failure> {
    let ground = Ground::prepare()?;
    let script = "while [ ! -e /up ]; do sleep 0.1; done; (sleep 10000 | nc -l -p 7000) & sleep 1; \
                  (sleep 10000 | nc 127.0.0.1 7000) & while :; do sleep 0.1; done";
    let bundle = ground.bundle("nc", script, &json!({}))?;
    cryopod::ok(&["run", "--detach", "--bundle", &bundle, "walk"])?;
    let pid = cryopod::ok(&["state", "walk"])?["pid"].clone();
    shell::ok(&format!("nsenter -t {pid} -n ip link set lo up && touch {ROOT}/up"))?;
    eventually("the connection is there", PATIENCE, || Ok((connections("walk")? == 2).then_some(())))?;
    // After a restore a poll that slept returns EINTR, for which busybox's nc ends: it must not get to run.
    shell::ok("pkill -STOP -f '^nc (-l -p|127.0.0.1) ?7000'")?;
    for (tcp, id) in [("close", "walk-1"), ("keep", "walk-2")] {
        cryopod::ok(&["checkpoint", "walk", "--mode", "full", "--wait", "--tcp", tcp, "--id", id])?;
    }
    cryopod::ok(&["delete", "--force", "walk"])?;
    for (id, options, there) in [
        ("walk-1", &[][..], 0),
        ("walk-2", &[], 2),
        ("walk-1", &["--tcp", "keep"], 2),
        ("walk-2", &["--tcp", "close"], 0),
    ] {
        cryopod::ok(&[&["restore", id, "--name", "walk-b"], options].concat())?;
        let found = connections("walk-b")?;
        ensure(found == there, || format!("{found} connections after `restore {id}` with {options:?}"))?;
        cryopod::ok(&["delete", "--force", "walk-b"])?;
    }
    cryopod::ok(&["checkpoints", "delete", "walk-1", "walk-2"]).map(drop)
}
