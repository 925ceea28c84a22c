//! Which backend runs a container, from containerd's runtime options and cryopod's configuration.
//!
//! Two kinds of options arrive (dispatch is on the type URL): `runtimeoptions.v1.Options` with a configuration file or
//! text of ours, and runc's own `Options`, which CRI and Docker send to any runtime – of those the program, the root,
//! the cgroup driver and the owner of the streams are honoured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use cryopod_checkpoint::kind::Kind;
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::config::{Config, Level, Sources};
use cryopod_runtime::oci::{self, OciBackend, OciOptions};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::RuntimeNote;
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
}

impl Failure for BackendsError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
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

/// Chooses backends; production reads the configuration, tests hand out fakes.
pub trait Backends: Send + Sync {
    /// The backend for a container of `namespace` that was created with `options`.
    ///
    /// # Errors
    /// See [`BackendsError`].
    fn choose(&self, namespace: &str, options: Option<&Any>) -> Result<Chosen, BackendsError>;
}

/// What the options of a request mean.
#[derive(Debug, Default)]
struct Read {
    sources: Sources,
    runc: RuncOptions,
}

fn read_options(options: Option<&Any>) -> Result<Read, BackendsError> {
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

/// How the runtime is called for these options.
///
/// # Errors
/// See [`BackendsError`].
pub fn oci_options(namespace: &str, options: Option<&Any>) -> Result<OciOptions, BackendsError> {
    let read = read_options(options)?;
    let config = Config::load(&read.sources)?;
    Ok(apply(&config, &read.runc, namespace))
}

/// How much a pod's shim logs by its configuration. One that cannot be read does not keep the shim from starting: the
/// request that needs it says what is wrong.
pub fn log_level(options: Option<&Any>) -> Level {
    let sources = read_options(options).unwrap_or_default().sources;
    Config::load(&sources).map_or_else(|_| Level::default(), |config| config.log.level)
}

fn apply(config: &Config, runc: &RuncOptions, namespace: &str) -> OciOptions {
    let program = Path::new(&runc.binary_name);
    let name = match program.file_name().and_then(|name| name.to_str()) {
        Some(name) => name,
        None => &config.runtime.default,
    };
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

fn note(options: &OciOptions) -> RuntimeNote {
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
    // By type URL and value of the options, as they arrived.
    known: Mutex<BTreeMap<(String, Vec<u8>), Chosen>>,
}

impl Backends for Configured {
    fn choose(&self, namespace: &str, options: Option<&Any>) -> Result<Chosen, BackendsError> {
        let key = options.map(|any| (any.type_url.clone(), any.value.clone())).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = known.get(&key) {
            return Ok(chosen.clone());
        }
        let read = read_options(options)?;
        let oci = apply(&Config::load(&read.sources)?, &read.runc, namespace);
        let chosen = Chosen {
            note: Some(note(&oci)),
            backend: Arc::new(OciBackend::new(oci)),
            sources: read.sources,
            io_uid: read.runc.io_uid,
            io_gid: read.runc.io_gid,
        };
        known.insert(key, chosen.clone());
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, message: &impl Message) -> Any {
        let mut any = Any::new();
        any.type_url = type_url.to_owned();
        any.value = message.write_to_bytes().unwrap();
        any
    }

    #[test]
    fn runcs_options_choose_program_root_and_cgroup_driver() {
        let runc = RuncOptions {
            binary_name: "/opt/bin/crun".to_owned(),
            root: "/run/custom".to_owned(),
            systemd_cgroup: true,
            ..RuncOptions::default()
        };
        let options = apply(
            &Config::load(&Sources { directory: Some("/nonexistent".into()), ..Sources::default() }).unwrap(),
            &runc,
            "k8s.io",
        );
        assert_eq!((options.name.as_str(), options.program.as_path()), ("crun", Path::new("/opt/bin/crun")));
        assert_eq!(options.root, Path::new("/run/custom/k8s.io"));
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn a_runtime_that_nobody_configured_is_called_all_the_same() {
        let runc = RuncOptions { binary_name: "/opt/youki".to_owned(), ..RuncOptions::default() };
        let options = apply(&Config::default(), &runc, "moby");
        assert_eq!((options.name.as_str(), options.program.as_path()), ("youki", Path::new("/opt/youki")));
    }

    #[test]
    fn our_own_options_carry_a_configuration() {
        let ours = RuntimeOptions {
            config_body: b"[runtime]\ndefault = \"runc\"\n".to_vec(),
            ..RuntimeOptions::default()
        };
        let read = read_options(Some(&any("runtimeoptions.v1.Options", &ours))).unwrap();
        assert_eq!(read.sources.body.as_deref(), Some("[runtime]\ndefault = \"runc\"\n"));
        let prefixed =
            read_options(Some(&any("type.googleapis.com/runtimeoptions.v1.Options", &ours))).unwrap();
        assert!(prefixed.sources.body.is_some());
    }

    #[test]
    fn unknown_and_broken_options_are_refused_with_their_type() {
        let mut strange = Any::new();
        strange.type_url = "kata.Options".to_owned();
        assert!(read_options(Some(&strange)).unwrap_err().to_string().contains("kata.Options"));
        strange.type_url = "containerd.runc.v1.Options".to_owned();
        strange.value = vec![0xff];
        assert!(read_options(Some(&strange)).is_err());
        assert!(read_options(None).unwrap().sources.body.is_none());
    }
}
