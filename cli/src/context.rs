//! What every verb works with: options, configuration, signals, and the ways to backend, store and journal.
//!
//! Everything is opened when it is first needed, so that `spec` works on a machine where nothing else does.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryopod_checkpoint::audit;
use cryopod_checkpoint::journal::Journal;
use cryopod_checkpoint::store::StoreKind as Kind;
use cryopod_checkpoint::store::{self, Chosen, SharedStore, StoreChoice, StoreConfig};
use cryopod_command::Limits;
use cryopod_runtime::config::{Config, Sources};
use cryopod_runtime::oci::{OciBackend, OciOptions};
use cryopod_zfs::Zfs;

use crate::args::{DEFAULT_ROOT, Global};
use crate::error::Error;
use crate::output::Output;
use crate::signals::Signals;
use crate::standalone::registry::Registry;

/// Where runtimes keep the state of standalone containers, beside those of containerd's namespaces.
const NAMESPACE: &str = "standalone";

/// Where every process of cryopod on this node writes what it is about to do.
const JOURNAL: &str = "/var/lib/cryopod/journal";

/// The store, and why it is this one.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The store.
    pub(crate) store: SharedStore,
    /// ZFS, where there is one.
    pub(crate) zfs: Option<Arc<dyn Zfs>>,
    /// Which it is and why.
    pub(crate) chosen: Chosen,
}

/// ZFS where it is used, and why it is not used where it was looked for.
type Usable = (Option<Arc<dyn Zfs>>, Option<String>);

/// What every verb works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// Results, notes, errors.
    pub(crate) output: Output,
    /// Run-time state.
    pub(crate) root: PathBuf,
    /// Configuration file, if another than the usual ones.
    pub(crate) config_file: Option<PathBuf>,
    /// containerd namespace that pods are looked for in; all of them if not given.
    pub(crate) namespace: Option<String>,
    /// SIGINT and its kind.
    pub(crate) signals: Signals,
    config: OnceCell<Config>,
}

impl Context {
    /// From the options of every verb.
    pub(crate) fn new(global: Global, output: Output, signals: Signals) -> Result<Self, Error> {
        // A monitor and a container outlive our working directory.
        let root = std::path::absolute(&global.root)
            .map_err(|source| Error::System { action: "find the working directory", source })?;
        Ok(Self {
            output,
            root,
            config_file: global.config,
            namespace: global.namespace,
            signals,
            config: OnceCell::new(),
        })
    }

    /// The configuration, read once.
    pub(crate) fn config(&self) -> Result<&Config, Error> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let sources = Sources { file: self.config_file.clone(), ..Sources::default() };
        let config = Config::load(&sources)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The backend that runs standalone containers: a configured runtime by its name (None: the default), or any
    /// OCI runtime by its path.
    pub(crate) fn backend(&self, runtime: Option<&str>) -> Result<OciBackend, Error> {
        let config = self.config()?;
        let name = runtime.unwrap_or(&config.runtime.default);
        let mut options = match OciOptions::from_config(config, name, NAMESPACE) {
            Some(options) => options,
            None => foreign(config, name)?,
        };
        if config.runtime(name).is_none_or(|settings| settings.root.is_none()) {
            options.root = self.root.join("oci").join(NAMESPACE);
        }
        Ok(OciBackend::new(options))
    }

    /// The store of this node. Where it is not on ZFS, `chosen.why` says what keeps it from being so.
    pub(crate) fn open_store(&self, limits: &Limits) -> Result<Opened, Error> {
        self.open_chosen(&self.config()?.store.wanted().map_err(Error::StoreRoot)?, limits)
    }

    /// A store that somebody else has chosen, by what it is and where its contents are.
    pub(crate) fn open_other(&self, told: Chosen, dir: PathBuf, limits: &Limits) -> Result<Opened, Error> {
        let (choice, root) = match told.kind {
            Kind::Zfs => (StoreChoice::Zfs, Some(told.place.parse().map_err(Error::StoreRoot)?)),
            Kind::Dir => (StoreChoice::Dir, None),
        };
        let config = StoreConfig { choice, root, dir, ..StoreConfig::default() };
        Ok(Opened { chosen: told, ..self.open_chosen(&config, limits)? })
    }

    /// Which store would be used, and the bytes that are free there, without making it one.
    pub(crate) fn look_at_store(&self, limits: &Limits) -> Result<(Chosen, Option<u64>), Error> {
        let config = self.config()?.store.wanted().map_err(Error::StoreRoot)?;
        let (zfs, missing) = Self::zfs(&config, limits)?;
        let (mut chosen, free) = store::look(&config, zfs, limits)?;
        if let Some(missing) = missing {
            chosen.why = missing;
        }
        Ok((chosen, free))
    }

    /// Its locks are in one place for the whole node and do not move with `--root`: a recovery beside the node's own
    /// shims would find every lock free and take their captures for dead ones.
    fn open_chosen(&self, config: &StoreConfig, limits: &Limits) -> Result<Opened, Error> {
        let (zfs, missing) = Self::zfs(config, limits)?;
        let (store, mut chosen) = store::open(config, zfs.clone(), limits)?;
        if let Some(missing) = missing {
            chosen.why = missing;
        }
        Ok(Opened { store, zfs, chosen })
    }

    /// ZFS where the configuration has a use for it, or why there is none.
    fn zfs(config: &StoreConfig, limits: &Limits) -> Result<Usable, Error> {
        let choice = config.choice;
        let zfs = match choice {
            StoreChoice::Dir => Ok(None),
            StoreChoice::Auto | StoreChoice::Zfs => cryopod_zfs::open(limits).map(Some),
        };
        match zfs {
            Ok(zfs) => Ok((zfs, None)),
            // A root that is configured is meant: writing elsewhere would hide the fault.
            Err(error) if choice == StoreChoice::Zfs || config.root.is_some() => Err(Error::NoZfs(error)),
            Err(error) => Ok((None, Some(error.to_string()))),
        }
    }

    /// The journal of operations.
    pub(crate) fn journal(&self) -> Result<Journal, Error> {
        Ok(Journal::open(self.journal_dir())?)
    }

    /// Where that is.
    pub(crate) fn journal_dir(&self) -> PathBuf {
        // Another root is another world, with a journal of its own: tests, a trial beside a running node.
        let own = self.root != Path::new(DEFAULT_ROOT);
        if own { self.root.join("journal") } else { JOURNAL.into() }
    }

    /// Where operations are written down: beside the journal.
    pub(crate) fn audit_dir(&self) -> PathBuf {
        let own = self.root != Path::new(DEFAULT_ROOT);
        if own { self.root.join("audit") } else { audit::DIR.into() }
    }

    /// Standalone containers.
    pub(crate) fn registry(&self) -> Registry {
        Registry::below(&self.root)
    }
}

/// A runtime that no configuration names, called by its path. It is known by its file name: `/opt/x/crun` is a crun.
fn foreign(config: &Config, path: &str) -> Result<OciOptions, Error> {
    let program = Path::new(path);
    let known = program.file_name().and_then(|name| name.to_str()).filter(|_| program.is_absolute());
    let unknown = || Error::NoRuntime {
        name: path.to_owned(),
        configured: config.runtime.named.keys().cloned().collect::<Vec<_>>().join(", "),
    };
    let name = known.ok_or_else(unknown)?;
    let base = OciOptions::from_config(config, &config.runtime.default, NAMESPACE).ok_or_else(unknown)?;
    Ok(OciOptions { name: name.to_owned(), program: program.to_owned(), extra_args: Vec::new(), ..base })
}

/// Refuses verbs that only root can do, before they fail half-way with less to say.
pub(crate) fn need_root(verb: &'static str) -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot { verb }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_of_a_store_are_where_the_shims_have_them_whatever_root_is_given() {
        let config = Config::default().store.wanted().unwrap();
        assert_eq!(config.locks, StoreConfig::default().locks);
    }
}
