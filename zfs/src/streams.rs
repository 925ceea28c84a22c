//! Which processes of this node send or receive a dataset: the kernel says "busy" of it and not by whom.
//!
//! Seen by the command lines in /proc (proc_pid_cmdline(5)): `zfs send` and `zfs receive` name what they work on. What
//! calls libzfs_core itself is not found. Bounded, because it only explains an error.

use std::path::Path;

use crate::{DatasetName, Limits, Name, SnapshotName, StreamHolder, mounts};

/// More than this many say nothing that the first ones do not.
const MOST: usize = 8;

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

fn find(limits: &Limits, keeps: impl Fn(&Streaming, &Name) -> bool) -> Vec<StreamHolder> {
    let mut found = Vec::new();
    for (pid, dir) in mounts::processes() {
        if found.len() >= MOST || limits.check().is_err() {
            break;
        }
        // A process may end at any time, which is no error here.
        let streaming = std::fs::read(dir.join("cmdline")).ok().and_then(|cmdline| parse(&cmdline));
        let Some(streaming) = streaming else { continue };
        if let Some(name) = streaming.names.iter().find(|name| keeps(&streaming, name)) {
            found.push(StreamHolder { pid, command: format!("zfs {} {name}", streaming.verb) });
        }
    }
    found
}

/// What sends a snapshot of `dataset`, or receives into it; with `below`, also of what is below it.
pub(crate) fn of_dataset(dataset: &DatasetName, below: bool, limits: &Limits) -> Vec<StreamHolder> {
    find(limits, |_, name| name.dataset() == *dataset || (below && name.dataset().is_within(dataset)))
}

/// What sends one of these snapshots, or receives into their datasets, which keeps the latest ones.
pub(crate) fn of_snapshots(snapshots: &[SnapshotName], limits: &Limits) -> Vec<StreamHolder> {
    find(limits, |streaming, name| {
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
}
