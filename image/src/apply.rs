//! Lays a layer over a directory, as the OCI image specification says (layer.md), from an archive of anybody.
//!
//! Invariants: nothing outside of the directory is read, written or removed, whatever the archive says (`root`); the
//! result depends on the layers alone, not on when they were unpacked or in which order a layer lists its whiteouts; an
//! archive that asks for what it may not ask for is refused as a whole, with the entry named.

mod made;
mod path;
mod remove;
mod root;
mod write;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use cryopod_command::Limits;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, statat, utimensat};
use rustix::io::Errno;

use crate::bounds::{Budget, TooMuch};
use crate::stream::{Expected, LayerStream, StreamError};
use crate::tar::{Entry, EntryKind, Reader, TarError};

use made::{Made, Time, Timed};
use path::{Meaning, Path};
use root::Root;

/// Why an entry is refused: what it says is hostile or means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `/etc/passwd`.
    #[error("its path is absolute")]
    Absolute,
    /// `../x`.
    #[error("its path has '..'")]
    Climbs,
    /// A link above it leads out.
    #[error("a symbolic link in its path leads above the root")]
    LinkClimbs,
    /// Links in a circle.
    #[error("its path has too many symbolic links")]
    LinkLoop,
    /// More than Linux takes.
    #[error("its path or a name in it is longer than Linux has them, or has a zero in it")]
    TooLong,
    /// Deeper than we copy.
    #[error("it is nested deeper than 200 directories")]
    TooDeep,
    /// A whiteout of nothing that a layer may name.
    #[error("it is a whiteout of something outside of its directory, or below one")]
    Whiteout,
    /// A file stands where its directory should be.
    #[error("something that is no directory stands in its path")]
    NotADirectory,
    /// The root is a directory and stays one.
    #[error("it would replace the root by something that is no directory")]
    Root,
    /// A hard link to something absolute.
    #[error("it is a hard link to an absolute path or out of the root")]
    LinkOut,
    /// A hard link to nothing.
    #[error("it is a hard link to something that is not there")]
    LinkNowhere,
    /// A hard link to a directory.
    #[error("it is a hard link to a directory")]
    LinkDirectory,
}

/// What went wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot {0} it: {1}")]
    Io(&'static str, Errno),
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

impl Problem {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io(action, errno)
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It asks for what it may not ask for.
    #[error("entry {entry} is refused: {reason}")]
    Refused {
        /// Path of the entry, as the archive has it.
        entry: String,
        /// Why.
        reason: Refusal,
    },
    /// The kernel refused.
    #[error("cannot {action} {entry}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// For which entry.
        entry: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Too much of it.
    #[error("at entry {entry}: {reason}")]
    TooMuch {
        /// The entry that was one too many.
        entry: String,
        /// The bound.
        reason: TooMuch,
    },
    /// The archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The stream below it.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Unpacks one layer over what is in `root`; returns its digest and diff_id, which are as expected.
pub(crate) fn apply<'a>(
    blob: Box<dyn Read + 'a>,
    expected: Expected,
    root: &std::path::Path,
    budget: &'a mut Budget,
    limits: &'a Limits,
) -> Result<(crate::digest::Digest, crate::digest::Digest), LayerError> {
    let stream = LayerStream::open(blob, budget, limits)?;
    let here = |errno: Errno| LayerError::Io {
        action: "open",
        entry: root.display().to_string(),
        source: errno.into(),
    };
    let opened = Root::open(root).map_err(here)?;
    let location = opened.location().map_err(here)?;
    let mut reader = Reader::new(stream);
    let mut layer = Layer { root: opened, location, made: Made::default() };
    if let Err(error) = layer.unpack(&mut reader) {
        // An error of the stream has gone through `Read`, which cannot carry it.
        return Err(reader.into_inner().reason().map_or(error, LayerError::Stream));
    }
    Ok(reader.into_inner().finish(expected)?)
}

/// Makes an empty directory what every root begins as, so that it does not depend on who made it and when.
pub(crate) fn begin(root: &std::path::Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty())?;
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
    Ok(rustix::fs::futimens(&dir, &times((0, 0)))?)
}

/// A layer being unpacked.
struct Layer {
    root: Root,
    /// Where the root is, for the paths of directories below it.
    location: PathBuf,
    made: Made,
}

impl Layer {
    fn unpack(&mut self, reader: &mut Reader<LayerStream<'_>>) -> Result<(), LayerError> {
        while let Some(entry) = reader.next_entry()? {
            let done = self.entry(&entry, reader);
            done.map_err(|problem| named(&entry.path, problem))?;
        }
        self.set_times()
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<LayerStream<'_>>) -> Result<(), Problem> {
        let budget = reader.inner().budget();
        budget.take_entry()?;
        // Holes cost nothing here and everything where somebody copies the file without looking.
        budget.take_bytes(if entry.sparse.is_some() { entry.size } else { 0 })?;
        match Path::parse(&entry.path)?.meaning()? {
            Meaning::Nothing => Ok(()),
            Meaning::Root if entry.kind == EntryKind::Dir => self.root_entry(entry),
            Meaning::Root => Err(Refusal::Root.into()),
            Meaning::Opaque(dir) => self.opaque(&dir),
            Meaning::Whiteout(dir, name) => self.whiteout(&dir, &name),
            Meaning::Make(dir, name) => {
                let dir = self.directory(&dir)?;
                self.make(entry, &dir, &name, reader)
            }
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), Problem> {
        let dir = self.readable(self.root.fd())?;
        write::describe_open(dir.as_fd(), entry)?;
        self.timed(dir.as_fd(), entry.mtime)
    }

    /// The directory of an entry. Its time stays what it is unless the layer says otherwise; one that the layer does not
    /// describe gets no time of today.
    fn directory(&mut self, path: &Path) -> Result<OwnedFd, Problem> {
        let found = self.root.directory(path)?;
        if !found.made.is_empty() {
            // All of those made at once are above one another, so the path of the last names them all.
            let mut path = self.relative(found.dir.as_fd())?;
            for (above, name, inode) in found.made.iter().rev() {
                self.made.add(*above, name);
                self.made.set_time(Timed { path: path.clone(), inode: *inode, time: (0, 0) });
                path.pop();
            }
            // The one above the first is changed by it, and what has been made in it has no time yet.
            let above = self.root.plain(&path).map_err(Problem::io("open the directory of"))?;
            self.keep_time(above.as_fd())?;
        }
        self.keep_time(found.dir.as_fd())?;
        Ok(found.dir)
    }

    /// Notes the time that a directory has, before something in it changes.
    fn keep_time(&mut self, dir: BorrowedFd<'_>) -> Result<(), Problem> {
        let stat = rustix::fs::fstat(dir).map_err(Problem::io("look at the directory of"))?;
        if self.made.is_timed(stat.st_ino) {
            return Ok(());
        }
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        self.timed(dir, (stat.st_mtime, nanos))
    }

    fn timed(&mut self, dir: BorrowedFd<'_>, time: Time) -> Result<(), Problem> {
        let (path, inode) = (self.relative(dir)?, root::inode(dir)?);
        self.made.set_time(Timed { path, inode, time });
        Ok(())
    }

    fn relative(&self, dir: BorrowedFd<'_>) -> Result<PathBuf, Problem> {
        let path = root::location(dir).map_err(Problem::io("find the path of"))?;
        path.strip_prefix(&self.location).map(PathBuf::from).map_err(|_| Refusal::LinkClimbs.into())
    }

    /// A directory that was only found, opened to be read or changed.
    fn readable(&self, dir: BorrowedFd<'_>) -> Result<OwnedFd, Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(dir, ".", flags, Mode::empty()).map_err(Problem::io("open the directory of"))
    }

    /// The directory of a whiteout; what is no directory, or not there, has nothing in it that could go.
    fn to_empty(&self, dir: &Path) -> Result<Option<OwnedFd>, Problem> {
        match self.root.existing(dir) {
            Err(Problem::Refused(Refusal::NotADirectory)) => Ok(None),
            other => other,
        }
    }

    fn opaque(&mut self, dir: &Path) -> Result<(), Problem> {
        let Some(dir) = self.to_empty(dir)? else { return Ok(()) };
        self.keep_time(dir.as_fd())?;
        let dir = self.readable(dir.as_fd())?;
        remove::lower(&mut self.made, dir.as_fd())?;
        Ok(())
    }

    fn whiteout(&mut self, dir: &Path, name: &[u8]) -> Result<(), Problem> {
        let Some(dir) = self.to_empty(dir)? else { return Ok(()) };
        self.keep_time(dir.as_fd())?;
        remove::lower_name(&mut self.made, dir.as_fd(), name)?;
        Ok(())
    }

    /// Makes an entry in a directory, in the place of what is there under its name.
    fn make(
        &mut self,
        entry: &Entry,
        dir: &OwnedFd,
        name: &[u8],
        reader: &mut Reader<LayerStream<'_>>,
    ) -> Result<(), Problem> {
        let above = root::inode(dir)?;
        let there = look(dir.as_fd(), name)?;
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if entry.kind == EntryKind::Link {
            self.link(entry, dir, name, there)?;
        } else if entry.kind == EntryKind::Dir {
            if there.as_ref().is_some_and(|stat| !is_dir(stat)) {
                remove::all(&mut self.made, dir.as_fd(), name)?;
            }
            let made = write::directory(dir.as_fd(), name, entry)?;
            self.timed(made.as_fd(), entry.mtime)?;
        } else {
            if there.is_some() {
                remove::all(&mut self.made, dir.as_fd(), name)?;
            }
            match entry.kind {
                EntryKind::File => write::file(dir.as_fd(), name, entry, reader)?,
                _ => write::special(dir.as_fd(), name, entry)?,
            }
        }
        self.made.add(above, name);
        Ok(())
    }

    fn link(
        &mut self,
        entry: &Entry,
        dir: &OwnedFd,
        name: &[u8],
        there: Option<Stat>,
    ) -> Result<(), Problem> {
        let target = Path::parse(&entry.link).map_err(|refusal| match refusal {
            Refusal::Absolute | Refusal::Climbs => Refusal::LinkOut,
            other => other,
        })?;
        let Some((target_dir, target_name)) = target.split() else {
            return Err(Refusal::LinkDirectory.into());
        };
        let found = match self.root.existing(&target_dir) {
            Err(Problem::Refused(Refusal::LinkClimbs)) => return Err(Refusal::LinkOut.into()),
            other => other?.ok_or(Refusal::LinkNowhere)?,
        };
        let stat = look(found.as_fd(), &target_name)?.ok_or(Refusal::LinkNowhere)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Refusal::LinkDirectory.into());
        }
        if let Some(there) = there {
            // The same file under the same name, or another name of it: nothing to do.
            if there.st_ino == stat.st_ino {
                return Ok(());
            }
            remove::all(&mut self.made, dir.as_fd(), name)?;
        }
        let (from, to) = (write::os(&target_name), write::os(name));
        rustix::fs::linkat(&found, from, dir, to, AtFlags::empty()).map_err(Problem::io("link"))
    }

    /// Directories get their times once nothing is made in them any more.
    fn set_times(&self) -> Result<(), LayerError> {
        for timed in self.made.times() {
            let failed = |errno: Errno| LayerError::Io {
                action: "set the time of",
                entry: timed.path.display().to_string(),
                source: errno.into(),
            };
            let dir = match self.root.plain(&timed.path) {
                // It was removed, or is something else by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed)?,
            };
            if rustix::fs::fstat(&dir).map_err(failed)?.st_ino == timed.inode {
                utimensat(&dir, "", &times(timed.time), AtFlags::EMPTY_PATH).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Problem> {
    match statat(dir, write::os(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Problem::Io("look at", errno)),
    }
}

/// Access time and modification time.
fn times((seconds, nanos): Time) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// The problem with the name of its entry; a name from outside has no control characters on the way to a terminal.
fn named(path: &[u8], problem: Problem) -> LayerError {
    let entry: String =
        String::from_utf8_lossy(path).chars().take(300).flat_map(char::escape_debug).collect();
    match problem {
        Problem::Refused(reason) => LayerError::Refused { entry, reason },
        Problem::Io(action, errno) => LayerError::Io { action, entry, source: errno.into() },
        Problem::TooMuch(reason) => LayerError::TooMuch { entry, reason },
        Problem::Tar(error) => LayerError::Tar(error),
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
