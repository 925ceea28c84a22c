//! Which runtime this pod gets: decided with the first container that a runtime makes for it, and kept for all others.
//!
//! Only then everything is known: the options of the handler, which the Sandbox API does not pass, and the image. With
//! a pause container that is the first one, so no image is known, and no label either: specs do not have them. What
//! was decided stands, whatever the rules say later or of another image: containers of a pod share namespaces, and are
//! captured at one instant, by one runtime. Options that choose the runtime themselves neither ask nor decide anything.
//!
//! ```text
//! <bundle of the pod>/routing.json   Note, version 1, replaced atomically; at most MAX_BYTES
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryopod_runtime::routing::{self, Subject};
use cryopod_runtime::spec::annotation;
use serde::{Deserialize, Serialize};

use crate::backends::{Asked, BackendsError};
use crate::bundle::{self, Brief, BundleError};
use crate::error::TaskError;

const FILE: &str = "routing.json";
const VERSION: u32 = 1;

/// kubelet allows 256 KiB of annotations, each character of which may take six in JSON; other clients send what gRPC lets
/// through.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What was decided for a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    /// Name of the runtime.
    backend: String,
    /// Who decided: file and line of a rule, or `runtime.default`.
    by: String,
}

/// What the bundle of a pod says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    /// What is known of the pod; large annotations are not kept in the memory of every shim.
    subject: Subject,
    decision: Option<Decision>,
}

/// The decision for one pod.
pub struct Routing {
    home: PathBuf,
    // Where the pod has no bundle, this alone keeps it. Held while it is made.
    decision: Mutex<Option<Decision>>,
}

impl Routing {
    /// Of the pod whose bundle is `home`, which an earlier shim may have decided.
    pub fn of(home: &Path) -> Self {
        Self { home: home.to_owned(), decision: Mutex::default() }
    }

    /// Notes what the Sandbox API says of the pod. Of a pod without one the first container says it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn introduce(&self, subject: Subject) -> Result<(), BundleError> {
        self.write(&Note { version: VERSION, subject, decision: None })
    }

    /// Name of the runtime for container `id` of the pod.
    ///
    /// # Errors
    /// When the note cannot be read or written, or the runtime of the pod is no longer configured.
    pub fn choose(&self, asked: &Asked, brief: &Brief, id: &str, group: &str) -> Result<String, TaskError> {
        if let Some(fixed) = asked.fixed() {
            return Ok(fixed.to_owned());
        }
        // Replaced as a whole, so a panic leaves the old value.
        let mut kept = self.decision.lock().unwrap_or_else(PoisonError::into_inner);
        let image_matters = asked.config.routing.iter().any(|rule| rule.image.is_some());
        if let Some(decision) = kept.as_ref().filter(|_| !image_matters) {
            return stands(decision, asked);
        }
        let note = match self.read() {
            // Only to tell what the rules would say of this container.
            Err(error) if kept.is_some() => {
                tracing::warn!(id, %error, "what is noted of the pod cannot be read");
                None
            }
            read => read?,
        };
        let noted = note.as_ref().and_then(|note| note.decision.clone());
        let pod = note.map_or_else(|| said(brief, group), |note| note.subject);
        let subject = Subject { image: image(brief), ..pod };
        let verdict = routing::decide(&asked.config, &subject);
        if let Some(decision) = kept.clone().or(noted) {
            if decision.backend != verdict.backend {
                let (runtime, by, image) = (&decision.backend, &decision.by, &subject.image);
                let (other, rule) = (verdict.backend, verdict.by());
                tracing::warn!(
                    id,
                    image,
                    runtime,
                    by,
                    other,
                    rule,
                    "the pod keeps its runtime, although this container by itself would have another"
                );
            }
            return stands(kept.insert(decision), asked);
        }
        let decision = Decision { backend: verdict.backend.to_owned(), by: verdict.by() };
        tracing::info!(id, runtime = decision.backend, by = decision.by, "routed");
        let pod = Subject { image: None, ..subject };
        self.write(&Note { version: VERSION, subject: pod, decision: Some(decision.clone()) })?;
        Ok(kept.insert(decision).backend.clone())
    }

    fn path(&self) -> PathBuf {
        self.home.join(FILE)
    }

    fn read(&self) -> Result<Option<Note>, BundleError> {
        if !self.has_bundle() {
            return Ok(None);
        }
        let path = self.path();
        let bytes = match bundle::read_bounded(&path, MAX_BYTES) {
            Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        let note: Note = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Parse { path: path.clone(), source })?;
        if note.version != VERSION {
            return Err(BundleError::Version { path, found: note.version });
        }
        Ok(Some(note))
    }

    fn write(&self, note: &Note) -> Result<(), BundleError> {
        if !self.has_bundle() {
            return Ok(());
        }
        bundle::write_atomically(&self.path(), note)
    }

    /// A group of `ctr` may outlive the task that it is named after.
    fn has_bundle(&self) -> bool {
        !self.home.as_os_str().is_empty() && self.home.is_dir()
    }
}

/// The runtime that was decided, as long as it is configured.
fn stands(decision: &Decision, asked: &Asked) -> Result<String, TaskError> {
    let Decision { backend: name, by } = decision.clone();
    match asked.config.runtime(&name) {
        Some(_) => Ok(name),
        None => Err(BackendsError::Gone { name, by, configured: asked.config.runtimes() }.into()),
    }
}

/// What a spec says of the pod of its container.
fn said(brief: &Brief, group: &str) -> Subject {
    let pod = brief.pod(group);
    Subject {
        namespace: Some(pod.namespace).filter(|namespace| !namespace.is_empty()),
        pod: Some(pod.name),
        annotations: brief.annotations(),
        ..Subject::default()
    }
}

/// The image of a container; a pause container's is the node's and no pod's.
fn image(brief: &Brief) -> Option<String> {
    brief.annotation(annotation::IMAGE_NAME).filter(|_| !brief.is_sandbox()).map(str::to_owned)
}
