//! Why a verb failed: errors of this room, and those of the rooms below with their kind.
//!
//! Every error has a [`Kind`], which decides the exit code, and where we know it an advice: the next command to
//! type or the thing to change. Messages stand alone; nothing above adds to them.

mod report;

use std::io;
use std::path::PathBuf;

use cryopod_checkpoint::capture::CaptureError;
use cryopod_checkpoint::id::{CheckpointId, NameError};
use cryopod_checkpoint::journal::JournalError;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::manifest::ManifestError;
use cryopod_checkpoint::recover::{RecoverError, TurnError};
use cryopod_checkpoint::restore::PlaceError;
use cryopod_checkpoint::settle::SettleError;
use cryopod_checkpoint::ship::ShipError;
use cryopod_checkpoint::store::{StoreError, zfs_kind};
use cryopod_image::user::UserError;
use cryopod_image::{TemplateError, TemplateName};
use cryopod_runtime::choice::UnknownMode;
use cryopod_runtime::config::ConfigError;
use cryopod_runtime::error::Error as RuntimeError;
use cryopod_shim::control::client::ClientError;

pub(crate) use report::pod_advice;

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    /// A file or directory cannot be written.
    #[error("cannot write {what} {}: {source}", path.display())]
    Write { what: &'static str, path: PathBuf, source: io::Error },
    /// The kernel refused something that concerns this process.
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: io::Error },
    /// `spec` would replace a file.
    #[error("{} exists already", path.display())]
    SpecExists { path: PathBuf },
    /// The bundle is not usable.
    #[error("bundle {}: {reason}", path.display())]
    Bundle { path: PathBuf, reason: String },
    /// A bundle that does not exist.
    #[error("bundle {} does not exist or cannot be read: {source}", path.display())]
    NoBundle { path: PathBuf, source: io::Error },
    /// A container id that cannot be one.
    #[error(
        "'{id}' is no container id: 1 to 128 characters A-Z, a-z, 0-9, '_', '+', '-', '.', beginning with a letter or digit"
    )]
    BadContainerId { id: String },
    /// No such standalone container.
    #[error("container '{id}' does not exist")]
    NoContainer { id: String },
    /// The name is taken.
    #[error("container '{id}' exists already")]
    ContainerExists { id: String },
    /// The container is in a state that does not allow it.
    #[error("container '{id}' is {status}, so it cannot {verb}")]
    ContainerState { id: String, status: &'static str, verb: &'static str, advice: String },
    /// The state of a container on disk contradicts itself.
    #[error("{} is damaged: {reason}", path.display())]
    StateDamaged { path: PathBuf, reason: String },
    /// A runtime that is neither configured nor a path.
    #[error("there is no runtime '{name}'; configured: {configured}")]
    NoRuntime { name: String, configured: String },
    /// A signal nobody knows.
    #[error("'{name}' is no signal")]
    BadSignal { name: String },
    /// A verb for standalone containers was tried on a pod.
    #[error(
        "'{name}' is a pod of containerd (namespace {namespace}), whose containers kubelet and containerd manage"
    )]
    IsPod { name: String, namespace: String, instead: String },
    /// A pod without such a container.
    #[error("pod '{pod}' has no container '{name}'; it has {there}")]
    NoSuchContainer { pod: String, name: String, there: String },
    /// One container is meant, and there are several.
    #[error("pod '{pod}' has several containers: {there}")]
    WhichContainer { pod: String, there: String },
    /// No container is in the state that a verb needs.
    #[error("no container of pod '{pod}' is {state}, so there is nothing to {verb}")]
    PodState { pod: String, state: String, verb: &'static str },
    /// Neither a container nor a pod.
    #[error("no standalone container and no running pod is called '{name}'")]
    NoTarget { name: String },
    /// More than one pod or checkpoint fits.
    #[error("'{name}' fits more than one: {matches}")]
    Ambiguous { name: String, matches: String },
    /// Neither a checkpoint nor something that has one.
    #[error("there is no checkpoint '{name}', and no container or pod of that name has one")]
    NoCheckpoint { name: String },
    /// What a sender calls its checkpoints says nothing about those of this node.
    #[error("'{name}' fits only imported checkpoints, which are meant by their ids alone: {ids}")]
    OnlyImported { name: String, ids: String },
    /// A stream would go to a terminal.
    #[error("an export is binary and standard output is a terminal")]
    BinaryToTerminal,
    /// A stream would come from a terminal.
    #[error("nothing to import: standard input is a terminal")]
    ImportFromTerminal,
    /// Rights.
    #[error("'cryopod {verb}' needs root: it changes cgroups, namespaces and mounts")]
    NotRoot { verb: &'static str },
    /// What the process that stays with a detached container reported.
    #[error("{message}")]
    Relayed { kind: Kind, message: String, advice: Option<String> },
    /// The process that stays with a detached container ended without a word.
    #[error("the monitor of container '{id}' ended before the container was ready; its log: {}", log.display())]
    MonitorDied { id: String, log: PathBuf },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration cannot be written as TOML.
    #[error("cannot print the configuration: {0}")]
    DumpConfig(#[source] toml::ser::Error),
    /// ZFS is asked for and not there.
    #[error("the configuration asks for ZFS: {0}")]
    NoZfs(#[source] cryopod_zfs::DetectError),
    /// `store.zfs.root` is no dataset name.
    #[error("store.zfs.root: {0}")]
    StoreRoot(#[source] cryopod_zfs::NameError),
    /// A checkpoint id that cannot be one.
    #[error(transparent)]
    CheckpointName(NameError),
    /// A file is in the way.
    #[error("{} exists already", path.display())]
    FileExists { path: PathBuf },
    /// `--container` names a part of something that has none.
    #[error("'{id}' is a standalone container and no pod, so it has no containers to choose from")]
    NotAPod { id: String },
    /// Pods come back through kubelet.
    #[error("checkpoint {id} is of a pod, or of a container that lives in the namespaces of one")]
    RestoresAsPod { id: CheckpointId },
    /// The configuration in an import is its sender's.
    #[error(
        "checkpoint {id} came in a stream: its configuration (hooks, mounts, namespaces) is its sender's word, and root would run it"
    )]
    NeedsBundle { id: CheckpointId },
    /// The runtime in a manifest is not configured here.
    #[error("checkpoint {id} names runtime '{name}', which is not configured here; configured: {configured}")]
    RecordedRuntime { id: CheckpointId, name: String, configured: String },
    /// A volume that would be overwritten.
    #[error("volume {name} would be restored into {}, which is not empty", path.display())]
    VolumeInUse { name: String, path: PathBuf },
    /// A disk could not be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An export or import.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// A shim.
    #[error(transparent)]
    Shim(#[from] ClientError),
    /// What a shim sent is no manifest.
    #[error("the shim's answer: {0}")]
    Manifest(#[source] ManifestError),
    /// Recovery could not look.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A container that cannot be captured now.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// ZFS.
    #[error(transparent)]
    Zfs(#[from] cryopod_zfs::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The annotation that chooses what is captured.
    #[error(transparent)]
    Mode(#[from] UnknownMode),
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// An image that names no command, and nobody else does.
    #[error("the image of template '{template}' names no command")]
    NoCommand { template: TemplateName },
    /// A user that the image does not have.
    #[error("template '{template}': {reason}")]
    TemplateUser { template: TemplateName, reason: UserError },
    /// Settling.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// A backend.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Some of several things failed.
    #[error("{failed} of {all} failed: {reasons}")]
    Several { failed: usize, all: usize, worst: Kind, reasons: String },
}

impl Error {
    /// How a caller should react; decides the exit code.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Stdout(source)
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::System { source, .. }
            | Self::NoBundle { source, .. } => Kind::from(source),
            Self::SpecExists { .. } | Self::FileExists { .. } | Self::ContainerExists { .. } => {
                Kind::AlreadyExists
            }
            Self::Bundle { .. }
            | Self::BadContainerId { .. }
            | Self::BadSignal { .. }
            | Self::NoRuntime { .. }
            | Self::StoreRoot(_)
            | Self::CheckpointName(_)
            | Self::NotAPod { .. }
            | Self::Mode(_)
            | Self::NoCommand { .. }
            | Self::Ambiguous { .. }
            | Self::OnlyImported { .. }
            | Self::WhichContainer { .. }
            | Self::BinaryToTerminal
            | Self::ImportFromTerminal => Kind::InvalidArgument,
            Self::NoContainer { .. }
            | Self::NoTarget { .. }
            | Self::NoSuchContainer { .. }
            | Self::NoCheckpoint { .. } => Kind::NotFound,
            Self::ContainerState { .. }
            | Self::IsPod { .. }
            | Self::PodState { .. }
            | Self::RestoresAsPod { .. }
            | Self::NeedsBundle { .. }
            | Self::RecordedRuntime { .. }
            | Self::TemplateUser { .. }
            | Self::VolumeInUse { .. } => Kind::FailedPrecondition,
            Self::StateDamaged { .. } => Kind::DataLoss,
            Self::NotRoot { .. } => Kind::PermissionDenied,
            Self::Relayed { kind, .. } => *kind,
            Self::MonitorDied { .. } | Self::DumpConfig(_) => Kind::Internal,
            Self::Runtime(error) => error.kind(),
            Self::NoZfs(_) => Kind::FailedPrecondition,
            Self::Place(error) => error.kind(),
            Self::Ship(error) => error.kind(),
            Self::Shim(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Recover(error) => error.kind(),
            Self::Turn(error) => error.kind(),
            Self::Template(error) => error.kind(),
            Self::Zfs(error) => zfs_kind(error),
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Capture(error) => error.kind(),
            Self::Settle(error) => error.kind(),
            Self::Config(ConfigError::Read { source, .. }) => Kind::from(source),
            Self::Config(_) => Kind::InvalidArgument,
            Self::Several { worst, .. } => *worst,
        }
    }
}
