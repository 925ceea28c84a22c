//! Runs a program whose output is shown as it comes, with a deadline and an end on SIGINT or SIGTERM.
//!
//! The program is the leader of a process group of its own, and the whole group is ended: `cargo test` leaves test
//! programs behind otherwise. What it left running in the background does not keep us waiting for its output.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys;

/// How long a group that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long output is still read after the program itself has ended.
const DRAIN: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(200);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal that we did not send.
    Signalled(i32),
    /// By us, since its time was over.
    TimedOut,
    /// By us, since we were interrupted.
    Interrupted,
}

impl End {
    /// An end other than success, in words.
    pub(crate) fn good(self) -> Result<(), String> {
        match self {
            Self::Exited(0) => Ok(()),
            Self::Exited(code) => Err(format!("exit code {code}; what it said is above")),
            Self::Signalled(signal) => Err(format!("ended by signal {signal}")),
            Self::TimedOut => Err("its time was over before it ended".into()),
            Self::Interrupted => Err("interrupted".into()),
        }
    }
}

/// Runs `command` until `until`; each line that it prints on either stream goes to `line`.
pub(crate) fn stream(mut command: Command, until: Instant, line: impl FnMut(&str)) -> io::Result<End> {
    // One pipe for both streams, so that they stay in order.
    let (reader, writer) = io::pipe()?;
    command.stderr(writer.try_clone()?).stdout(writer);
    read(command, reader, until, line)
}

/// The same for standard output; standard error is passed through.
pub(crate) fn stream_stdout(mut command: Command, until: Instant, line: impl FnMut(&str)) -> io::Result<End> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer);
    read(command, reader, until, line)
}

fn read(
    mut command: Command,
    reader: PipeReader,
    until: Instant,
    mut line: impl FnMut(&str),
) -> io::Result<End> {
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    // It holds our ends of the pipe.
    drop(command);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
            if sender.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    let mut ended = None;
    loop {
        match lines.recv_timeout(TICK) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
        }
        match ended {
            Some((_, at)) if Instant::now() > at + DRAIN => break,
            Some(_) => {}
            None if sys::interrupted() => return end(&mut child, End::Interrupted),
            None if Instant::now() > until => return end(&mut child, End::TimedOut),
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
        }
    }
    Ok(ended.map_or(End::Exited(0), |(status, _)| how(status)))
}

/// Runs `command` until `until` on our own streams, without standard input: for programs that draw on the terminal.
pub(crate) fn attended(mut command: Command, until: Instant) -> io::Result<End> {
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(how(status));
        }
        if sys::interrupted() {
            return end(&mut child, End::Interrupted);
        }
        if Instant::now() > until {
            return end(&mut child, End::TimedOut);
        }
        thread::sleep(TICK);
    }
}

/// Runs two programs until `until`, with the output of the first as the input of the second. What else they print is
/// passed through. Where one has to be ended, so is the other; each has an end of its own.
pub(crate) fn piped(mut from: Command, mut to: Command, until: Instant) -> io::Result<(End, End)> {
    let (reader, writer) = io::pipe()?;
    let mut sender = from.stdin(Stdio::null()).stdout(writer).process_group(0).spawn()?;
    let receiver = to.stdin(reader).process_group(0).spawn();
    // They hold our ends of the pipe: with one of them open, the sender never hears that its receiver is gone.
    drop((from, to));
    let mut receiver = match receiver {
        Ok(receiver) => receiver,
        Err(error) => {
            end(&mut sender, End::Interrupted)?;
            return Err(error);
        }
    };
    loop {
        let (sent, received) = (sender.try_wait()?, receiver.try_wait()?);
        let why = match (sent, received) {
            (Some(sent), Some(received)) => return Ok((how(sent), how(received))),
            _ if sys::interrupted() => End::Interrupted,
            _ if Instant::now() > until => End::TimedOut,
            _ => {
                thread::sleep(TICK);
                continue;
            }
        };
        let ended = |child: &mut Child, status: Option<ExitStatus>| match status {
            Some(status) => Ok(how(status)),
            None => end(child, why),
        };
        // Both, also when the first cannot be waited for.
        let ends = (ended(&mut sender, sent), ended(&mut receiver, received));
        return Ok((ends.0?, ends.1?));
    }
}

/// Runs `command` with our terminal as its own, in our process group: what is typed goes to it.
pub(crate) fn foreground(command: &mut Command) -> io::Result<End> {
    command.status().map(how)
}

fn how(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}

fn end(child: &mut Child, how: End) -> io::Result<End> {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // Errors mean that nobody is left in the group.
    killpg(group, Signal::SIGTERM).ok();
    let patience = Instant::now() + GRACE;
    while child.try_wait()?.is_none() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(50));
    }
    killpg(group, Signal::SIGKILL).ok();
    child.wait()?;
    Ok(how)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn lines_of_both_streams_arrive_in_order_and_the_exit_code_is_kept() {
        let mut lines = Vec::new();
        let end = stream(sh("echo a; echo b >&2; printf c; exit 3"), soon(), |l| lines.push(l.to_owned()));
        assert_eq!(end.unwrap(), End::Exited(3));
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn a_program_that_outlives_its_time_is_ended_with_its_children() {
        let mut pid = 0;
        let script = "sleep 1000 & echo $!; wait";
        let end =
            stream(sh(script), Instant::now() + Duration::from_millis(600), |l| pid = l.parse().unwrap());
        assert_eq!(end.unwrap(), End::TimedOut);
        let alive = || crate::node::process_start(pid).is_some();
        let patience = Instant::now() + Duration::from_secs(5);
        while alive() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(!alive(), "the child {pid} is still there");
    }

    #[test]
    fn a_child_in_the_background_that_holds_the_output_does_not_hold_us() {
        let began = Instant::now();
        let end = stream(sh("sleep 20 & echo done"), soon(), |_| {});
        assert_eq!(end.unwrap(), End::Exited(0));
        assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    }

    #[test]
    fn an_end_by_a_signal_is_told_from_an_exit_code() {
        assert_eq!(stream(sh("kill -9 $$"), soon(), |_| {}).unwrap(), End::Signalled(9));
    }

    #[test]
    fn a_receiver_gets_what_is_sent_and_its_early_end_ends_the_sender() {
        let received = piped(sh("echo a"), sh("read line && test $line = a"), soon());
        assert_eq!(received.unwrap(), (End::Exited(0), End::Exited(0)));
        let pipe = nix::libc::SIGPIPE;
        assert_eq!(
            piped(sh("exec yes"), sh("exit 3"), soon()).unwrap(),
            (End::Signalled(pipe), End::Exited(3))
        );
    }

    #[test]
    fn a_pipe_that_outlives_its_time_is_ended_on_both_sides() {
        let began = Instant::now();
        let short = || Instant::now() + Duration::from_millis(300);
        let ends = piped(sh("sleep 1000"), sh("cat"), short()).unwrap();
        assert_eq!(ends, (End::TimedOut, End::TimedOut));
        let ends = piped(sh("exit 2"), sh("sleep 1000"), short()).unwrap();
        assert_eq!(ends, (End::Exited(2), End::TimedOut));
        assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    }
}
