//! CRIU's last error lines, and what a person can do about the known ones.
//!
//! CRIU reports through its log alone; this is the one place that reads its wording. An unknown wording stays as it is.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cryopod_checkpoint::kind::Kind;

/// A failure that was understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable code, documented.
    pub code: &'static str,
    /// What appears in the log.
    pub pattern: &'static str,
    /// What to do.
    pub advice: &'static str,
    /// How a caller should react.
    pub kind: Kind,
    /// Of a dump: it would be refused again, so that mode `auto` takes the disks alone. Not for what passes (a time-out, a
    /// leftover) nor for a criu that died.
    pub refuses: bool,
}

const fn precondition(code: &'static str, pattern: &'static str, advice: &'static str) -> Reason {
    Reason { code, pattern, advice, kind: Kind::FailedPrecondition, refuses: false }
}

/// What CRIU cannot capture, however often it is asked.
const fn refusal(code: &'static str, pattern: &'static str, advice: &'static str) -> Reason {
    Reason { refuses: true, ..precondition(code, pattern, advice) }
}

/// Meaning of the codes of dumps that CRIU refuses, beside those that the preflight has as well.
pub const CODES: &[(&str, &str)] = &[
    ("ghost-too-large", "a deleted file that is open is larger than `checkpoint.ghost_limit`"),
    ("unix-socket-outside", "a process is connected to a unix socket outside the container"),
    ("unsupported-file", "a process has something open that CRIU does not know"),
    ("tty", "a process has a terminal that CRIU cannot capture"),
    ("ptrace", "a process cannot be stopped, since a debugger is attached or the kernel forbids it"),
    ("no-netfilter", "the kernel has no nf_tables, with which CRIU locks the network"),
];

/// Known failures; the first whose pattern appears in an error line wins, so the specific come first.
pub const REASONS: &[Reason] = &[
    Reason {
        code: "no-space",
        pattern: "No space left on device",
        advice: "free space in the checkpoint store, or raise its quota",
        kind: Kind::ResourceExhausted,
        refuses: true,
    },
    Reason {
        code: "no-space",
        pattern: "Disk quota exceeded",
        advice: "raise the quota of the checkpoint store",
        kind: Kind::ResourceExhausted,
        refuses: true,
    },
    refusal(
        "io-uring",
        "io_uring",
        "CRIU cannot capture io_uring: switch it off in the application, or checkpoint the disk only",
    ),
    refusal(
        "io-uring",
        "[io_uring]",
        "CRIU cannot capture io_uring: switch it off in the application, or checkpoint the disk only",
    ),
    precondition(
        "tcp-established",
        "consider using --tcp-established",
        "keep TCP connections with checkpoint.tcp = \"keep\"",
    ),
    precondition(
        "tcp-address",
        "Can't bind inet socket back",
        "the address is another one or in use: restore with TCP connections closed",
    ),
    precondition(
        "tcp-close-needed",
        "Need to set the --tcp-close options",
        "restore with TCP connections closed",
    ),
    refusal(
        "ghost-too-large",
        "Can't dump ghost file",
        "a deleted but open file is too large: raise checkpoint.ghost_limit, or checkpoint the disk only",
    ),
    precondition(
        "link-remap-leftover",
        "Can't link remap",
        "an earlier dump was killed: run `cryopod recover`, then try again",
    ),
    precondition(
        "disk-mismatch",
        "has bad size",
        "memory and disk are not from the same instant: this checkpoint cannot be restored",
    ),
    precondition(
        "disk-mismatch",
        "has bad mode",
        "memory and disk are not from the same instant: this checkpoint cannot be restored",
    ),
    precondition(
        "file-missing",
        "Can't open file",
        "a file that the application had open is missing in the restored root or volume",
    ),
    refusal(
        "unix-socket-outside",
        "External socket is used",
        "a process is connected to a unix socket outside the container: close it, or checkpoint the disk only",
    ),
    refusal(
        "unix-socket-outside",
        "half of stream unix connection",
        "a process is connected to a unix socket outside the container: close it, or checkpoint the disk only",
    ),
    // A peer in another network namespace is not in CRIU's list of sockets at all.
    refusal(
        "unix-socket-outside",
        " without peer ",
        "a process is connected to a unix socket outside the container: close it, or checkpoint the disk only",
    ),
    refusal(
        "unix-socket-outside",
        "with unreachable peer",
        "a process is connected to a unix socket outside the container: close it, or checkpoint the disk only",
    ),
    refusal(
        "unsupported-file",
        "of that type [",
        "a process has something open that CRIU does not know: close it, or checkpoint the disk only",
    ),
    refusal(
        "unsupported-mount",
        "doesn't have a proper root mount",
        "a mount was added behind the runtime's back: unmount it, or checkpoint the disk only",
    ),
    refusal(
        "unsupported-mount",
        "FS mnt",
        "a mount of this file system type cannot be captured: unmount it, or checkpoint the disk only",
    ),
    refusal(
        "host-file",
        "Can't lookup mount=",
        "a process has a file of the host open: pass pipes instead, or checkpoint the disk only",
    ),
    refusal(
        "userns",
        "doesn't belong to the target user namespace",
        "pods with user namespaces can be checkpointed on disk only",
    ),
    precondition(
        "pid-in-use",
        "Can't fork for",
        "the process number is taken in the shared PID namespace: restore the whole pod into a new one",
    ),
    precondition(
        "pid-in-use",
        "Pid mismatch",
        "the process number is taken in the shared PID namespace: restore the whole pod into a new one",
    ),
    refusal(
        "tty",
        "Found dangling tty",
        "the terminal belongs to a process outside the container: start it without one",
    ),
    refusal("tty", "Found unknown/unsupported tty", "this kind of terminal cannot be captured"),
    refusal("ptrace", "already traced", "a debugger is attached to a process of the container: detach it"),
    refusal(
        "ptrace",
        "Unable to attach",
        "a process could not be stopped: is a debugger attached, or does the kernel forbid ptrace (yama)?",
    ),
    precondition(
        "freezer-timeout",
        "Timeout reached",
        "the tasks did not stop in time: a process may hang in the kernel (state D)",
    ),
    precondition("lsm", "lsm", "the security module of this node differs from the one at capture"),
    refusal(
        "no-netfilter",
        "nftables",
        "the kernel has no nf_tables: load the module nf_tables, CRIU locks the network with it",
    ),
    precondition("cpu-differs", "CPU feature", "the CPU of this node lacks features of the one at capture"),
    Reason {
        code: "criu-died",
        pattern: "Communication error on send",
        advice: "criu was killed (out of memory?); the container goes on, try again",
        kind: Kind::Unavailable,
        refuses: false,
    },
    Reason {
        code: "criu-died",
        pattern: "read unixpacket",
        advice: "criu was killed (out of memory?); the container goes on, try again",
        kind: Kind::Unavailable,
        refuses: false,
    },
];

/// The most of a log's end that is looked at: with log level 4 the errors stand within the last lines.
const TAIL: u64 = 64 << 10;
/// Error lines that are repeated to the person.
const LINES: usize = 4;

/// The known reason behind error lines.
pub fn reason(said: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| said.contains(reason.pattern))
}

/// The last error lines of a CRIU log; `None` when there are none.
pub fn last_errors(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    errors(&String::from_utf8_lossy(&bytes))
}

/// Lines like `(00.012345) Error (criu/tty.c:1861): tty: Found dangling tty`, without time and place.
fn errors(text: &str) -> Option<String> {
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once("Error ("))
        .map(|(_, rest)| rest.split_once("): ").map_or(rest, |(_, said)| said).trim().to_owned())
        .collect();
    // The last line only says that dumping failed.
    if found.len() > 1 {
        found.retain(|line| {
            !matches!(line.as_str(), "Dumping FAILED." | "Pre-dumping FAILED." | "Restoring FAILED.")
        });
    }
    found.dedup();
    let first = found.len().saturating_sub(LINES);
    let last = found.split_off(first);
    (!last.is_empty()).then(|| last.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
(00.001000) Version: 4.1.1 (gitid 0)
(00.200000) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.210000) Unlock network
(00.210500) Error (criu/cr-dump.c:2098): Dumping FAILED.
";

    #[test]
    fn the_line_that_explains_is_repeated_and_advised() {
        let said = errors(LOG).expect("an error");
        assert_eq!(said, "inet: Connected TCP socket, consider using --tcp-established option.");
        assert_eq!(reason(&said).map(|reason| reason.code), Some("tcp-established"));
    }

    #[test]
    fn a_bare_failure_is_better_than_nothing() {
        assert_eq!(
            errors("(0) Error (criu/cr-dump.c:1): Dumping FAILED.\n").as_deref(),
            Some("Dumping FAILED.")
        );
        assert_eq!(errors("all is well\n"), None);
    }

    #[test]
    fn an_unknown_failure_has_no_advice() {
        assert_eq!(reason("the moon is full"), None);
    }

    #[test]
    fn a_full_store_is_a_shortage_and_not_a_precondition() {
        let reason = reason("Can't dump page: No space left on device").expect("known");
        assert_eq!((reason.code, reason.kind), ("no-space", Kind::ResourceExhausted));
    }

    #[test]
    fn every_reason_has_a_code_and_advice() {
        for reason in REASONS {
            assert!(!reason.refuses || code_is_documented(reason.code), "{}", reason.code);
            assert!(reason.code.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", reason.code);
            assert!(!reason.advice.is_empty() && !reason.pattern.is_empty());
        }
    }

    fn code_is_documented(code: &str) -> bool {
        let codes = CODES.iter().chain(crate::preflight::CODES).map(|(known, _)| *known);
        codes.chain([cryopod_checkpoint::refusal::NO_SPACE]).any(|known| known == code)
    }

    #[test]
    fn what_may_pass_and_what_died_is_no_refusal() {
        for said in [
            "Timeout reached. Try to interrupt: 0",
            "Can't link remap to /data/x: File exists",
            "Communication error on send",
        ] {
            assert!(reason(said).is_some_and(|reason| !reason.refuses), "{said}");
        }
        for said in [
            "unix: Can't dump half of stream unix connection.",
            "unix: Unix socket 4711 without peer 4712",
            "tty: Found dangling tty with sid 0 pgid 1 (pts) on peer fd 0.",
            "Can't dump file 5 of that type [600] (unknown anon_inode)",
            "Can't dump page: No space left on device",
        ] {
            assert!(reason(said).is_some_and(|reason| reason.refuses), "{said}");
        }
    }

    #[test]
    fn only_the_end_of_a_huge_log_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("dump.log");
        let mut text = "(0) Error (a.c:1): early\n".repeat(10);
        text.push_str(&"(0) noise\n".repeat(20_000));
        text.push_str("(9) Error (b.c:2): late\n");
        std::fs::write(&path, text).expect("file");
        assert_eq!(last_errors(&path).as_deref(), Some("late"));
        assert_eq!(last_errors(&dir.path().join("none")), None);
    }
}
