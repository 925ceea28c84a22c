//! Named locks between processes, and a way to ask the holder to let go.
//!
//! A lock is `flock` on a file below the lock directory, so it dies with its process. The file is removed by the
//! holder while it still holds it; whoever then locks the removed file notices by its inode and tries again. A wish
//! (`<name>.wanted`, locked by the one who waits) is looked at by long operations between and during their steps:
//! settling stops its send when `adopt` wants the dataset, without signals and without knowing any PID.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cryopod_command::{Limits, Stop};

use crate::durable;

/// How often a waiter tries again.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// What is held for a moment only, by a sweep or by whoever looks for a wish, is no reason to go without a lock: those
/// who do not wait try as often as this, and cost whoever meets a real holder 40 ms.
const TRIES: u32 = 5;
const MOMENT: Duration = Duration::from_millis(10);
/// For another sweep, which takes milliseconds.
const SWEEP: Duration = Duration::from_secs(1);

/// A lock that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock file could not be opened or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Held by another operation until the limits ended the wait.
    #[error("{} is still held by another operation ({stop:?})", path.display())]
    Stopped {
        /// The lock file.
        path: PathBuf,
        /// Deadline or cancel.
        stop: Stop,
    },
}

/// A directory of named locks.
#[derive(Debug, Clone)]
pub struct Locks {
    dir: PathBuf,
}

/// A share of a lock that several may have at once; the last one that is dropped lets go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: File,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Only the last one gets it whole. Somebody who waits for it notices by the inode that the file has gone.
        if self.file.try_lock().is_ok() {
            fs::remove_file(&self.path).ok();
        }
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Share {}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    // Closing releases the flock; it is never passed on (O_CLOEXEC).
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked here: nobody else can be between opening and locking without noticing the new inode.
        fs::remove_file(&self.path).ok();
    }
}

impl Locks {
    /// Uses a directory, creating it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, LockError> {
        let dir = dir.into();
        durable::private_dir(&dir).map_err(|source| LockError::Io { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// The lock if nobody has it for longer than a moment.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, LockError> {
        try_to_take(&self.path(name, "lock"))
    }

    /// Waits for the lock.
    pub fn lock(&self, name: &str, limits: &Limits) -> Result<Lock, LockError> {
        let path = self.path(name, "lock");
        loop {
            if let Some(lock) = take(&path)? {
                return Ok(lock);
            }
            limits.check().map_err(|stop| LockError::Stopped { path: path.clone(), stop })?;
            thread::sleep(TRY_EVERY);
        }
    }

    /// Waits for a share of the lock: nobody has it whole meanwhile.
    pub fn share(&self, name: &str, limits: &Limits) -> Result<Share, LockError> {
        let path = self.path(name, "lock");
        loop {
            if let Some(file) = open_locked(&path, File::try_lock_shared)? {
                return Ok(Share(Arc::new(Shared { path, file })));
            }
            limits.check().map_err(|stop| LockError::Stopped { path: path.clone(), stop })?;
            thread::sleep(TRY_EVERY);
        }
    }

    /// Says that the lock is wanted until the result is dropped; None when somebody else wants it already.
    pub fn want(&self, name: &str) -> Result<Option<Lock>, LockError> {
        try_to_take(&self.path(name, "wanted"))
    }

    /// Whether somebody alive wants the lock.
    pub fn is_wanted(&self, name: &str) -> bool {
        let Ok(file) = File::open(self.path(name, "wanted")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Removes the files of locks that nobody holds: whoever held them was killed. They would do no harm, but never go.
    pub fn sweep(&self) -> Result<(), LockError> {
        // One at a time: of two that share a wish's file, the second would remove a new one with its name.
        let _turn = match self.lock("sweep", &Limits::within(SWEEP)) {
            // Somebody else sweeps.
            Err(LockError::Stopped { .. }) => return Ok(()),
            other => other?,
        };
        let failed = |source| LockError::Io { path: self.dir.clone(), source };
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // Somebody who opened it meanwhile notices that it has gone and opens it again.
            if let Some(_held) = left_over(&path)? {
                fs::remove_file(&path).ok();
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{name}.{ending}"))
    }
}

fn take(path: &Path) -> Result<Option<Lock>, LockError> {
    let file = open_locked(path, File::try_lock)?;
    Ok(file.map(|file| Lock { path: path.to_owned(), _file: file }))
}

fn try_to_take(path: &Path) -> Result<Option<Lock>, LockError> {
    for _ in 1..TRIES {
        if let Some(lock) = take(path)? {
            return Ok(Some(lock));
        }
        thread::sleep(MOMENT);
    }
    take(path)
}

/// The file of a lock or wish that nobody holds, locked so that it stays like that until it is removed.
fn left_over(path: &Path) -> Result<Option<File>, LockError> {
    let lock = match path.extension().and_then(|ending| ending.to_str()) {
        Some("lock") => File::try_lock,
        // Whole, it would be taken for a wish. Wishes have no shares, so this keeps everybody away as well.
        Some("wanted") => File::try_lock_shared,
        _ => return Ok(None),
    };
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    // Not created, as one that was let go of meanwhile is gone.
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    match lock(&file) {
        Ok(()) => Ok(is_named(&file, path).map_err(failed)?.then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The file, locked that way, and still under its name; None when another has it.
fn open_locked(path: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> Result<Option<File>, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Else it was removed by its last holder between our open and our lock.
        if is_named(&file, path).map_err(failed)? {
            return Ok(Some(file));
        }
    }
}

/// Whether an open file is the one that has this name now.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.ino() == held.ino() && named.dev() == held.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let first = locks.try_lock("a").unwrap().unwrap();
        assert!(locks.try_lock("a").unwrap().is_none());
        assert!(locks.try_lock("b").unwrap().is_some());
        let error = locks.lock("a", &Limits::within(Duration::from_millis(30))).unwrap_err();
        assert!(error.to_string().contains("still held"), "{error}");
        drop(first);
        assert!(locks.lock("a", &Limits::none()).is_ok());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn shares_keep_the_whole_lock_away_and_the_last_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let first = locks.share("a", &Limits::none()).unwrap();
        let second = locks.share("a", &Limits::none()).unwrap();
        drop(first);
        assert!(locks.try_lock("a").unwrap().is_none());
        drop(second.clone());
        assert!(locks.try_lock("a").unwrap().is_none(), "a clone is the same share");
        drop(second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let whole = locks.try_lock("a").unwrap().unwrap();
        assert!(locks.share("a", &Limits::within(Duration::from_millis(30))).is_err());
        drop(whole);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_wish_is_seen_while_its_owner_lives_and_a_left_over_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        assert!(!locks.is_wanted("a"));
        let wish = locks.want("a").unwrap().unwrap();
        assert!(locks.is_wanted("a"));
        drop(wish);
        fs::write(dir.path().join("a.wanted"), "").unwrap();
        assert!(!locks.is_wanted("a"));
    }

    #[test]
    fn files_of_the_killed_are_swept_and_held_locks_stay() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        for dead in ["a.lock", "a.wanted"] {
            fs::write(dir.path().join(dead), "").unwrap();
        }
        fs::write(dir.path().join("readme"), "").unwrap();
        let (held, wish) = (locks.try_lock("b").unwrap().unwrap(), locks.want("b").unwrap().unwrap());
        let shared = locks.share("c", &Limits::none()).unwrap();
        locks.sweep().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.lock", "b.wanted", "c.lock", "readme"]);
        assert!(locks.try_lock("b").unwrap().is_none() && locks.try_lock("c").unwrap().is_none());
        drop((held, wish, shared));
    }

    #[test]
    fn whoever_does_not_wait_still_gets_what_is_held_for_a_moment_only() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        for (name, get) in [("a.lock", Locks::try_lock as fn(&Locks, &str) -> _), ("a.wanted", Locks::want)] {
            // Repeated, since a busy machine may make much of a moment.
            let got = (0..20).any(|_| {
                let path = dir.path().join(name);
                fs::write(&path, "").unwrap();
                let held = left_over(&path).unwrap().expect("nobody holds it");
                let (begin, begun) = std::sync::mpsc::channel();
                let moment = thread::spawn(move || {
                    begun.recv().unwrap();
                    thread::sleep(MOMENT / 2);
                    fs::remove_file(&path).unwrap();
                    drop(held);
                });
                begin.send(()).unwrap();
                let got = get(&locks, "a").unwrap().is_some();
                moment.join().unwrap();
                got
            });
            assert!(got, "{name}");
        }
    }

    #[test]
    fn a_sweep_is_not_taken_for_a_wish() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let path = dir.path().join("a.wanted");
        fs::write(&path, "").unwrap();
        let held = left_over(&path).unwrap();
        assert!(held.is_some() && !locks.is_wanted("a"));
        drop(held);
        let wish = locks.want("a").unwrap();
        assert!(wish.is_some() && left_over(&path).unwrap().is_none() && locks.is_wanted("a"));
    }

    #[test]
    fn sweeps_take_no_wish_from_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let turn = locks.try_lock("sweep").unwrap();
        fs::write(dir.path().join("a.wanted"), "").unwrap();
        thread::scope(|scope| {
            let sweeping = scope.spawn(|| locks.sweep());
            thread::sleep(TRY_EVERY * 2);
            assert!(dir.path().join("a.wanted").exists(), "it did not wait");
            drop(turn);
            sweeping.join().unwrap().unwrap();
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_threads_are_never_inside_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::open(dir.path()).unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if let Some(_lock) = locks.try_lock("a").unwrap() {
                            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            thread::yield_now();
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
