//! `cryopod checkpoints export` and `import`: a checkpoint as one stream, through a file or a pipe.
//!
//! A stream holds the memory of processes, secrets included: files are made 0600, and appear under their name only
//! when they are whole. It is binary and never goes to a terminal.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::ship::{self, ExportOptions, ImportOptions, ShipError};
use cryopod_command::Limits;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::stream::Stream;
use super::{LOOK, WHOLE, find};
use crate::args::{ExportArgs, ImportArgs};
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::progress::Progress;
use crate::output::units;

/// Larger writes cost less; a pipe takes 64 KiB at once.
const BUFFER: usize = 1 << 20;

/// Writes a checkpoint as a stream.
pub(super) fn export(context: &Context, args: &ExportArgs) -> Result<u8, Error> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(Error::BinaryToTerminal);
    }
    need_root("checkpoints export")?;
    let id = find(context, &args.id, None, &context.signals.limits(LOOK))?.id;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&limits)?.store;
    let options = ExportOptions { bases: !args.without_bases };
    let progress = Progress::begin(&context.output, &format!("exporting {id}"));
    if to_stdout {
        let stdout = Stream::of(io::stdout().as_fd(), &limits).map_err(Error::Stdout)?;
        let mut stdout = BufWriter::with_capacity(BUFFER, stdout);
        ship::export(&store, &id, &mut stdout, options, &progress, &limits)
            .map_err(|error| stopped(error, &limits))?;
        stdout.flush().map_err(Error::Stdout)?;
        return Ok(exit::OK);
    }
    let part = Part::begin(&args.file)?;
    let mut file = BufWriter::with_capacity(BUFFER, part.file()?);
    let bytes = ship::export(&store, &id, &mut file, options, &progress, &limits)?.bytes;
    file.flush().map_err(|source| part.failed(source))?;
    drop(file);
    part.finish()?;
    drop(progress);
    let value = json!({ "id": id, "file": args.file, "bytes": bytes });
    context.output.result(&value, |_| format!("{}  {}", args.file.display(), units::bytes(bytes)))?;
    Ok(exit::OK)
}

/// Reads a stream; it is in the store only once it was verified.
pub(super) fn import(context: &Context, args: &ImportArgs) -> Result<u8, Error> {
    let from_stdin = args.file.as_os_str() == "-";
    if from_stdin && io::stdin().is_terminal() {
        return Err(Error::ImportFromTerminal);
    }
    need_root("checkpoints import")?;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&limits)?.store;
    let journal = context.journal()?;
    let opened =
        if from_stdin { Stream::of(io::stdin().as_fd(), &limits) } else { Stream::open(&args.file, &limits) };
    let source = opened.map_err(|source| Error::Read { what: "export", path: args.file.clone(), source })?;
    let options = ImportOptions { trusted: args.trusted };
    let progress = Progress::begin(&context.output, "importing");
    let mut source = Counter::new(BufReader::with_capacity(BUFFER, source));
    let id = ship::import(&store, &journal, &mut source, options, &progress, &limits)
        .map_err(|error| stopped(error, &limits))?;
    drop(progress);
    let value = json!({ "id": id, "bytes": source.count });
    context.output.result(&value, |_| id.to_string())?;
    context.output.note(&format!("imported and verified; `cryopod checkpoints show {id}` says what it is"));
    Ok(exit::OK)
}

/// A stream that was left because its limits said so has not failed.
fn stopped(error: ShipError, limits: &Limits) -> ShipError {
    match (error, limits.check()) {
        (ShipError::Io { .. }, Err(stop)) => ShipError::Stopped(stop),
        (error, _) => error,
    }
}

/// A file under a name of its own until it is whole.
struct Part {
    target: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Part {
    fn begin(target: &Path) -> Result<Self, Error> {
        if target.symlink_metadata().is_ok() {
            return Err(Error::FileExists { path: target.to_owned() });
        }
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        Ok(Self { target: target.to_owned(), path: name.into(), finished: false })
    }

    fn file(&self) -> Result<File, Error> {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        options.open(&self.path).map_err(|source| self.failed(source))
    }

    /// On disk, then under its name, which nobody may have taken meanwhile, and that on disk as well.
    fn finish(mut self) -> Result<(), Error> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.map_err(|source| self.failed(source))?;
        match self.rename() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::FileExists { path: self.target.clone() });
            }
            other => other.map_err(|source| self.failed(source))?,
        }
        self.finished = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        synced.map_err(|source| self.failed(source))
    }

    fn rename(&self) -> io::Result<()> {
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.target, RenameFlags::RENAME_NOREPLACE) {
            // Some network file systems cannot tell: then as well as it can be done.
            Err(Errno::EINVAL) if self.target.symlink_metadata().is_err() => {
                std::fs::rename(&self.path, &self.target)
            }
            Err(Errno::EINVAL) => Err(io::ErrorKind::AlreadyExists.into()),
            other => Ok(other?),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { what: "export", path: self.target.clone(), source }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Counts what was read.
struct Counter<T> {
    inner: T,
    count: u64,
}

impl<T> Counter<T> {
    fn new(inner: T) -> Self {
        Self { inner, count: 0 }
    }
}

impl<T: Read> Read for Counter<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_appears_only_when_it_is_whole_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("ck.cryopod");
        let part = Part::begin(&target).unwrap();
        part.file().unwrap().write_all(b"x").unwrap();
        assert!(!target.exists());
        part.finish().unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Part::begin(&target), Err(Error::FileExists { .. })));
    }

    #[test]
    fn a_file_that_appeared_during_the_export_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("ck.cryopod");
        let part = Part::begin(&target).unwrap();
        part.file().unwrap().write_all(b"ours").unwrap();
        std::fs::write(&target, b"theirs").unwrap();
        assert!(matches!(part.finish(), Err(Error::FileExists { .. })));
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_export_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::begin(&dir.path().join("ck.cryopod")).unwrap();
        part.file().unwrap();
        drop(part);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
