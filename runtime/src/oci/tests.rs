//! The backend against a runtime made of a shell script: what is passed on, and what errors become.

use super::*;
use crate::backend::Stdio;
use cryopod_checkpoint::kind::Kind;
use std::os::fd::OwnedFd;

struct Node {
    dir: tempfile::TempDir,
    backend: OciBackend,
}

/// `script` sees the verb as `$VERB` and all arguments; `$DIR` is the node's directory.
fn node(script: &str) -> Node {
    let dir = tempfile::tempdir().expect("temporary directory");
    let program = dir.path().join("crun");
    let text = format!(
        "#!/bin/sh\nDIR={}\nfor VERB in \"$@\"; do case $VERB in create|start|delete|exec|update|checkpoint|restore) break;; esac; done\n\
         option() {{ while [ $# -gt 1 ]; do [ \"$1\" = \"$OPTION\" ] && {{ echo \"$2\"; return; }}; shift; done; }}\n\
         arg() {{ OPTION=$1; shift; option \"$@\"; }}\n{script}\n",
        dir.path().display()
    );
    crate::test_script::write(&program, &text);
    std::fs::create_dir(dir.path().join("bundle")).expect("bundle");
    let config = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs"}}"#;
    std::fs::write(dir.path().join("bundle/config.json"), config).expect("config");
    let backend = OciBackend::new(OciOptions {
        name: "crun".into(),
        program,
        root: dir.path().join("root"),
        extra_args: vec![],
        systemd_cgroup: false,
        criu: "/nonexistent/criu".into(),
        criu_base: dir.path().join("criu"),
        ghost_limit: 1 << 20,
    });
    Node { dir, backend }
}

impl Node {
    fn create(&self, stdio: Stdio) -> Result<u32, Error> {
        let bundle = self.dir.path().join("bundle");
        self.backend.create(CreateRequest { id: "c1", bundle: &bundle, stdio }, &Limits::none())
    }

    fn bundle_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("bundle")).expect("bundle");
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != "config.json")
            .collect()
    }
}

fn nothing() -> Stdio {
    Stdio::Pipes { stdin: None, stdout: None, stderr: None }
}

#[test]
fn create_returns_the_pid_and_leaves_no_scratch_files() {
    let node = node("[ $VERB = create ] && echo $PPID > $(arg --pid-file \"$@\")");
    assert_eq!(node.create(nothing()).expect("created"), std::process::id());
    assert_eq!(node.bundle_files(), Vec::<String>::new());
}

#[test]
fn the_containers_streams_are_the_runtimes_own() {
    let node = node("echo $PPID > $(arg --pid-file \"$@\"); read LINE; echo \"got $LINE\"; echo oops >&2");
    let pipe = || std::io::pipe().expect("pipe");
    let ((stdin, mut input), (mut output, stdout), (mut errors, stderr)) = (pipe(), pipe(), pipe());
    std::io::Write::write_all(&mut input, b"hello\n").expect("written");
    let streams = Stdio::Pipes {
        stdin: Some(OwnedFd::from(stdin)),
        stdout: Some(OwnedFd::from(stdout)),
        stderr: Some(OwnedFd::from(stderr)),
    };
    node.create(streams).expect("created");
    let read = |reader: &mut std::io::PipeReader| {
        let mut text = String::new();
        std::io::Read::read_to_string(reader, &mut text).expect("read");
        text
    };
    assert_eq!((read(&mut output).as_str(), read(&mut errors).as_str()), ("got hello\n", "oops\n"));
}

#[test]
fn the_runtimes_last_words_are_the_error() {
    let node =
        node(r#"echo '{"msg":"container `c1` already exists","level":"error"}' > $(arg --log "$@"); exit 1"#);
    let error = node.create(nothing()).expect_err("refused");
    assert_eq!(error.to_string(), "crun create of container c1: container `c1` already exists");
    assert_eq!(error.kind(), Kind::AlreadyExists);
}

#[test]
fn a_runtime_that_says_nothing_still_gives_an_error_that_names_the_command() {
    let error = node("exit 3").create(nothing()).expect_err("failed");
    assert!(error.to_string().contains("ended with status 3"), "{error}");
}

#[test]
fn success_without_a_pid_is_an_error() {
    assert!(matches!(node("exit 0").create(nothing()), Err(Error::NoPid { .. })));
}

#[test]
fn exec_passes_the_process_and_removes_it_again() {
    let node = node(
        "echo $PPID > $(arg --pid-file \"$@\"); cp $(arg --process \"$@\") $DIR/seen; stat -c %a $(arg --process \"$@\") > $DIR/mode",
    );
    let bundle = node.dir.path().join("bundle");
    let process = serde_json::json!({"args": ["sh"], "env": ["SECRET=1"]});
    let request =
        ExecRequest { id: "c1", exec_id: "e1", process: &process, bundle: &bundle, stdio: nothing() };
    node.backend.exec(request, &Limits::none()).expect("executed");
    let seen: Value =
        serde_json::from_slice(&std::fs::read(node.dir.path().join("seen")).expect("seen")).expect("JSON");
    assert_eq!(seen, process);
    assert_eq!(std::fs::read_to_string(node.dir.path().join("mode")).expect("mode"), "600\n");
    assert_eq!(node.bundle_files(), Vec::<String>::new());
}

#[test]
fn update_passes_the_resources_on_stdin() {
    let node = node("cat > $DIR/seen");
    node.backend.update("c1", &serde_json::json!({"pids": {"limit": 5}}), &Limits::none()).expect("updated");
    assert_eq!(
        std::fs::read_to_string(node.dir.path().join("seen")).expect("seen"),
        r#"{"pids":{"limit":5}}"#
    );
}

#[test]
fn delete_of_what_never_was_starts_no_process_and_succeeds() {
    let node = node("touch $DIR/ran; exit 1");
    node.backend.delete("c1", &Limits::none()).expect("absent is success");
    assert!(!node.dir.path().join("ran").exists());
}

#[test]
fn delete_that_the_runtime_calls_absent_is_success_and_any_other_failure_is_not() {
    let absent = node("echo 'container `c1` does not exist' >&2; exit 1");
    std::fs::create_dir_all(absent.dir.path().join("root/c1")).expect("state");
    absent.backend.delete("c1", &Limits::none()).expect("absent is success");
    let node = node("echo 'cannot kill: Operation not permitted' >&2; exit 1");
    std::fs::create_dir_all(node.dir.path().join("root/c1")).expect("state");
    assert_eq!(node.backend.delete("c1", &Limits::none()).expect_err("failed").kind(), Kind::Internal);
}

#[test]
fn a_delete_that_is_repeated_still_knows_the_cgroup() {
    let node = node("exit 0");
    let dir = node.dir.path().join("cgroup");
    std::fs::create_dir(&dir).expect("cgroup");
    for (name, text) in [("cgroup.procs", ""), ("cgroup.kill", ""), ("cgroup.events", "populated 1\n")] {
        std::fs::write(dir.join(name), text).expect("file");
    }
    let init = Process::now(std::process::id()).expect("proc").expect("alive");
    node.backend.known.insert("c1", Known { init, cgroup: Cgroup::at(&dir) });
    let delete = || node.backend.delete("c1", &Limits::within(Duration::from_millis(20)));
    assert_eq!(delete().expect_err("a task does not end").kind(), Kind::DeadlineExceeded);
    assert_eq!(delete().expect_err("it is still there").kind(), Kind::DeadlineExceeded);
    std::fs::remove_dir_all(&dir).expect("gone");
    delete().expect("nothing is left");
    assert!(node.backend.find("c1").is_err(), "forgotten at last");
}

#[test]
fn a_restore_into_a_wrong_cgroup_ends_what_it_made_and_leaves_that_cgroup_alone() {
    let node =
        node("[ $VERB = restore ] && cp $DIR/init $(arg --pid-file \"$@\") && mkdir -p $DIR/root/c1; exit 0");
    // In the cgroup of this test, which the spec does not name.
    let mut init = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
    std::fs::write(node.dir.path().join("init"), init.id().to_string()).expect("pid");
    let (bundle, work) = (node.dir.path().join("bundle"), node.dir.path().join("work"));
    let request = CreateRequest { id: "c1", bundle: &bundle, stdio: nothing() };
    let restore = RestoreRequest {
        images: &work,
        work: &work,
        tcp: cryopod_checkpoint::target::TcpPolicy::Close,
        frozen: false,
    };
    let error = node.backend.restore(request, &restore, &Limits::none()).expect_err("misplaced");
    assert!(matches!(&error, Error::Criu(crate::criu::CriuError::Misplaced { .. })), "{error}");
    let status = init.wait().expect("ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(node.backend.known.find("c1", Path::new("/nonexistent")).is_err(), "nothing of it is remembered");
}

#[test]
fn a_signal_to_all_never_goes_to_a_cgroup_that_is_only_guessed() {
    let node = node("exit 0");
    let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
    let error = node.backend.kill("c1", child.id(), 15, true, &Limits::none()).expect_err("unknown");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(child.try_wait().expect("child"), None);
    child.kill().expect("alive");
    child.wait().expect("reaped");
}

#[test]
fn ids_that_lead_elsewhere_are_refused() {
    let node = node("touch $DIR/ran");
    for id in ["", ".", "..", "../x", "a/b", "-x", "a b", &"x".repeat(201)] {
        assert!(matches!(node.backend.start(id, &Limits::none()), Err(Error::BadId { .. })), "{id}");
    }
    assert!(!node.dir.path().join("ran").exists());
}

#[test]
fn signals_reach_a_process_and_a_dead_one_is_not_found() {
    let node = node("exit 0");
    let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
    let kill = |signal| node.backend.kill("c1", child.id(), signal, false, &Limits::none());
    assert!(matches!(kill(65), Err(Error::NoSignal { .. })));
    kill(nix::libc::SIGRTMIN() + 3).expect("alive");
    child.wait().expect("reaped");
    let error = node.backend.kill("c1", child.id(), 9, false, &Limits::none()).expect_err("dead");
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn pause_of_an_unknown_container_is_not_found() {
    assert_eq!(
        node("exit 0").backend.pause("c1", &Limits::none()).expect_err("unknown").kind(),
        Kind::NotFound
    );
}

#[test]
fn without_criu_memory_cannot_be_captured_and_the_backend_says_so() {
    assert!(!node("exit 0").backend.capabilities().memory_checkpoint);
}

#[test]
fn options_come_from_the_configuration() {
    let config = Config::load(&crate::config::Sources {
        directory: Some("/nonexistent".into()),
        body: Some("[runtime.runc]\npath = \"/opt/runc\"\n[criu]\npath = \"/opt/criu\"\n".into()),
        ..Default::default()
    })
    .expect("valid");
    let options = OciOptions::from_config(&config, "runc", "k8s.io").expect("configured");
    assert_eq!(
        (options.program.as_path(), options.criu.as_path()),
        (Path::new("/opt/runc"), Path::new("/opt/criu"))
    );
    assert_eq!(options.root, Path::new("/run/cryopod/oci/k8s.io"));
    assert_eq!(OciOptions::from_config(&config, "kata", "k8s.io"), None);
}
