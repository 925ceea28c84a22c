//! Which processes of this node send or receive a dataset: the kernel says "busy" of it and not by whom.
//!
//! Seen by the command lines in /proc (proc_pid_cmdline(5)): `zfs send` and `zfs receive` name what they work on. What
//! calls libzfs_core itself is not found. Bounded, because it only explains an error.
//!
//! Reading a command line takes the lock of that process's memory map: a process that hangs in the kernel with it, as
//! some do when a pool is suspended, keeps the reader for good. So only those named `zfs` are read, on a thread that is
//! left behind when it hangs.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::Op;
use crate::{DatasetName, Limits, Name, SnapshotName, StreamHolder, blocking, mounts};

/// More than this many say nothing that the first ones do not.
const MOST: usize = 8;
/// /proc answers in milliseconds; whoever hangs must not take the time of the other look-ups for the same error.
const LOOK_AT_MOST: Duration = Duration::from_secs(2);

/// A `zfs send` or `zfs receive`, by its command line.
#[derive(Debug, PartialEq, Eq)]
struct Streaming {
    verb: &'static str,
    names: Vec<Name>,
}

/// Reads a command line as /proc has it: words that end with a zero byte.
fn parse(cmdline: &[u8]) -> Option<Streaming> {
    let text = String::from_utf8_lossy(cmdline);
    let mut words = text.split('\0');
    let program = Path::new(words.next()?).file_name()?;
    if program != "zfs" {
        return None;
    }
    let verb = match words.next()? {
        "send" => "send",
        "receive" | "recv" => "receive",
        _ => return None,
    };
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let last = words.last()?.split(['@', '#']).next()?;
    // `-i @base` stands for a snapshot of the dataset that is sent.
    let full =
        |word: &&str| if word.starts_with(['@', '#']) { format!("{last}{word}") } else { (*word).to_owned() };
    let names =
        words.iter().map(full).filter_map(|word| word.strip_prefix("origin=").unwrap_or(&word).parse().ok());
    Some(Streaming { verb, names: names.collect() })
}

/// Looks through processes (with their directories in /proc) on a thread of its own; what was found when the limits end
/// it is returned.
fn bounded<P: Iterator<Item = (u32, PathBuf)>>(
    processes: impl FnOnce() -> P + Send + 'static,
    limits: &Limits,
    keeps: impl Fn(&Streaming, &Name) -> bool + Send + 'static,
) -> Vec<StreamHolder> {
    let limits = limits.at_most(LOOK_AT_MOST);
    let (sender, found) = mpsc::channel();
    let inner = limits.clone();
    let look = move || find(processes(), &inner, keeps, &sender);
    if let Err(error) = blocking::on_thread(&Op::new("look for streams", "/proc"), &limits, look) {
        tracing::debug!(%error, "not every process was looked at");
    }
    found.try_iter().collect()
}

fn find(
    processes: impl Iterator<Item = (u32, PathBuf)>,
    limits: &Limits,
    keeps: impl Fn(&Streaming, &Name) -> bool,
    found: &mpsc::Sender<StreamHolder>,
) {
    let mut count = 0;
    for (pid, dir) in processes {
        if count >= MOST || limits.check().is_err() {
            return;
        }
        // A process may end at any time, which is no error here. The name of a process is read without any lock of its
        // memory, see above.
        if std::fs::read(dir.join("comm")).ok().is_none_or(|comm| comm.trim_ascii_end() != b"zfs") {
            continue;
        }
        let streaming = std::fs::read(dir.join("cmdline")).ok().and_then(|cmdline| parse(&cmdline));
        let Some(streaming) = streaming else { continue };
        if let Some(name) = streaming.names.iter().find(|name| keeps(&streaming, name)) {
            let holder = StreamHolder { pid, command: format!("zfs {} {name}", streaming.verb) };
            // Nobody wants it once the limits have ended the look.
            if found.send(holder).is_err() {
                return;
            }
            count += 1;
        }
    }
}

/// What sends a snapshot of `dataset`, or receives into it; with `below`, also of what is below it.
pub(crate) fn of_dataset(dataset: &DatasetName, below: bool, limits: &Limits) -> Vec<StreamHolder> {
    let dataset = dataset.clone();
    bounded(mounts::processes, limits, move |_, name| {
        name.dataset() == dataset || (below && name.dataset().is_within(&dataset))
    })
}

/// What sends one of these snapshots, or receives into their datasets, which keeps the latest ones.
pub(crate) fn of_snapshots(snapshots: &[SnapshotName], limits: &Limits) -> Vec<StreamHolder> {
    let snapshots = snapshots.to_vec();
    bounded(mounts::processes, limits, move |streaming, name| {
        snapshots.iter().any(|snapshot| match name {
            Name::Snapshot(sent) => sent == snapshot,
            Name::Dataset(target) => streaming.verb == "receive" && *target == snapshot.dataset(),
            Name::Bookmark(_) => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cmdline: &str) -> Option<(&'static str, Vec<String>)> {
        let streaming = parse(cmdline.replace(' ', "\0").as_bytes())?;
        Some((streaming.verb, streaming.names.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_stream_is_known_by_its_command_line() {
        let sent = names("/usr/sbin/zfs send -L -i @a tank/x@b ");
        assert_eq!(sent, Some(("send", vec!["tank/x@a".to_owned(), "tank/x@b".to_owned()])));
        let received = names("zfs recv -s -o origin=tank/o@s tank/y ");
        let (verb, names_of) = received.unwrap();
        assert_eq!(verb, "receive");
        assert!(["tank/o@s", "tank/y"].iter().all(|name| names_of.iter().any(|n| n == name)), "{names_of:?}");
        for other in ["zfs list tank/x ", "grep zfs send tank/x@b ", "zfs ", ""] {
            assert_eq!(names(other), None, "{other}");
        }
    }

    /// A directory as a process has it in /proc; a command line of None keeps its reader for good.
    fn process(proc: &Path, pid: u32, comm: &str, cmdline: Option<&str>) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        match cmdline {
            Some(line) => std::fs::write(dir.join("cmdline"), line.replace(' ', "\0")).unwrap(),
            None => nix::unistd::mkfifo(&dir.join("cmdline"), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }
    }

    #[test]
    fn a_process_that_keeps_its_reader_does_not_keep_the_caller() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 1, "criu", None);
        process(proc.path(), 2, "zfs", Some("zfs send tank/x@b "));
        process(proc.path(), 3, "zfs", Some("zfs send tank/y@b "));
        process(proc.path(), 4, "zfs", None);
        process(proc.path(), 5, "zfs", Some("zfs send tank/x@c "));
        let look = |pids: std::ops::RangeInclusive<u32>, limits: Limits| {
            let proc = proc.path().to_owned();
            let processes = move || pids.map(move |pid| (pid, proc.join(pid.to_string())));
            let keeps = |_: &Streaming, name: &Name| name.dataset().as_str() == "tank/x";
            // On a thread, so that a look that hangs fails the test instead of hanging it as well.
            let (sender, found) = mpsc::channel();
            std::thread::spawn(move || sender.send(bounded(processes, &limits, keeps)).ok());
            let found = found.recv_timeout(Duration::from_secs(30)).expect("the look ends");
            found.into_iter().map(|holder| (holder.pid, holder.command)).collect::<Vec<_>>()
        };
        let sender = (2, "zfs send tank/x@b".to_owned());
        let began = std::time::Instant::now();
        assert_eq!(look(1..=3, Limits::none()), std::slice::from_ref(&sender));
        assert!(began.elapsed() < LOOK_AT_MOST, "what is not called zfs is not read");
        assert_eq!(look(1..=5, Limits::within(Duration::from_millis(200))), std::slice::from_ref(&sender));
    }
}
