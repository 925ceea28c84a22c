//! Reading the log, and whether it is whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Serialize;

use super::{Log, MAX_LINE, Record};

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// What a look at the whole log found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records that were read.
    pub records: u64,
    /// Hash of the last one: who keeps it elsewhere notices a log that was cut off or written anew.
    pub head: String,
    /// Number of the first one; above 1 where old files were removed.
    pub first: u64,
    /// What is wrong.
    pub breaks: Vec<Break>,
}

/// Reads everything and compares each hash.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(log: &Log) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut last: Option<Record> = None;
    for file in log.files()? {
        for (number, line) in (1..).zip(lines(&file)?) {
            let mut broken = |what: String| {
                verdict.breaks.push(Break { file: file.clone(), line: number, what });
            };
            let record = match line
                .and_then(|line| serde_json::from_slice::<Record>(&line).map_err(|e| e.to_string()))
            {
                Ok(record) => record,
                Err(error) => {
                    broken(format!("no record: {error}"));
                    continue;
                }
            };
            if record.digest() != record.hash {
                broken(format!("record {} was changed: its hash does not fit", record.number));
            }
            match &last {
                Some(last) if record.previous != last.hash => broken(format!(
                    "record {} does not follow record {}: what was between them is gone, or they were changed",
                    record.number, last.number
                )),
                Some(last) if record.number != last.number + 1 => {
                    broken(format!("record {} follows record {}", record.number, last.number));
                }
                None => verdict.first = record.number,
                Some(_) => {}
            }
            verdict.records += 1;
            verdict.head.clone_from(&record.hash);
            last = Some(record);
        }
    }
    Ok(verdict)
}

/// The last `count` records, the oldest first; lines that are none are left out.
///
/// # Errors
/// When a file cannot be read.
pub fn records(log: &Log, count: usize) -> io::Result<Vec<Record>> {
    let mut found = std::collections::VecDeque::new();
    for file in log.files()? {
        for line in lines(&file)?.flatten() {
            if let Ok(record) = serde_json::from_slice(&line) {
                found.push_back(record);
                if found.len() > count {
                    found.pop_front();
                }
            }
        }
    }
    Ok(found.into())
}

/// The first record of an open file.
pub(super) fn first(file: &mut File) -> io::Result<Option<Record>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line).ok())
}

/// The lines of a file, each with what is wrong with it as a line.
fn lines(path: &PathBuf) -> io::Result<impl Iterator<Item = Result<Vec<u8>, String>>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut line = Vec::new();
        let read = reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
        match read {
            Ok(0) => None,
            Ok(_) if line.pop_if(|byte| *byte == b'\n').is_some() => Some(Ok(line)),
            Ok(_) => {
                ended = true;
                let what = if line.len() > MAX_LINE { "it is too long" } else { "it is torn" };
                Some(Err(what.to_owned()))
            }
            Err(error) => {
                ended = true;
                Some(Err(error.to_string()))
            }
        }
    }))
}
