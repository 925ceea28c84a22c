//! The promises of this crate, tried on real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use cryopod_command::{Cancel, Command, Error, Kill, Limits, Side, Stdin, Stdout, pipeline};

fn sh(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

fn soon() -> Limits {
    Limits::within(Duration::from_secs(20))
}

fn alive(pid: &str) -> bool {
    // A zombie is not alive, and a test's grandchild may be one until init reaps it.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn becomes_true(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn output_and_stderr_are_returned_on_success() {
    let output = sh("echo out; echo err >&2").run(&soon()).unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_str()), (&b"out\n"[..], "err\n"));
}

#[test]
fn a_failure_says_what_was_run_and_what_it_said() {
    let error = sh("echo 'no such thing' >&2; exit 3").run(&soon()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`sh -c '") && text.contains("ended with status 3"), "{text}");
    assert!(text.ends_with("no such thing"), "{text}");
}

#[test]
fn a_missing_program_is_named() {
    let error = Command::new("cryopod-no-such-program").run(&soon()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { program } if program == "cryopod-no-such-program"), "{error}");
}

#[test]
fn a_missing_directory_is_not_taken_for_a_missing_program() {
    let error = sh("true").current_dir("/no/such/dir").run(&soon()).unwrap_err();
    assert!(error.to_string().contains("/no/such/dir"), "{error}");
}

#[test]
fn the_locale_is_c_even_when_the_caller_or_the_command_says_otherwise() {
    let output = sh("echo $LC_ALL").env("LC_ALL", "de_DE.UTF-8").run(&soon()).unwrap();
    assert_eq!(output.stdout, b"C\n");
    let output = Command::new("/usr/bin/env").env_clear().env("A", "b").run(&soon()).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "A=b\nLC_ALL=C\n");
}

#[test]
fn large_input_and_output_flow_at_the_same_time() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let output = Command::new("cat").stdin(Stdin::Bytes(bytes.clone())).run(&soon()).unwrap();
    assert!(output.stdout == bytes);
}

#[test]
fn input_that_is_not_read_is_no_error() {
    sh("exit 0").stdin(Stdin::Bytes(vec![0; 1 << 20])).run(&soon()).unwrap();
}

#[test]
fn only_the_tail_of_stderr_is_kept() {
    let output = sh("seq 1 100000 >&2").run(&soon()).unwrap();
    assert!(output.stderr.len() <= 16 << 10 && output.stderr.ends_with("100000\n"));
}

#[test]
fn output_beyond_the_bound_is_an_error_and_ends_the_program() {
    let error = Command::new("yes").stdout(Stdout::Capture { limit: 1000 }).run(&soon()).unwrap_err();
    assert!(matches!(error, Error::TooMuchOutput { limit: 1000, .. }), "{error}");
}

#[test]
fn the_deadline_kills_the_whole_group_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo waiting >&2; wait", file.display());
    let started = Instant::now();
    let error = sh(&script).run(&Limits::within(Duration::from_millis(500))).unwrap_err();
    assert!(
        matches!(&error, Error::Deadline { lingering: false, stderr, .. } if stderr == "waiting\n"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    let grandchild = std::fs::read_to_string(file).unwrap();
    assert!(becomes_true(|| !alive(&grandchild)));
}

#[test]
fn a_program_that_never_stops_writing_meets_its_deadline() {
    let error = sh("yes >&2").run(&Limits::within(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(error, Error::Deadline { lingering: false, .. }), "{error}");
}

#[test]
fn process_only_spares_what_the_program_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 30 >/dev/null 2>&1 & echo $! > {}; wait", file.display());
    let limits = Limits::within(Duration::from_millis(500));
    let error = sh(&script).on_deadline(Kill::ProcessOnly).run(&limits).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let grandchild = std::fs::read_to_string(file).unwrap();
    assert!(alive(&grandchild));
    // The shell's own kill: a bare machine has no program of that name.
    sh(&format!("kill {}", grandchild.trim())).run(&soon()).unwrap();
}

#[test]
fn a_program_may_clean_up_on_term_before_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cleaned");
    let script = format!("trap 'echo yes > {}; exit 0' TERM; while :; do sleep 0.05; done", file.display());
    let limits = Limits::within(Duration::from_millis(300));
    let error = sh(&script).on_deadline(Kill::TermThenKill(Duration::from_secs(5))).run(&limits).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "yes\n");
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let limits = Limits::within(Duration::from_millis(200));
    let started = Instant::now();
    let error = sh("trap '' TERM; while :; do sleep 0.05; done")
        .on_deadline(Kill::TermThenKill(Duration::from_millis(300)))
        .run(&limits)
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { lingering: false, .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[test]
fn cancelling_from_another_thread_ends_the_call_at_once() {
    let cancel = Cancel::new();
    let limits = Limits::none().with_cancel(cancel.clone());
    let caller = std::thread::spawn(move || sh("sleep 1000").run(&limits));
    std::thread::sleep(Duration::from_millis(200));
    let thrown = Instant::now();
    cancel.cancel();
    let error = caller.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled { lingering: false, .. }), "{error}");
    assert!(thrown.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_call_under_a_reached_limit_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let touch = || Command::new("touch").arg(dir.path().join("started"));
    let cancel = Cancel::new();
    cancel.cancel();
    let error = touch().run(&Limits::none().with_cancel(cancel)).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    let error = touch().run(&Limits::within(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let error = pipeline(touch(), touch(), &Limits::within(Duration::ZERO)).unwrap_err();
    assert_eq!(error.side, Side::Both);
    assert!(!dir.path().join("started").exists());
}

#[test]
fn dropping_a_running_program_kills_and_reaps_it() {
    let running = sh("sleep 1000").spawn().unwrap();
    let pid = running.pid();
    drop(running);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_running_program_can_be_looked_at_without_waiting() {
    let mut running = sh("read line; exit 7").stdin(Stdin::Bytes(b"go\n".to_vec())).spawn().unwrap();
    let mut status = None;
    assert!(becomes_true(|| {
        status = running.try_wait().unwrap();
        status.is_some()
    }));
    assert_eq!(status.and_then(|status| status.code()), Some(7));
}

#[test]
fn a_daemon_that_keeps_the_pipe_open_is_not_waited_for() {
    let started = Instant::now();
    let output = sh("sleep 3 & echo done").run(&soon()).unwrap();
    assert_eq!(output.stdout, b"done\n");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_passed_descriptor_arrives_under_its_number_and_no_other_does() {
    let mut file = tempfile::tempfile().unwrap();
    let fd: OwnedFd = file.try_clone().unwrap().into();
    let second: OwnedFd = file.try_clone().unwrap().into();
    let listing = sh("echo hello >&9; echo again >&3; exec stat -L -c %i /proc/self/fd/* 2>/dev/null")
        .pass_fd(fd, 9)
        .pass_fd(second, 3)
        .status(&soon())
        .unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\nagain\n");
    let inode = file.metadata().unwrap().ino().to_string();
    let listing = String::from_utf8(listing.1.stdout).unwrap();
    assert_eq!(listing.lines().filter(|line| *line == inode).count(), 2, "{listing}");
}

#[test]
fn a_missing_program_is_noticed_even_when_descriptors_are_passed() {
    let fds: Vec<OwnedFd> = (0..8).map(|_| tempfile::tempfile().unwrap().into()).collect();
    let mut command = Command::new("/no/such/program");
    for (target, fd) in (3..).zip(fds) {
        command = command.pass_fd(fd, target);
    }
    let error = command.run(&soon()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[test]
fn standard_streams_cannot_be_passed_as_descriptors() {
    let fd: OwnedFd = tempfile::tempfile().unwrap().into();
    assert!(matches!(sh("true").pass_fd(fd, 1).run(&soon()), Err(Error::Spawn { .. })));
}

#[test]
fn a_pipeline_moves_everything_and_returns_both_outputs() {
    let (_, received) = pipeline(sh("seq 1 200000"), sh("tail -n 1"), &soon()).unwrap();
    assert_eq!(received.stdout, b"200000\n");
}

#[test]
fn a_pipeline_blames_the_consumer_that_failed_first() {
    let error = pipeline(sh("yes"), sh("echo full >&2; exit 2"), &soon()).unwrap_err();
    assert_eq!(error.side, Side::Consumer);
    assert!(error.to_string().contains("full"), "{error}");
    assert!(error.other.is_some());
}

#[test]
fn a_pipeline_blames_the_producer_that_failed_first() {
    let consumer = sh("cat >/dev/null; sleep 0.2; echo truncated >&2; exit 1");
    let error = pipeline(sh("echo part; echo broken >&2; exit 1"), consumer, &soon()).unwrap_err();
    assert_eq!(error.side, Side::Producer);
    assert!(error.error.to_string().contains("broken"), "{error}");
}

#[test]
fn a_pipeline_at_its_deadline_leaves_neither_side() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let producer = sh(&format!("echo $$ > {}; exec sleep 1000", a.display()));
    let consumer = sh(&format!("echo $$ > {}; exec cat", b.display()));
    let error = pipeline(producer, consumer, &Limits::within(Duration::from_millis(500))).unwrap_err();
    assert_eq!(error.side, Side::Both);
    for file in [a, b] {
        let pid = std::fs::read_to_string(file).unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
    }
}

#[test]
fn a_pipeline_with_a_missing_consumer_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let producer = sh(&format!("touch {}", file.display()));
    let error = pipeline(producer, Command::new("/no/such/program"), &soon()).unwrap_err();
    assert_eq!(error.side, Side::Consumer);
    assert!(!file.exists());
}

#[test]
fn relayed_output_arrives_whole_in_files_pipes_and_sockets() {
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let mut file = tempfile::tempfile().unwrap();
    sh("seq 1 200000").stdout(Stdout::Relay(file.try_clone().unwrap().into())).run(&soon()).unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(text == expected);

    let (mut reader, writer) = std::io::pipe().unwrap();
    let reading = std::thread::spawn(move || std::io::read_to_string(&mut reader).unwrap());
    sh("seq 1 200000").stdout(Stdout::Relay(writer.into())).run(&soon()).unwrap();
    assert!(reading.join().unwrap() == expected);

    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let reading = std::thread::spawn(move || std::io::read_to_string(&mut reader).unwrap());
    sh("seq 1 200000").stdout(Stdout::Relay(writer.into())).run(&soon()).unwrap();
    assert!(reading.join().unwrap() == expected);
}

#[test]
fn relayed_input_arrives_whole() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = vec![7u8; 3 << 20];
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    let output = sh("wc -c").stdin(Stdin::Relay(reader.into())).run(&soon()).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), (3 << 20).to_string());
    writing.join().unwrap().unwrap();
}

#[test]
fn a_relay_to_nobody_ends_the_program() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let error = Command::new("yes").stdout(Stdout::Relay(writer.into())).run(&soon()).unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
}

#[test]
fn a_relay_whose_reader_sleeps_meets_its_deadline() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let limits = Limits::within(Duration::from_millis(300));
    let error = Command::new("yes").stdout(Stdout::Relay(writer.into())).run(&limits).unwrap_err();
    assert!(matches!(error, Error::Deadline { lingering: false, .. }), "{error}");
    let (reader, _writer) = std::io::pipe().unwrap();
    let limits = Limits::within(Duration::from_millis(300));
    let error = Command::new("cat").stdin(Stdin::Relay(reader.into())).run(&limits).unwrap_err();
    assert!(matches!(error, Error::Deadline { lingering: false, .. }), "{error}");
}

#[test]
fn a_program_that_ends_before_its_relayed_input_does_is_not_waited_for() {
    let (reader, _writer) = std::io::pipe().unwrap();
    sh("exit 0").stdin(Stdin::Relay(reader.into())).run(&soon()).unwrap();
}

#[test]
fn many_calls_at_once_do_not_disturb_each_other() {
    let threads: Vec<_> = (0..16)
        .map(|n| {
            std::thread::spawn(move || {
                sh(&format!("sleep 0.0{n}; echo {n}; exit {n}")).status(&soon()).unwrap()
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        let (status, output) = thread.join().unwrap();
        assert_eq!((status.code(), output.stdout), (Some(n as i32), format!("{n}\n").into_bytes()));
    }
}
