//! What containerd's runtime options and cryopod's configuration say about the backend of a container, and the backend
//! itself. Which of the configured ones a pod gets is decided in between, in [`crate::routing`].
//!
//! Two kinds of options arrive (dispatch is on the type URL): `runtimeoptions.v1.Options` with a configuration file or
//! text of ours, and runc's own `Options`, which CRI and Docker send to any runtime – of those the program, the root,
//! the cgroup driver and the owner of the streams are honoured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use cryopod_checkpoint::kind::Kind;
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::config::{Config, Level, Sources};
use cryopod_runtime::oci::{self, OciBackend, OciOptions};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::RuntimeNote;
use crate::called;
use crate::proto::cri::RuntimeOptions;
use crate::rpc::Failure;

/// No backend can be had.
#[derive(Debug, thiserror::Error)]
pub enum BackendsError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] cryopod_runtime::config::ConfigError),
    /// The options of the request are of an unknown kind or broken.
    #[error("runtime options of type {type_url:?}: {reason}")]
    Options {
        /// Type of the options.
        type_url: String,
        /// What is wrong.
        reason: String,
    },
    /// The pod has containers of a runtime that is no longer configured.
    #[error(
        "the pod was routed to runtime '{name}' (by {by}), which has no [runtime.{name}] section any more; configured: \
         {configured}"
    )]
    Gone {
        /// The runtime of the pod.
        name: String,
        /// Who decided that.
        by: String,
        /// The names there are.
        configured: String,
    },
}

impl Failure for BackendsError {
    fn kind(&self) -> Kind {
        match self {
            BackendsError::Config(_) | BackendsError::Options { .. } => Kind::InvalidArgument,
            BackendsError::Gone { .. } => Kind::FailedPrecondition,
        }
    }
}

/// A backend, and what else the options said.
#[derive(Clone)]
pub struct Chosen {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// How `delete` finds it again without the shim.
    pub note: Option<RuntimeNote>,
    /// Where the configuration for this container comes from.
    pub sources: Sources,
    /// Owner of the stream pipes.
    pub io_uid: u32,
    /// Group of the stream pipes.
    pub io_gid: u32,
}

/// Hands out backends; production reads the configuration, tests hand out fakes.
pub trait Backends: Send + Sync {
    /// What `options` mean.
    ///
    /// # Errors
    /// See [`BackendsError`].
    fn read(&self, options: Option<&Any>) -> Result<Arc<Asked>, BackendsError>;

    /// The backend `runtime`, for a container of `namespace` that was created with the options of `asked`.
    fn backend(&self, namespace: &str, asked: &Asked, runtime: &str) -> Chosen;
}

/// What the options of a request mean, before it is known whose container it is.
#[derive(Debug, Default)]
pub struct Asked {
    /// The configuration with the options over it.
    pub config: Config,
    key: Key,
    read: Read,
}

/// Type URL and value of options, as they arrived.
type Key = (String, Vec<u8>);

impl Asked {
    /// Understands options.
    ///
    /// # Errors
    /// See [`BackendsError`].
    pub fn new(options: Option<&Any>) -> Result<Self, BackendsError> {
        let read = read_options(options)?;
        Ok(Self { config: Config::load(&read.sources)?, key: key(options), read })
    }

    /// The runtime that the options choose themselves: then no rule is asked.
    pub fn fixed(&self) -> Option<&str> {
        let program = Path::new(&self.read.runc.binary_name).file_name().and_then(|name| name.to_str());
        program.or_else(|| self.config.fixed.then_some(self.config.runtime.default.as_str()))
    }

    /// How the runtime of that name is called for these options.
    pub fn oci_options(&self, namespace: &str, runtime: &str) -> OciOptions {
        apply(&self.config, &self.read.runc, namespace, runtime)
    }

    /// `backend` with what else the options say.
    pub fn chosen(&self, backend: Arc<dyn Backend>, note: Option<RuntimeNote>) -> Chosen {
        Chosen {
            backend,
            note,
            sources: self.read.sources.clone(),
            io_uid: self.read.runc.io_uid,
            io_gid: self.read.runc.io_gid,
        }
    }
}

fn key(options: Option<&Any>) -> Key {
    options.map(|any| (any.type_url.clone(), any.value.clone())).unwrap_or_default()
}

/// What options say by themselves.
#[derive(Debug, Default)]
struct Read {
    sources: Sources,
    runc: RuncOptions,
}

/// With the runtime that our own name chooses, unless the options bring a text that may choose one.
fn read_options(options: Option<&Any>) -> Result<Read, BackendsError> {
    let mut read = read_request(options)?;
    if read.sources.body.is_none() {
        read.sources.body = called::runtime().map(|name| format!("[runtime]\ndefault = \"{name}\"\n"));
    }
    Ok(read)
}

fn read_request(options: Option<&Any>) -> Result<Read, BackendsError> {
    let Some(any) = options else { return Ok(Read::default()) };
    let failed = |error: &dyn std::fmt::Display| BackendsError::Options {
        type_url: any.type_url.clone(),
        reason: error.to_string(),
    };
    let mut read = Read::default();
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "" if any.value.is_empty() => {}
        "runtimeoptions.v1.Options" => {
            let options = RuntimeOptions::parse_from_bytes(&any.value).map_err(|e| failed(&e))?;
            read.sources.file = (!options.config_path.is_empty()).then(|| options.config_path.into());
            let body = String::from_utf8(options.config_body).map_err(|e| failed(&e))?;
            read.sources.body = (!body.trim().is_empty()).then_some(body);
        }
        "containerd.runc.v1.Options" => {
            read.runc = RuncOptions::parse_from_bytes(&any.value).map_err(|e| failed(&e))?;
        }
        _ => return Err(failed(&"expected runtimeoptions.v1.Options or containerd.runc.v1.Options")),
    }
    Ok(read)
}

/// How the default runtime is called for these options.
///
/// # Errors
/// See [`BackendsError`].
pub fn oci_options(namespace: &str, options: Option<&Any>) -> Result<OciOptions, BackendsError> {
    let asked = Asked::new(options)?;
    Ok(asked.oci_options(namespace, asked.fixed().unwrap_or(&asked.config.runtime.default)))
}

/// How much a pod's shim logs by its configuration. One that cannot be read does not keep the shim from starting: the
/// request that needs it says what is wrong.
pub fn log_level(options: Option<&Any>) -> Level {
    let sources = read_options(options).unwrap_or_default().sources;
    Config::load(&sources).map_or_else(|_| Level::default(), |config| config.log.level)
}

fn apply(config: &Config, runc: &RuncOptions, namespace: &str, name: &str) -> OciOptions {
    let mut options = OciOptions::from_config(config, name, namespace).unwrap_or_else(|| {
        // A program that only the request names: called like any OCI runtime.
        let fallback = OciOptions::from_config(config, "runc", namespace);
        let root = Path::new(oci::ROOT).join(namespace);
        OciOptions { name: name.to_owned(), root, extra_args: Vec::new(), ..fallback.unwrap_or_else(plain) }
    });
    if !runc.binary_name.is_empty() {
        options.program = PathBuf::from(&runc.binary_name);
    }
    if !runc.root.is_empty() {
        options.root = Path::new(&runc.root).join(namespace);
    }
    options.systemd_cgroup |= runc.systemd_cgroup;
    options
}

/// What the built-in defaults say of a runtime.
fn plain() -> OciOptions {
    OciOptions {
        name: "runc".to_owned(),
        program: "runc".into(),
        root: oci::ROOT.into(),
        extra_args: Vec::new(),
        systemd_cgroup: false,
        criu: "criu".into(),
        criu_base: cryopod_runtime::criu::operation::BASE.into(),
        ghost_limit: 1 << 20,
    }
}

/// How `delete` calls the same runtime.
pub fn note(options: &OciOptions) -> RuntimeNote {
    RuntimeNote {
        name: options.name.clone(),
        program: options.program.clone(),
        root: options.root.clone(),
        extra_args: options.extra_args.clone(),
        systemd_cgroup: options.systemd_cgroup,
    }
}

/// The backend that a note of an earlier shim names.
pub fn from_note(note: &RuntimeNote) -> Arc<dyn Backend> {
    Arc::new(noted(note))
}

/// Backend, runtime and version for manifests, e.g. `oci/crun 1.21`; asks the program.
///
/// # Errors
/// When it does not answer.
pub fn version(note: &RuntimeNote, limits: &Limits) -> Result<String, cryopod_runtime::error::Error> {
    noted(note).version(limits)
}

fn noted(note: &RuntimeNote) -> OciBackend {
    OciBackend::new(OciOptions {
        name: note.name.clone(),
        program: note.program.clone(),
        root: note.root.clone(),
        extra_args: note.extra_args.clone(),
        systemd_cgroup: note.systemd_cgroup,
        ..plain()
    })
}

/// Backends as configured. Containers of a pod with the same options share one.
#[derive(Default)]
pub struct Configured {
    known: Mutex<BTreeMap<Key, Known>>,
}

/// What the same options have led to before.
struct Known {
    asked: Arc<Asked>,
    // By the name of the runtime.
    chosen: BTreeMap<String, Chosen>,
}

impl Configured {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        // Insertions only, so a panic leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backends for Configured {
    fn read(&self, options: Option<&Any>) -> Result<Arc<Asked>, BackendsError> {
        if let Some(known) = self.known().get(&key(options)) {
            return Ok(known.asked.clone());
        }
        let asked = Arc::new(Asked::new(options)?);
        let known = Known { asked: asked.clone(), chosen: BTreeMap::new() };
        self.known().insert(asked.key.clone(), known);
        Ok(asked)
    }

    fn backend(&self, namespace: &str, asked: &Asked, runtime: &str) -> Chosen {
        let mut all = self.known();
        let known = all.get_mut(&asked.key);
        if let Some(chosen) = known.as_ref().and_then(|known| known.chosen.get(runtime)) {
            return chosen.clone();
        }
        let options = asked.oci_options(namespace, runtime);
        let note = note(&options);
        let chosen = asked.chosen(Arc::new(OciBackend::new(options)), Some(note));
        if let Some(known) = known {
            known.chosen.insert(runtime.to_owned(), chosen.clone());
        }
        chosen
    }
}

#[cfg(test)]
#[path = "backends/tests.rs"]
mod tests;
