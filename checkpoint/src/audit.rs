//! The audit log of a node: one line for each operation on a checkpoint, whichever front door it came through, chained by
//! hashes, so that a line that was changed or taken out is noticed.
//!
//! ```text
//! /var/lib/cryopod/audit/
//!   audit.jsonl           the present file: a JSON object and a line feed for each record, at most MAX_LINE bytes
//!   audit-<number>.jsonl  earlier ones, by the number of their first record
//!   lock                  flock: one writer at a time
//!
//! record  version 1, number (1, 2, 3 …), time, actor, operation, checkpoint, pod, labels, outcome, message …,
//!         previous (hash of the record before it), hash (SHA-256 of the line without this field)
//! ```
//! Invariants: a record is on disk, with fsync, before the operation's caller gets its answer; a line that a power cut tore is
//! cut off and the loss is a record of its own; not being able to write is logged and fails no operation – a workload is worth
//! more than a line about it.

mod chain;
mod record;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::durable;

pub use chain::{Break, Verdict, records, verify};
pub use record::{Actor, Entry, Operation, Outcome, Record};

/// Where the node's log is.
pub const DIR: &str = "/var/lib/cryopod/audit";
/// Longest line: labels and messages are cut long before.
pub const MAX_LINE: usize = 64 << 10;
/// A file that has grown over this is followed by another one.
const ROTATE_AT: u64 = 64 << 20;
/// Name of the present file.
const PRESENT: &str = "audit.jsonl";

/// The log of this process and who it is.
static LOG: OnceLock<(Log, Actor)> = OnceLock::new();

/// From now on this process's operations are written down. The first call counts.
pub fn begin(dir: &Path, actor: Actor) {
    // A second call is a program that begins twice; it stays who it was.
    LOG.get_or_init(|| (Log::at(dir), actor));
}

/// Writes one operation down, if this process keeps a log.
pub(crate) fn note(entry: Entry) {
    let Some((log, actor)) = LOG.get() else { return };
    let operation = entry.operation;
    if let Err(error) = log.append(entry, actor.clone()) {
        tracing::error!(%error, dir = %log.dir.display(), ?operation, "the audit log lacks an operation");
    }
}

/// A log in a directory.
#[derive(Debug, Clone)]
pub struct Log {
    dir: PathBuf,
}

impl Log {
    /// The log there; made with the first record.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Writes a record behind all others, and waits until it is on disk.
    ///
    /// # Errors
    /// When the kernel says so; then the log is as it was, or has a torn last line, which the next record repairs.
    pub fn append(&self, entry: Entry, actor: Actor) -> io::Result<Record> {
        durable::private_dir(&self.dir)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join("lock"))?;
        lock.lock()?;
        let path = self.dir.join(PRESENT);
        let is_new = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let torn = cut_torn_line(&mut file)?;
        let mut last = last_record(&mut file)?;
        if last.is_none() {
            last = self.last_of_earlier()?;
        }
        if torn > 0 {
            let repair = Entry::new(Operation::Repair)
                .message(format!("a record of {torn} bytes was torn, by a power cut perhaps, and is lost"));
            last = Some(write(&mut file, repair, actor.clone(), last.as_ref())?);
        }
        let record = write(&mut file, entry, actor, last.as_ref())?;
        file.sync_data()?;
        if is_new {
            durable::sync_dir(&self.dir)?;
        }
        if file.metadata()?.len() > ROTATE_AT {
            self.rotate(&mut file)?;
        }
        Ok(record)
    }

    /// The present file becomes an earlier one.
    fn rotate(&self, file: &mut File) -> io::Result<()> {
        let first = chain::first(file)?.map_or(0, |record| record.number);
        fs::rename(self.dir.join(PRESENT), self.dir.join(format!("audit-{first:012}.jsonl")))?;
        durable::sync_dir(&self.dir)
    }

    /// All files, the oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(error),
        };
        for entry in listing {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("audit-") && name.ends_with(".jsonl") {
                files.push(path);
            }
        }
        // The numbers have leading zeros.
        files.sort();
        let present = self.dir.join(PRESENT);
        if present.exists() {
            files.push(present);
        }
        Ok(files)
    }

    fn last_of_earlier(&self) -> io::Result<Option<Record>> {
        let files = self.files()?;
        let earlier = files.iter().rev().find(|path| path.file_name().is_some_and(|name| name != PRESENT));
        match earlier {
            Some(path) => last_record(&mut File::open(path)?),
            None => Ok(None),
        }
    }
}

fn write(file: &mut File, entry: Entry, actor: Actor, last: Option<&Record>) -> io::Result<Record> {
    let record = Record::after(last, entry, actor);
    let mut line = record.line();
    line.push('\n');
    file.write_all(line.as_bytes())?;
    Ok(record)
}

/// Removes a last line without its end; how many bytes went.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let tail = tail(file, length)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = (tail.len() - whole) as u64;
    if torn > 0 {
        file.set_len(length - torn)?;
        file.sync_all()?;
    }
    Ok(torn)
}

fn last_record(file: &mut File) -> io::Result<Option<Record>> {
    let length = file.metadata()?.len();
    let tail = tail(file, length)?;
    let mut lines = tail.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let Some(line) = lines.next() else { return Ok(None) };
    serde_json::from_slice(line).map(Some).map_err(|error| {
        let what = format!(
            "the last record of the audit log cannot be read ({error}); move the log aside to begin a new one"
        );
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// The end of the file, long enough for a whole line before a torn one.
fn tail(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let from = length.saturating_sub(2 * MAX_LINE as u64 + 2);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(length - from).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
