//! Long programs of a build: their output goes to a log file, the newest line to the progress display, the last lines
//! into the error. Short calls whose output is data go through `cryopod-command`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::progress::Step;

const SHOWN_LINES: usize = 15;

/// Why a program of a build did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("cannot write the log {path}: {source}")]
    Log { path: PathBuf, source: io::Error },
    #[error("{what} failed: `{program}` ended with {status}; the last of {log}:\n{tail}")]
    Failed { what: String, program: String, status: ExitStatus, log: PathBuf, tail: String },
}

/// Runs `command` as part of `step`, its output appended to `log`.
pub(crate) fn logged(mut command: Command, step: &Step, what: &str, log: &Path) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log_failed = |source| Error::Log { path: log.to_path_buf(), source };
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).map_err(log_failed)?;
    }
    let mut file = File::options().create(true).append(true).open(log).map_err(log_failed)?;
    let spawn_failed = |source| Error::Spawn { program: program.clone(), source };
    // One pipe for both streams, so that the log has them in order.
    let (reader, writer) = io::pipe().map_err(spawn_failed)?;
    let second = writer.try_clone().map_err(spawn_failed)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let mut child = command.spawn().map_err(spawn_failed)?;
    drop(command);
    let mut tail: Vec<String> = Vec::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(log_failed)? > 0 {
        file.write_all(&line).map_err(log_failed)?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        step.detail(&text);
        if tail.len() == SHOWN_LINES {
            tail.remove(0);
        }
        tail.push(format!("  | {text}"));
        line.clear();
    }
    let status = child.wait().map_err(spawn_failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        what: what.to_owned(),
        program,
        status,
        log: log.to_path_buf(),
        tail: tail.join("\n"),
    })
}
