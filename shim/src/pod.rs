//! The pod that this shim serves: its containers, and when the shim may go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryopod_checkpoint::target::PodIdentity;
use protobuf::well_known_types::any::Any;
use tokio::sync::watch;

use crate::backends::Backends;
use crate::bootstrap::is_safe_id;
use crate::bundle::Brief;
use crate::container::{Container, Deleted, Launch, New, Shared};
use crate::error::TaskError;
use crate::rpc::Failure;

/// All containers of one shim.
pub struct Pod {
    shared: Arc<Shared>,
    backends: Box<dyn Backends>,
    containers: Mutex<Containers>,
    quit: watch::Sender<bool>,
}

/// Guarded by `Pod::containers`, which is held for map operations only.
#[derive(Default)]
struct Containers {
    by_id: BTreeMap<String, Arc<Container>>,
    identity: Option<PodIdentity>,
    closed: bool,
}

impl Pod {
    /// An empty pod.
    pub fn new(shared: Shared, backends: Box<dyn Backends>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(shared),
            backends,
            containers: Mutex::default(),
            quit: watch::Sender::new(false),
        })
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        // Map operations do not panic half-way.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the containers share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The container `id`.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        self.containers().by_id.get(id).cloned().ok_or_else(|| TaskError::NoContainer { id: id.to_owned() })
    }

    /// All containers, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.containers().by_id.values().cloned().collect()
    }

    /// Who this pod is, as far as containers said.
    pub fn identity(&self) -> PodIdentity {
        let id = self.shared.group.clone();
        self.containers().identity.clone().unwrap_or_else(|| PodIdentity {
            name: id.clone(),
            id,
            ..Default::default()
        })
    }

    /// Says who this pod is, before any container does.
    pub fn identify(&self, identity: PodIdentity) {
        self.containers().identity = Some(identity);
    }

    /// Makes a container; PID of its init, 0 for a restore.
    ///
    /// # Errors
    /// See [`TaskError`]; then nothing of it is left.
    pub async fn create(&self, new: New, options: Option<&Any>) -> Result<u32, TaskError> {
        if !is_safe_id(&new.id) {
            return Err(TaskError::BadId(new.id));
        }
        let brief = Brief::read(&new.bundle)?;
        let chosen = self.backends.choose(&self.shared.namespace, options)?;
        let identity = brief.pod(&self.shared.group);
        let container = Container::reserve(&new, brief, chosen, Launch::Fresh, self.shared.clone()).await?;
        {
            let mut containers = self.containers();
            if containers.closed {
                return Err(TaskError::ShuttingDown);
            }
            if containers.by_id.contains_key(&new.id) {
                return Err(TaskError::Exists { what: "container", id: new.id });
            }
            containers.identity.get_or_insert(identity);
            containers.by_id.insert(new.id.clone(), container.clone());
        }
        let id = new.id.clone();
        let result = container.create(new).await;
        if result.is_err() {
            self.containers().by_id.remove(&id);
        }
        result
    }

    /// Removes a container or an exec.
    ///
    /// # Errors
    /// See [`Container::delete`].
    pub async fn delete(&self, id: &str, exec_id: &str) -> Result<Deleted, TaskError> {
        let container = self.container(id)?;
        if !exec_id.is_empty() {
            return container.delete_exec(exec_id).await;
        }
        let deleted = container.delete().await?;
        self.containers().by_id.remove(id);
        Ok(deleted)
    }

    /// Ends the shim if no container is left; whether it will end.
    pub fn shut_down_if_empty(&self) -> bool {
        {
            let mut containers = self.containers();
            if !containers.by_id.is_empty() {
                return false;
            }
            containers.closed = true;
        }
        self.quit.send_replace(true);
        true
    }

    /// Waits until the shim is to end.
    pub async fn ended(&self) {
        self.quit.subscribe().wait_for(|quit| *quit).await.ok();
    }

    /// Kills and removes every container, for a shim that was told to end by a signal.
    pub async fn remove_all(&self) {
        self.containers().closed = true;
        for container in self.all() {
            container.kill("", libc::SIGKILL, true).await.ok();
            if let Ok(mut done) = container.done("") {
                let ended = done.wait_for(Option::is_some);
                drop(tokio::time::timeout(std::time::Duration::from_secs(2), ended).await);
            }
            if let Err(error) = self.delete(&container.id, "").await {
                tracing::warn!(id = container.id, %error, kind = ?error.kind(), "not removed at shutdown");
            }
        }
        self.quit.send_replace(true);
    }

    /// The state of the pod as text, for SIGUSR1.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for container in self.all() {
            let summary = container.summary();
            text.push_str(&format!(
                "{} ({}): {}, pid {}, {} execs; ",
                summary.id,
                summary.name,
                summary.state.name(),
                summary.pid,
                summary.execs
            ));
        }
        text
    }
}
