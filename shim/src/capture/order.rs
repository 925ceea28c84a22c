//! What is to be captured, and capturing it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::capture::{self, CaptureOptions, Mode, PreDump, Taken};
use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::progress::Progress;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_checkpoint::target::{PodIdentity, TcpPolicy};
use cryopod_command::{Cancel, Limits};
use cryopod_runtime::backend::Backend;
use cryopod_runtime::choice;
use cryopod_runtime::config::{CheckpointSection, Config, Sources, VolumePolicy};
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::pod_target::PodTarget;
use cryopod_runtime::spec::annotation;
use cryopod_runtime::{node_facts, preflight};

use super::{DoorError, Node};
use crate::backends;
use crate::bundle::{Brief, RuntimeNote};

/// A container that runs or is paused.
#[derive(Clone)]
pub struct Subject {
    /// Container id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// PID of its init.
    pub pid: u32,
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// How the runtime is called.
    pub note: Option<RuntimeNote>,
}

/// One capture.
#[derive(Clone)]
pub struct Order {
    /// Who is captured.
    pub pod: PodIdentity,
    /// In start order.
    pub subjects: Vec<Subject>,
    /// Where the configuration comes from.
    pub sources: Sources,
    /// What the caller chose.
    pub choices: Choices,
    /// One directory of images per container, without parents.
    pub flat: bool,
    /// The containers were paused by containerd for this very capture: they run again when it is taken.
    pub ends_pause: bool,
}

/// What a caller may choose; `None` for what the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Its id.
    pub id: Option<CheckpointId>,
    /// Memory or disk.
    pub mode: Option<Mode>,
    /// Leave the containers stopped.
    pub exit: bool,
    /// Established TCP connections.
    pub tcp: Option<TcpPolicy>,
    /// Memory rounds before the freeze.
    pub pre_dump: PreDump,
    /// Writable volumes without annotation.
    pub volumes: Option<VolumePolicy>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
    /// Longest capture.
    pub timeout: Option<Duration>,
    /// Who asked a cluster for it.
    pub requested_by: Option<String>,
}

impl Choices {
    /// Understands the words of a request; empty words choose nothing.
    ///
    /// # Errors
    /// Naming the word that is unknown.
    pub fn parse(id: &str, mode: &str, tcp: &str, pre_dump: &str, volumes: &str) -> Result<Self, DoorError> {
        let choice =
            |what, value: &str, expected| DoorError::Choice { what, value: value.to_owned(), expected };
        Ok(Self {
            id: if id.is_empty() { None } else { Some(id.parse()?) },
            mode: parse_mode("mode", mode)?,
            tcp: match tcp {
                "" => None,
                "keep" => Some(TcpPolicy::Keep),
                "close" => Some(TcpPolicy::Close),
                other => return Err(choice("tcp", other, "keep or close")),
            },
            pre_dump: match pre_dump {
                "" | "auto" => PreDump::Auto,
                "never" => PreDump::Never,
                other => return Err(choice("pre_dump", other, "auto or never")),
            },
            volumes: match volumes {
                "" => None,
                "capture" => Some(VolumePolicy::Capture),
                "skip" => Some(VolumePolicy::Skip),
                "refuse" => Some(VolumePolicy::Refuse),
                other => return Err(choice("volumes", other, "capture, skip or refuse")),
            },
            ..Self::default()
        })
    }

    /// Lets the pod's annotation decide what the caller did not.
    ///
    /// # Errors
    /// When the annotation has an unknown value.
    pub fn or_annotated(mut self, brief: &Brief) -> Result<Self, DoorError> {
        if self.mode.is_none() {
            let word = brief.annotation(annotation::CHECKPOINT_MODE).unwrap_or_default();
            self.mode = parse_mode(annotation::CHECKPOINT_MODE, word)?;
        }
        Ok(self)
    }

    /// Mode and TCP connections, where the configuration decides what nobody has chosen.
    fn or_configured(&self, config: &CheckpointSection) -> (Mode, TcpPolicy) {
        (self.mode.unwrap_or_else(|| config.mode.into()), self.tcp.unwrap_or(config.tcp))
    }

    /// The limits of this capture under this configuration.
    pub fn limits(&self, config: &Config, cancel: &Cancel) -> Limits {
        let within = self.timeout.unwrap_or_else(|| config.checkpoint.timeout.into());
        Limits::within(within).with_cancel(cancel.clone())
    }
}

fn parse_mode(what: &'static str, word: &str) -> Result<Option<Mode>, DoorError> {
    if word.is_empty() {
        return Ok(None);
    }
    let unknown = || DoorError::Choice { what, value: word.to_owned(), expected: "full, disk or auto" };
    choice::parse_mode(word).ok_or_else(unknown).map(Some)
}

/// The limits of a capture whose caller sets no time.
pub fn limits(config: &Config, cancel: &Cancel) -> Limits {
    Choices::default().limits(config, cancel)
}

/// Captures; the containers run again, the checkpoint is not visible yet.
///
/// # Errors
/// See [`DoorError`]; the containers run as before.
pub fn take(
    node: &Node,
    order: &Order,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Taken, DoorError> {
    node.recover(limits);
    let (first, rest) = order
        .subjects
        .split_first()
        .ok_or_else(|| DoorError::Nothing(format!("pod {} has no running container", order.pod.name)))?;
    if let Some(other) = rest.iter().find(|subject| subject.note != first.note) {
        return Err(DoorError::Mixed { first: first.id.clone(), second: other.id.clone() });
    }
    let backend = first.backend.clone();
    let config = &node.config;
    let runtime = first
        .note
        .as_ref()
        .map_or_else(|| Ok(backend.name().to_owned()), |note| backends::version(note, limits))?;
    let running: Vec<Running<'_>> = order
        .subjects
        .iter()
        .map(|subject| Running { id: &subject.id, bundle: &subject.bundle, rootfs: None, pid: subject.pid })
        .collect();
    let mut volumes = config.volumes.clone();
    if let Some(policy) = order.choices.volumes {
        (volumes.empty_dir, volumes.other) = (policy, policy);
    }
    let mut members = members::describe(&running, &*backend, &runtime, &volumes)?;
    if order.ends_pause {
        members.iter_mut().for_each(|member| member.was_paused = false);
    }
    let mut options = CaptureOptions::new(node_facts::read(&config.criu.path, limits), progress);
    options.id.clone_from(&order.choices.id);
    (options.mode, options.tcp) = order.choices.or_configured(&config.checkpoint);
    options.exit = order.choices.exit;
    options.pre_dump = order.choices.pre_dump;
    options.pre_dump_min_rss = config.checkpoint.pre_dump_min_rss.0;
    options.flat = order.flat;
    options.labels.clone_from(&order.choices.labels);
    options.requested_by.clone_from(&order.choices.requested_by);
    options.copy_limit = config.checkpoint.volume_copy_limit.0;
    options.memory_preflight = preflight::memory(&members, &config.criu.path, limits).and_then(|()| {
        if backend.capabilities().memory_checkpoint {
            return Ok(());
        }
        let text = format!("{} cannot dump memory", backend.name());
        Err(Refusal::new("backend-memory", text, "use crun or runc, or checkpoint the disk only"))
    });
    let target = PodTarget::new(order.pod.clone(), members, backend);
    Ok(capture::take(Arc::new(target), &node.store, &node.journal, options, limits)?)
}

#[cfg(test)]
mod tests {
    use cryopod_runtime::config::{CheckpointMode, Seconds};

    use super::*;

    /// What is captured in which way, and how long that may take.
    fn decide(mode: &str, tcp: &str, annotations: &str, config: &CheckpointSection) -> (Mode, TcpPolicy) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), format!("{{\"annotations\":{annotations}}}")).unwrap();
        let choices = Choices::parse("", mode, tcp, "", "").unwrap();
        choices.or_annotated(&Brief::read(dir.path()).unwrap()).unwrap().or_configured(config)
    }

    #[test]
    fn the_caller_decides_before_the_annotation_and_that_before_the_configuration() {
        let annotated = r#"{"cryopod.dev/checkpoint-mode":"full"}"#;
        let configured = CheckpointSection {
            mode: CheckpointMode::Disk,
            tcp: TcpPolicy::Close,
            ..CheckpointSection::default()
        };
        assert_eq!(decide("auto", "keep", annotated, &configured), (Mode::Auto, TcpPolicy::Keep));
        assert_eq!(decide("", "", annotated, &configured), (Mode::Full, TcpPolicy::Close));
        assert_eq!(decide("", "", "{}", &configured), (Mode::Disk, TcpPolicy::Close));
        assert_eq!(decide("", "", "{}", &CheckpointSection::default()), (Mode::Auto, TcpPolicy::Keep));
    }

    #[test]
    fn an_unknown_annotation_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let spec = r#"{"annotations":{"cryopod.dev/checkpoint-mode":"memory"}}"#;
        std::fs::write(dir.path().join("config.json"), spec).unwrap();
        let brief = Brief::read(dir.path()).unwrap();
        let error = Choices::default().or_annotated(&brief).unwrap_err().to_string();
        assert!(error.contains("cryopod.dev/checkpoint-mode") && error.contains("memory"), "{error}");
    }

    #[test]
    fn the_time_is_the_callers_else_the_configured_one() {
        let mut config = Config::default();
        config.checkpoint.timeout = Seconds(7);
        let left = |choices: Choices| choices.limits(&config, &Cancel::new()).remaining().unwrap().as_secs();
        assert!(left(Choices::default()) <= 7);
        let longer = Choices { timeout: Some(Duration::from_secs(1000)), ..Choices::default() };
        assert!(left(longer) > 900);
    }

    #[test]
    fn empty_words_choose_nothing_and_unknown_ones_are_named() {
        let none = Choices::parse("", "", "", "", "").unwrap();
        assert!(none.id.is_none() && none.mode.is_none() && none.tcp.is_none() && none.volumes.is_none());
        let some = Choices::parse("a-1", "disk", "close", "never", "skip").unwrap();
        assert_eq!(
            (some.mode, some.tcp, some.pre_dump),
            (Some(Mode::Disk), Some(TcpPolicy::Close), PreDump::Never)
        );
        for wrong in [
            ("X Y", "", "", "", ""),
            ("", "all", "", "", ""),
            ("", "", "drop", "", ""),
            ("", "", "", "2", ""),
        ] {
            assert!(Choices::parse(wrong.0, wrong.1, wrong.2, wrong.3, wrong.4).is_err(), "{wrong:?}");
        }
    }
}
