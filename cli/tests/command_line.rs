//! The command as a person or a script meets it, as far as that needs no node: help, configuration, bad input.
//!
//! Every failure must say what is wrong in words, end with the documented code and never panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "command_line/routing.rs"]
mod routing;
#[path = "command_line/stored.rs"]
mod stored;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs the command with a root directory of its own, so that nothing of this machine plays a part.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cryopod"))
            .arg("--root")
            .arg(self.path().join("root"))
            .args(args)
            .current_dir(self.path())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?} failed and wrote a result");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert!(!stderr.trim().is_empty(), "{args:?} failed without a word");
        stderr
    }

    fn works(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn help_and_version_are_results() {
    let place = Place::new();
    assert!(place.works(&["--help"]).contains("checkpoint"));
    assert!(place.works(&["checkpoints", "prune", "--help"]).contains("--keep-hourly"));
    assert!(place.works(&["--version"]).starts_with("cryopod "));
}

#[test]
fn a_wrong_command_line_is_a_usage_error_in_text_and_in_json() {
    let place = Place::new();
    assert!(place.fails(2, &["frobnicate"]).contains("frobnicate"));
    let error: Value = serde_json::from_str(&place.fails(2, &["-o", "json", "frobnicate"])).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let place = Place::new();
    let config = place.write("config.toml", "[store]\nkind = \"dir\"\n[checkpoint]\nghost_limt = \"1M\"\n");
    let message = place.fails(5, &["config", "check", "--config", &config]);
    assert!(message.contains("config.toml:4:1") && message.contains("ghost_limit"), "{message}");
    let value = place.write("value.toml", "[store]\nkind = 7\n");
    assert!(place.fails(5, &["config", "check", "--config", &value]).contains("value.toml:2"));
    place.fails(3, &["config", "check", "--config", "/nonexistent/config.toml"]);
}

#[test]
fn what_dump_prints_check_accepts() {
    let place = Place::new();
    let config = place.write("config.toml", "[store]\nkind = \"dir\"\n");
    let dump = place.works(&["config", "dump", "--config", &config]);
    assert!(dump.contains("kind = \"dir\"") && dump.contains("ghost_limit"), "{dump}");
    let again = place.write("again.toml", &dump);
    place.works(&["config", "check", "--config", &again]);
    assert_eq!(place.works(&["config", "dump", "--config", &again]), dump);
    let json: Value =
        serde_json::from_str(&place.works(&["config", "dump", "-o", "json", "--config", &config])).unwrap();
    assert_eq!(json["store"]["kind"], "dir");
}

#[test]
fn every_shell_gets_completions_and_every_verb_a_page() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.works(&["completions", shell]);
        assert!(script.contains("checkpoints"), "{shell}");
        assert!(!script.contains("Ship a committed"), "{shell} offers a hidden verb");
    }
    let dir = place.path().join("man");
    std::fs::create_dir(&dir).unwrap();
    let listed = place.works(&["man", "--dir", dir.to_str().unwrap()]);
    for page in ["cryopod.1", "cryopod-checkpoint.1", "cryopod-checkpoints-prune.1"] {
        assert!(listed.lines().any(|line| line == page), "{page} is not listed");
        let text = std::fs::read_to_string(dir.join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(!dir.join("cryopod-settle.1").exists());
    place.fails(3, &["man", "--dir", "/nonexistent/dir"]);
}

#[test]
fn spec_writes_a_bundle_once() {
    let place = Place::new();
    place.works(&["spec", "--", "/bin/counter", "--from", "1"]);
    let spec: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"], serde_json::json!(["/bin/counter", "--from", "1"]));
    assert!(place.fails(4, &["spec"]).contains("--force"));
    place.works(&["spec", "--force"]);
    assert!(place.works(&["spec", "--print", "--terminal"]).contains("\"terminal\": true"));
}

#[test]
fn nothing_runs_on_a_fresh_machine() {
    let place = Place::new();
    assert!(place.works(&["list", "--all"]).contains("nothing runs"));
    assert_eq!(place.works(&["list", "-q"]), "");
    let json: Value = serde_json::from_str(&place.works(&["list", "-o", "json"])).unwrap();
    assert_eq!(json, serde_json::json!({ "containers": [], "pods": [] }));
}

#[test]
fn a_container_that_does_not_exist_is_not_found_by_every_verb() {
    let place = Place::new();
    for verb in ["start", "state", "kill", "delete", "pause", "resume"] {
        let message = place.fails(3, &[verb, "ghost"]);
        assert!(message.contains("ghost") && message.contains("cryopod list"), "{message}");
    }
    place.fails(125, &["exec", "ghost", "true"]);
    place.works(&["delete", "--force", "ghost"]);
}

#[test]
fn ids_that_are_paths_are_refused() {
    let place = Place::new();
    for id in ["../../etc", "a/b", ".hidden", "a\nb"] {
        place.fails(5, &["state", id]);
        place.fails(5, &["delete", "--force", id]);
    }
}

#[test]
fn a_signal_nobody_knows_is_refused() {
    assert!(Place::new().fails(5, &["kill", "web", "SIGNOTHING"]).contains("SIGNOTHING"));
}

#[test]
fn bad_bundles_are_refused_before_anything_is_made() {
    let place = Place::new();
    if !is_root() {
        place.fails(10, &["create", "--bundle", "/nonexistent", "web"]);
        return;
    }
    let process = r#""process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["sh"]}"#;
    let cases = [
        ("truncated", "{\"ociVersion\":", "config.json"),
        ("array", "[]", "config.json"),
        ("no-root", &format!("{{\"ociVersion\":\"1.2.0\",{process}}}"), "root.path"),
        ("no-process", "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"rootfs\"}}", "process"),
        (
            "no-rootfs",
            &format!("{{\"ociVersion\":\"1.2.0\",{process},\"root\":{{\"path\":\"rootfs\"}}}}"),
            "rootfs is no directory",
        ),
    ];
    for (name, spec, named) in cases {
        place.write(&format!("{name}/config.json"), spec);
        let bundle = place.path().join(name);
        let bundle = bundle.to_str().unwrap();
        let message = place.fails(5, &["create", "--bundle", bundle, "web"]);
        assert!(message.contains(named) && message.contains(name), "{message}");
        place.fails(125, &["run", "--bundle", bundle, "web"]);
    }
    assert!(place.fails(3, &["create", "--bundle", "/nonexistent", "web"]).contains("/nonexistent"));
    assert!(place.works(&["list", "--all", "-q"]).is_empty(), "a refused bundle took a name");
}

#[test]
fn a_runtime_that_does_not_exist_takes_no_name_and_keeps_nobody_from_deleting() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let process = r#""process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["sh"]}"#;
    place.write(
        "bundle/config.json",
        &format!("{{\"ociVersion\":\"1.2.0\",{process},\"root\":{{\"path\":\"rootfs\"}}}}"),
    );
    std::fs::create_dir(place.path().join("bundle/rootfs")).unwrap();
    for (verb, code) in [("run", 125), ("create", 5)] {
        let message = place.fails(code, &[verb, "--runtime", "nosuch", "--bundle", "bundle", "web"]);
        assert!(message.contains("no runtime 'nosuch'"), "{message}");
        assert_eq!(place.works(&["list", "--all", "-q"]), "", "{verb} took the name");
    }
    // What an earlier version or a changed configuration has left.
    let state = |init: &str| {
        let process =
            format!(r#""terminal":false,"created":"2026-03-04T05:06:07Z","init":{init},"started":false"#);
        let rest = r#""exit":null,"restored_from":null,"log":null,"placed":false"#;
        let state = format!(
            r#"{{"version":1,"id":"web","bundle":"/b","rootfs":"/b/r","runtime":"nosuch",{process},{rest}}}"#
        );
        place.write("root/containers/web/state.json", &state);
    };
    // One that had an init may be more than a directory.
    state(r#"{"pid":4194304,"start_ticks":1}"#);
    assert!(place.fails(5, &["delete", "--force", "web"]).contains("runtime"));
    state("null");
    place.works(&["delete", "--force", "web"]);
    assert_eq!(place.works(&["list", "--all", "-q"]), "");
}

#[test]
fn an_error_in_json_has_kind_message_and_advice() {
    let place = Place::new();
    let error: Value = serde_json::from_str(&place.fails(3, &["-o", "json", "state", "ghost"])).unwrap();
    assert_eq!(error["error"]["kind"], "not-found");
    assert_eq!(error["error"]["message"], "container 'ghost' does not exist");
    assert!(error["error"]["advice"].as_str().unwrap().contains("cryopod list"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cryopod"))
        .args(["completions", "bash"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_escape_sequence_reaches_a_pipe() {
    let place = Place::new();
    for args in [&["list"][..], &["--help"], &["state", "ghost"]] {
        let output = place.run(args);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?}");
    }
}

/// What `doctor`, which shows progress, draws on a terminal.
fn drawn(place: &Place, args: &[&str], environment: &[(&str, &str)]) -> String {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cryopod"))
        .arg("--root")
        .arg(place.path().join("root"))
        .args(args)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal.slave)
        .spawn()
        .unwrap();
    let mut drawn = Vec::new();
    // Linux ends the master with EIO when the last slave is closed.
    std::fs::File::from(terminal.master).read_to_end(&mut drawn).ok();
    child.wait().unwrap();
    String::from_utf8(drawn).unwrap()
}

#[test]
fn progress_has_colours_only_where_they_are_wanted() {
    let place = Place::new();
    let coloured = |text: &str| text.contains("\u{1b}[36m") || text.contains("\u{1b}[2m");
    let config = with_store(&place);
    let doctor = ["--config", &config, "doctor"];
    let usual = drawn(&place, &doctor, &[]);
    assert!(usual.contains("looking at this node") && coloured(&usual), "{usual:?}");
    for (args, environment) in [(&["--no-color"][..], &[][..]), (&[], &[("NO_COLOR", "1")])] {
        let plain = drawn(&place, &[&doctor[..], args].concat(), environment);
        assert!(plain.contains("looking at this node"), "{plain:?}");
        assert!(!coloured(&plain), "{args:?} {environment:?}: {plain:?}");
    }
}

/// A store in a directory, below the test's own place.
fn with_store(place: &Place) -> String {
    let dir = place.path().join("store");
    place.write("config.toml", &format!("[store]\nkind = \"dir\"\n[store.dir]\npath = {dir:?}\n"))
}

#[test]
fn an_empty_store_answers_every_verb() {
    let place = Place::new();
    let config = with_store(&place);
    if !is_root() {
        place.fails(10, &["--config", &config, "checkpoints", "list"]);
        return;
    }
    assert!(place.works(&["--config", &config, "checkpoints", "list"]).contains("no checkpoints"));
    assert_eq!(place.works(&["--config", &config, "checkpoints", "list", "-o", "json"]).trim(), "[]");
    place.works(&["--config", &config, "checkpoints", "verify", "--all"]);
    place.works(&["--config", &config, "checkpoints", "prune", "--keep-last", "1"]);
    assert!(place.works(&["--config", &config, "recover"]).contains("nothing to recover"));
    for args in [
        &["show", "ghost"][..],
        &["verify", "ghost"],
        &["delete", "ghost"],
        &["hold", "ghost"],
        &["release", "ghost"],
        &["export", "ghost", "file"],
    ] {
        let args: Vec<&str> = ["--config", &config, "checkpoints"].iter().chain(args).copied().collect();
        assert!(place.fails(3, &args).contains("ghost"));
    }
    place.fails(5, &["--config", &config, "checkpoints", "delete", "../../etc"]);
    place.fails(2, &["--config", &config, "checkpoints", "prune"]);
    assert!(place.fails(3, &["--config", &config, "checkpoint", "ghost"]).contains("ghost"));
    assert!(place.fails(3, &["--config", &config, "restore", "ghost"]).contains("ghost"));
    assert!(!place.path().join("file").exists());
}

#[test]
fn doctor_looks_and_makes_nothing() {
    let place = Place::new();
    let config = with_store(&place);
    let look = || {
        let done = place.run(&["--config", &config, "-o", "json", "doctor"]);
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
        move |check: &str| {
            let findings = answer["findings"].as_array().unwrap();
            findings.iter().find(|finding| finding["check"] == check).cloned().unwrap_or_default()
        }
    };
    let found = look();
    if is_root() {
        assert_eq!(found("store")["level"], "ok", "{}", found("store"));
        assert_eq!(found("journal")["level"], "ok", "{}", found("journal"));
    }
    for made in ["store", "root"] {
        assert!(!place.path().join(made).exists(), "doctor made {made}");
    }
    if !is_root() {
        return;
    }
    // What is damaged is reported, and stays for `recover`; somebody's directory is not taken.
    let damaged = place.write("root/journal/x.json", "{");
    place.write("store/photo.jpg", "");
    let found = look();
    assert!(found("journal")["text"].as_str().unwrap().contains("x.json"), "{}", found("journal"));
    assert!(std::fs::exists(damaged).unwrap());
    assert!(found("store")["text"].as_str().unwrap().contains("not a store"), "{}", found("store"));
}

#[test]
fn what_is_no_export_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let config = with_store(&place);
    if !is_root() {
        place.fails(10, &["--config", &config, "checkpoints", "import", "/dev/null"]);
        return;
    }
    let zeros = "\0".repeat(100_000);
    for (name, bytes) in [("empty", ""), ("text", "hello, this is no checkpoint"), ("zeros", &zeros)] {
        let file = place.write(name, bytes);
        let message = place.fails(12, &["--config", &config, "checkpoints", "import", &file]);
        assert!(message.contains("stream") || message.contains("export"), "{name}: {message}");
    }
    place.fails(3, &["--config", &config, "checkpoints", "import", "/nonexistent"]);
    assert_eq!(place.works(&["--config", &config, "checkpoints", "list", "-q"]), "");
    assert!(place.works(&["--config", &config, "recover"]).contains("nothing to recover"));
}

#[test]
fn a_binary_stream_never_goes_to_a_terminal() {
    let place = Place::new();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cryopod"))
        .args(["checkpoints", "export", "some"])
        .current_dir(place.path())
        .stdout(terminal.slave.try_clone().unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("terminal"));
    let import = Command::new(env!("CARGO_BIN_EXE_cryopod"))
        .args(["checkpoints", "import"])
        .stdin(terminal.slave)
        .output()
        .unwrap();
    assert_eq!(import.status.code(), Some(5));
}
