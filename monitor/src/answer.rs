//! What is answered to a command.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::protocol::{Command, Request, STATES};
use super::subject::Subject;

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// 0, or a negative error number.
    pub(super) code: i32,
    /// A number, where the command asks for one.
    pub(super) number: u64,
    /// Bytes behind the header.
    pub(super) payload: Vec<u8>,
    /// A descriptor beside it.
    pub(super) descriptor: Option<OwnedFd>,
}

/// What happens to the connection.
#[derive(Debug)]
pub(super) enum Then {
    /// The answer goes out, and the connection ends, as with liblxc.
    Answer(Answer),
    /// It is closed without a word: `lxc-stop` takes that for success.
    Close,
    /// The answer goes out, and the client hears later when a state is reached that it marked.
    Wait(Answer, [bool; STATES]),
}

fn number(number: u64) -> Answer {
    Answer { number, ..Answer::default() }
}

fn text(bytes: &[u8]) -> Answer {
    // liblxc counts the zero.
    let payload = bytes.iter().copied().chain([0]).collect();
    Answer { payload, ..Answer::default() }
}

fn refused(error: i32) -> Answer {
    Answer { code: -error, ..Answer::default() }
}

fn done(result: io::Result<()>) -> Answer {
    match result {
        Ok(()) => Answer::default(),
        Err(error) => refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn descriptor(result: io::Result<OwnedFd>) -> Answer {
    match result {
        Ok(fd) => Answer { descriptor: Some(fd), ..Answer::default() },
        Err(error) => refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Does what is asked.
pub(super) fn to(subject: &Subject, request: &Request, payload: &[u8]) -> Then {
    let cgroup = || std::fs::File::open(&subject.cgroup).map(OwnedFd::from);
    Then::Answer(match request.command {
        None => refused(libc::ENOSYS),
        Some(Command::Stop) => {
            // Its end is what the client sees; nobody can be told of a failure.
            subject.kill().ok();
            return Then::Close;
        }
        Some(Command::AddStateClient) => return wait(subject, payload),
        Some(Command::GetState) => number(subject.state() as u64),
        Some(Command::GetInitPid) => number(subject.pid.into()),
        Some(Command::GetCloneFlags) => number(subject.clone_flags.into()),
        Some(Command::GetCgroup) => text(subject.cgroup_below_root().as_os_str().as_bytes()),
        Some(Command::GetConfigItem) => match subject.config_item(string(payload)) {
            Some(value) => text(value.as_bytes()),
            None => refused(1),
        },
        Some(Command::GetName) => text(subject.name.as_bytes()),
        Some(Command::GetPath) => text(subject.path.as_os_str().as_bytes()),
        // `lxc-freeze` says that it has written the cgroup's file itself; the file is looked at anyway.
        Some(Command::ServeStateClients) => Answer::default(),
        Some(Command::Freeze) => done(subject.freeze(true)),
        Some(Command::Unfreeze) => done(subject.freeze(false)),
        Some(Command::GetCgroupDescriptor) => descriptor(cgroup()),
        Some(Command::GetInitPidDescriptor) => descriptor(subject.pidfd.try_clone()),
        Some(Command::GetCgroupContext) => match cgroup() {
            Ok(fd) => Answer { payload: context(payload.len()), descriptor: Some(fd), ..Answer::default() },
            Err(error) => done(Err(error)),
        },
    })
}

fn wait(subject: &Subject, payload: &[u8]) -> Then {
    let mut wanted = [false; STATES];
    let (words, rest) = payload.as_chunks::<4>();
    if !rest.is_empty() || words.len() != STATES {
        return Then::Answer(refused(libc::EINVAL));
    }
    for (wanted, word) in wanted.iter_mut().zip(words) {
        *wanted = i32::from_ne_bytes(*word) == 1;
    }
    let now = subject.state() as usize;
    // `MAX_STATE` says: not yet.
    let reached = wanted.get(now).copied().unwrap_or(false);
    let answer = |state: usize| Answer {
        code: i32::try_from(state).unwrap_or_default(),
        number: state as u64,
        ..Answer::default()
    };
    if reached { Then::Answer(answer(now)) } else { Then::Wait(answer(STATES), wanted) }
}

fn string(payload: &[u8]) -> &str {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    payload.get(..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// `struct cgroup_ctx` as far as the client knows it: layout 2 (unified), flags, the number of descriptors; the client puts
/// their numbers in itself.
fn context(length: usize) -> Vec<u8> {
    let words = [2_i32, 3, 1];
    words.into_iter().flat_map(i32::to_ne_bytes).chain(std::iter::repeat(0)).take(length).collect()
}
