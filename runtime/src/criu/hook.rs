//! The instants of a dump and of a restore: CRIU calls a program while nothing of the container runs, the program asks us.
//!
//! ```text
//! criu --action-script--> cryopod-hook --unix socket--> Server (this process): runs the work, answers
//!   {"stage":"post-dump","pid":"123","images":"/proc/9/fd/7"}\n   ->   ok\n | error <text>\n
//! ```
//!
//! [`main`] is the client; binaries call it first when their own name is [`NAME`]. It fails when there is nobody to
//! ask: then CRIU rolls the dump back, which is right, because nothing was captured. The work runs once, however often
//! the hook is called (runc with a global configuration file calls twice); later calls get the first answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use cryopod_checkpoint::target::AtInstant;
use cryopod_command::Limits;
use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::CriuError;
use crate::wait::{self, Woken};

/// File name under which a binary acts as the hook.
pub const NAME: &str = "cryopod-hook";
/// Environment variable that holds the server's socket.
pub const SOCKET_ENV: &str = "CRYOPOD_HOOK_SOCKET";

/// When the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Memory is in the images and nothing runs.
    PostDump,
    /// All tasks are made, and stopped before their first own instruction.
    PreResume,
}

impl Stage {
    const ALL: [Self; 2] = [Self::PostDump, Self::PreResume];

    /// CRIU's name for it (`CRTOOLS_SCRIPT_ACTION`).
    fn name(self) -> &'static str {
        match self {
            Self::PostDump => "post-dump",
            Self::PreResume => "pre-resume",
        }
    }
}

/// Environment variable that says how many seconds the hook waits for the answer. The work has its own limits; this only
/// ends a hook whose server hangs, so that CRIU rolls back and the container runs on.
pub const PATIENCE_ENV: &str = "CRYOPOD_HOOK_PATIENCE";
/// Where nobody says it.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the work may take longer than its limits, to take back what it had begun.
const BEYOND: Duration = Duration::from_secs(30);
/// How long the server waits for a connected hook's question, one line.
const QUESTION: Duration = Duration::from_secs(5);
/// The longest line in either direction.
const MAX_LINE: u64 = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    stage: String,
    pid: String,
    images: String,
}

/// Seconds for [`PATIENCE_ENV`], for work within these limits.
pub fn patience(limits: &Limits) -> String {
    limits.remaining().map_or(PATIENCE, |left| left.saturating_add(BEYOND)).as_secs().to_string()
}

/// The hook program: 0 lets CRIU go on, 1 makes it roll back.
pub fn main() -> i32 {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let stage = variable("CRTOOLS_SCRIPT_ACTION");
    if Stage::ALL.iter().all(|known| known.name() != stage) {
        return 0;
    }
    let socket = variable(SOCKET_ENV);
    let question =
        Question { stage, pid: variable("CRTOOLS_INIT_PID"), images: variable("CRTOOLS_IMAGE_DIR") };
    let patience = variable(PATIENCE_ENV).parse().map_or(PATIENCE, Duration::from_secs).max(BEYOND);
    match ask(Path::new(&socket), &question, patience) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("{NAME}: {text}");
            1
        }
    }
}

/// Whether this process was started as the hook (by the name it was called).
pub fn is_hook() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| Path::new(&name).file_name().is_some_and(|file| file == NAME))
}

fn ask(socket: &Path, question: &Question, patience: Duration) -> Result<(), String> {
    let told = |error: io::Error| format!("cannot ask {}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(told)?;
    stream.set_read_timeout(Some(patience)).map_err(told)?;
    let line = serde_json::to_string(question).map_err(|error| told(error.into()))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(told)?;
    match read_line(&stream).map_err(told)?.split_once(' ').unwrap_or(("ok", "")) {
        ("ok", _) => Ok(()),
        (_, text) => Err(text.to_owned()),
    }
}

/// One line; an end of file before its end is an error, never an empty answer.
fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends early")),
    }
}

/// Answers the hook of one dump or restore.
#[derive(Debug)]
pub struct Server {
    stage: Stage,
    listener: UnixListener,
    answer: Mutex<Option<Result<(), String>>>,
}

impl Server {
    /// Listens at `socket`, which must not exist, for questions of `stage`; at other stages CRIU may go on.
    pub fn bind(socket: &Path, stage: Stage) -> Result<Self, CriuError> {
        let failed = |action| move |source| CriuError::File { action, path: socket.to_owned(), source };
        let listener = UnixListener::bind(socket).map_err(failed("listen at"))?;
        listener.set_nonblocking(true).map_err(failed("listen at"))?;
        Ok(Self { stage, listener, answer: Mutex::new(None) })
    }

    /// Runs `call` (which blocks until CRIU has ended) while `work` is done for the hook on another thread.
    pub fn serve<T>(&self, work: &AtInstant<'_>, call: impl FnOnce() -> T) -> T {
        let ended = cryopod_command::Cancel::new();
        let until = Limits::none().with_cancel(ended.clone());
        std::thread::scope(|scope| {
            scope.spawn(|| self.answer_all(work, &until));
            // Also when `call` panics the thread must end, or the scope would wait for ever.
            let guard = EndOnDrop(&ended);
            let result = call();
            drop(guard);
            result
        })
    }

    /// What the work said; `None` when the hook never asked.
    pub fn outcome(&self) -> Option<Result<(), String>> {
        self.answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn answer_all(&self, work: &AtInstant<'_>, until: &Limits) {
        while let Ok(Woken::Ready) = wait::readable(self.listener.as_fd(), PollFlags::POLLIN, until) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(&stream, work) {
                        tracing::warn!(%error, "hook was not answered");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "hook server ends");
                    return;
                }
            }
        }
    }

    fn answer(&self, mut stream: &UnixStream, work: &AtInstant<'_>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(QUESTION))?;
        stream.set_write_timeout(Some(QUESTION))?;
        let question: Question = serde_json::from_str(&read_line(stream)?)?;
        tracing::debug!(stage = question.stage, pid = question.pid, images = question.images, "hook asks");
        if question.stage != self.stage.name() {
            return stream.write_all(b"ok\n");
        }
        let mut answer = self.answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = match answer.get_or_insert_with(work) {
            Ok(()) => "ok\n".to_owned(),
            Err(text) => format!("error {}\n", text.replace('\n', "; ")),
        };
        drop(answer);
        stream.write_all(line.as_bytes())
    }
}

struct EndOnDrop<'a>(&'a cryopod_command::Cancel);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn question() -> Question {
        Question { stage: Stage::PostDump.name().into(), pid: "1".into(), images: "/x".into() }
    }

    fn server() -> (tempfile::TempDir, std::path::PathBuf, Server) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let socket = dir.path().join("hook.sock");
        let server = Server::bind(&socket, Stage::PostDump).expect("bound");
        (dir, socket, server)
    }

    #[test]
    fn the_hook_waits_a_little_longer_than_the_work_may_take() {
        assert_eq!(patience(&Limits::none()), "180");
        let seconds: u64 = patience(&Limits::within(Duration::from_secs(300))).parse().unwrap();
        assert!((320..=330).contains(&seconds), "{seconds}");
    }

    #[test]
    fn the_work_runs_once_however_often_the_hook_is_called() {
        let (_dir, socket, server) = server();
        let runs = AtomicU32::new(0);
        let work = || {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let answers = server
            .serve(&work, || [ask(&socket, &question(), PATIENCE), ask(&socket, &question(), PATIENCE)]);
        assert_eq!(answers, [Ok(()), Ok(())]);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(server.outcome(), Some(Ok(())));
    }

    #[test]
    fn work_that_fails_makes_the_hook_fail_with_its_words() {
        let (_dir, socket, server) = server();
        let work = || Err("snapshot failed:\nout of space".to_owned());
        let answer = server.serve(&work, || ask(&socket, &question(), PATIENCE));
        assert_eq!(answer, Err("snapshot failed:; out of space".to_owned()));
    }

    #[test]
    fn at_another_stage_criu_goes_on_and_the_work_waits_for_its_own() {
        let (_dir, socket, server) = server();
        let early = Question { stage: Stage::PreResume.name().into(), ..question() };
        server.serve(&|| Err("too early".to_owned()), || assert_eq!(ask(&socket, &early, PATIENCE), Ok(())));
        assert_eq!(server.outcome(), None);
    }

    #[test]
    fn a_dump_without_a_hook_is_noticed() {
        let (_dir, _socket, server) = server();
        server.serve(&|| Ok(()), || ());
        assert_eq!(server.outcome(), None);
    }

    #[test]
    fn a_hook_that_asks_after_the_runtime_has_ended_fails_as_soon_as_the_server_is_dropped() {
        let (_dir, socket, server) = server();
        server.serve(&|| Ok(()), || ());
        // Connected, but nobody serves any more: a criu that outlived its cancelled runtime is here.
        let late = UnixStream::connect(&socket).expect("in the backlog");
        late.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        drop(server);
        let error = read_line(&late).expect_err("nobody answers");
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it would have waited: {error}");
        assert!(ask(&socket, &question(), PATIENCE).is_err());
    }

    #[test]
    fn a_hook_without_a_server_fails() {
        assert!(ask(Path::new("/nonexistent/hook.sock"), &question(), PATIENCE).is_err());
    }

    #[test]
    fn a_stranger_who_says_nonsense_does_not_trigger_the_work() {
        let (_dir, socket, server) = server();
        server.serve(&|| Ok(()), || {
            let mut stranger = UnixStream::connect(&socket).expect("connected");
            stranger.write_all(b"hello\n").expect("written");
            let mut rest = Vec::new();
            stranger.read_to_end(&mut rest).expect("closed");
            assert!(rest.is_empty());
        });
        assert_eq!(server.outcome(), None);
    }
}
