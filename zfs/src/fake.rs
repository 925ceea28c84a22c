//! OpenZFS in memory, for tests of everything above this crate that has no pool at hand.
//!
//! Names, guids, transaction groups, clones, holds, quotas, streams and their errors are modelled; the content of
//! a file system is an ordinary directory, which "mounting" makes visible as a symbolic link at the mount point,
//! so that code under test reads and writes real files. `conformance` keeps the model honest: the same cases run
//! against it and against real pools. `inject` makes calls fail, hang or lose their reply.

mod changing;
mod inject;
mod mounting;
mod snapshots;
mod state;
mod stream;
mod transfer;
mod tree;
mod views;
mod zfs;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use inject::Fault;
use inject::Injector;
use state::State;

use crate::error::Op;
use crate::{Bytes, DatasetName, Error, Limits, MountHolder, PoolName};

/// A fake ZFS; clones are the same one. Its files are removed with the last clone.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    injector: Mutex<Injector>,
    backing: PathBuf,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.backing) {
            tracing::debug!(dir = %self.backing.display(), %error, "fake zfs leaves its files");
        }
    }
}

impl Fake {
    /// A fake with these pools of 1 GiB each. Fails when the temporary directory cannot be written.
    pub fn new(pools: &[&str]) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let backing = std::env::temp_dir().join(format!("cryopod-fake-{}-{count}", std::process::id()));
        let op = Op::new("create", backing.display());
        std::fs::create_dir_all(&backing).map_err(|source| Error::System { op, source })?;
        let mut state = State::new(backing.clone());
        for pool in pools {
            state.add_pool(&pool.parse()?)?;
        }
        Ok(Self(Arc::new(Inner { state: Mutex::new(state), injector: Mutex::default(), backing })))
    }

    /// Changes the size of a pool; smaller than what is in use makes it full.
    pub fn set_pool_size(&self, pool: &PoolName, size: Bytes) {
        self.with_pool(pool, |pool| pool.size = size.0);
    }

    /// Suspends a pool, or resumes it: all calls on it fail.
    pub fn suspend(&self, pool: &PoolName, suspended: bool) {
        self.with_pool(pool, |pool| pool.suspended = suspended);
    }

    /// Makes a pool read-only, or writable.
    pub fn set_read_only(&self, pool: &PoolName, read_only: bool) {
        self.with_pool(pool, |pool| pool.read_only = read_only);
    }

    /// Takes a pool away, or brings it back, as an export and import do.
    pub fn set_imported(&self, pool: &PoolName, imported: bool) {
        self.with_pool(pool, |pool| pool.imported = imported);
    }

    /// Lets some other process use a dataset, so that it cannot be unmounted or destroyed.
    pub fn pin(&self, dataset: &DatasetName, holder: MountHolder) {
        if let Some(node) = self.lock().datasets.get_mut(dataset) {
            node.pins.push(holder);
        }
    }

    /// Ends what `pin` began.
    pub fn unpin(&self, dataset: &DatasetName) {
        if let Some(node) = self.lock().datasets.get_mut(dataset) {
            node.pins.clear();
        }
    }

    /// The directory with a dataset's files, mounted or not; None when it does not exist.
    pub fn content_dir(&self, dataset: &DatasetName) -> Option<PathBuf> {
        self.lock().datasets.get(dataset).map(|node| node.content.clone())
    }

    fn with_pool(&self, pool: &PoolName, change: impl FnOnce(&mut state::PoolState)) {
        if let Some(pool) = self.lock().pools.get_mut(pool) {
            change(pool);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock has failed already.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_injector(&self) -> MutexGuard<'_, Injector> {
        self.0.injector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one call: limits, planned faults, then the model.
    fn call<T>(
        &self,
        op: Op,
        limits: &Limits,
        act: impl FnOnce(&mut State, &Op) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_unlocked(op, limits, |op| act(&mut self.lock(), op))
    }

    /// The same for calls that block on a pipe and must not keep others out meanwhile.
    fn call_unlocked<T>(
        &self,
        op: Op,
        limits: &Limits,
        act: impl FnOnce(&Op) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let fault = self.lock_injector().note(&op);
        limits.check().map_err(|stop| inject::stopped(op.clone(), stop, started.elapsed()))?;
        match fault {
            None => act(&op),
            Some(Fault::Fail(error)) => Err(error(op)),
            Some(Fault::Hang) => Err(inject::hang(op, limits)),
            Some(Fault::LoseReply) => {
                act(&op)?;
                Err(Error::Unknown { op, said: "the reply was lost (planned)".to_owned() })
            }
        }
    }
}
