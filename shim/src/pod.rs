//! The pod that this shim serves: its containers, and when the shim may go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cryopod_checkpoint::target::PodIdentity;
use cryopod_command::{Cancel, Limits};
use protobuf::well_known_types::any::Any;
use tokio::sync::watch;

use crate::backends::Backends;
use crate::bootstrap::is_safe_id;
use crate::bundle::Brief;
use crate::capture::order::{self, Choices, Order};
use crate::capture::stored::{self, Stored};
use crate::capture::{DoorError, Node, Watch, chosen, place};
use crate::container::{Container, Deleted, New, Shared, end};
use crate::discovery;
use crate::error::TaskError;
use crate::error::blocking;
use crate::process::state::State;
use crate::routing::Routing;
use crate::rpc::Failure;
use crate::sandbox::{Sandbox, SandboxError};

/// Opening the store asks the pool a few questions.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// All containers of one shim.
pub struct Pod {
    shared: Arc<Shared>,
    backends: Box<dyn Backends>,
    routing: Routing,
    containers: Mutex<Containers>,
    watch: Arc<Watch>,
    sandbox: OnceLock<Arc<Sandbox>>,
    quit: watch::Sender<bool>,
}

/// Guarded by `Pod::containers`, which is held for map operations only.
#[derive(Default)]
struct Containers {
    by_id: BTreeMap<String, Arc<Container>>,
    identity: Option<PodIdentity>,
    created: u64,
    closed: bool,
}

impl Pod {
    /// An empty pod.
    pub fn new(shared: Shared, backends: Box<dyn Backends>) -> Arc<Self> {
        Arc::new(Self {
            routing: Routing::of(&shared.home),
            shared: Arc::new(shared),
            backends,
            containers: Mutex::default(),
            watch: Arc::default(),
            sandbox: OnceLock::new(),
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

    /// The container `id`, once it is created.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        let created = |container: &Arc<Container>| container.init_state() != State::Creating;
        let missing = || TaskError::NoContainer { id: id.to_owned() };
        self.any(id).filter(created).ok_or_else(missing)
    }

    fn any(&self, id: &str) -> Option<Arc<Container>> {
        self.containers().by_id.get(id).cloned()
    }

    /// The sandbox, if it was made through the Sandbox API.
    pub fn sandbox(&self) -> Option<Arc<Sandbox>> {
        self.sandbox.get().cloned()
    }

    /// Takes the sandbox that was made through the Sandbox API.
    ///
    /// # Errors
    /// When there is one already.
    pub fn set_sandbox(&self, sandbox: Arc<Sandbox>) -> Result<(), SandboxError> {
        self.sandbox.set(sandbox).map_err(|second| SandboxError::Exists(second.id().to_owned()))
    }

    /// Progress of a running capture.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Every container, in order of creation.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.containers().by_id.values().cloned().collect();
        all.sort_by_key(|container| container.number);
        all
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

    /// Says who this pod is, before any container does; whoever looks for its shim finds it by its names from now on.
    pub fn identify(&self, identity: PodIdentity) {
        discovery::identify(Path::new(discovery::DIR), &self.shared.group, &self.shared.namespace, &identity);
        self.containers().identity = Some(identity);
    }

    /// Which runtime its containers get.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Makes a container; PID of its init, 0 for a restore.
    ///
    /// # Errors
    /// See [`TaskError`]; then nothing of it is left.
    pub async fn create(&self, mut new: New, options: Option<&Any>) -> Result<u32, TaskError> {
        if !is_safe_id(&new.id) {
            return Err(TaskError::BadId(new.id));
        }
        let brief = Brief::read(&new.bundle)?;
        let asked = self.backends.read(options)?;
        let runtime = self.routing.choose(&asked, &brief, &new.id, &self.shared.group)?;
        let chosen = self.backends.backend(&self.shared.namespace, &asked, &runtime);
        let identity = brief.pod(&self.shared.group);
        if new.wish.is_none() {
            new.wish = place::wish(&self.shared.marks, &brief, &new.id)?;
        }
        if new.wish.is_some() {
            new.neighbours = self.bundles_in_use();
        }
        let number = {
            let mut containers = self.containers();
            containers.created += 1;
            containers.created
        };
        let container = Container::reserve(&new, brief, chosen, number, self.shared.clone()).await?;
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

    /// Bundles of the containers that may run, or are about to.
    fn bundles_in_use(&self) -> Vec<PathBuf> {
        let over =
            |container: &Arc<Container>| matches!(container.init_state(), State::Stopped(_) | State::Deleted);
        self.all().into_iter().filter(|each| !over(each)).map(|each| each.bundle.clone()).collect()
    }

    /// Removes a container or an exec.
    ///
    /// # Errors
    /// See [`Container::delete`].
    pub async fn delete(&self, id: &str, exec_id: &str) -> Result<Deleted, TaskError> {
        // One that is still being created too: Delete waits for it, since its creator may have given up.
        let container = self.any(id).ok_or_else(|| TaskError::NoContainer { id: id.to_owned() })?;
        if !exec_id.is_empty() {
            return container.delete_exec(exec_id).await;
        }
        let deleted = container.delete().await?;
        self.containers().by_id.remove(id);
        Ok(deleted)
    }

    /// Captures all running containers of the pod at one instant, or those that `wanted` names, into the store.
    ///
    /// # Errors
    /// See [`TaskError`]; then all containers run as before.
    pub async fn checkpoint(
        &self,
        wanted: &[String],
        choices: Choices,
        cancel: Cancel,
    ) -> Result<Stored, TaskError> {
        let running = self.watch.begin(cancel.clone()).ok_or(DoorError::Busy)?;
        // Everybody locks in order of creation, so nobody waits in a circle.
        let mut meant = self.all();
        let names = |c: &'_ Arc<Container>| (c.id.clone(), c.brief.name(&c.id).to_owned());
        meant.retain(|c| {
            // The pause container holds nothing; a new pod has its own.
            let (id, name) = names(c);
            if wanted.is_empty() { !c.brief.is_sandbox() } else { chosen::is_wanted(wanted, &id, &name) }
        });
        let there: Vec<_> = meant.iter().map(names).collect();
        if let Some(missing) = chosen::missing(wanted, &there) {
            return Err(TaskError::NoContainer { id: missing.to_owned() });
        }
        let mut held = Vec::new();
        for each in &meant {
            if let Some(hold) = each.hold().await {
                held.push((each, hold));
            }
        }
        if let Some((read, _)) = held.iter().find(|(each, _)| each.is_read_by_containerd()) {
            return Err(DoorError::Unfinished(read.id.clone()).into());
        }
        let subjects: Vec<_> = held.iter().filter_map(|(each, _)| Some((*each, each.subject()?))).collect();
        let first = subjects.first().map(|(each, _)| *each);
        let first = first.ok_or_else(|| {
            DoorError::Nothing(format!("no container of pod {} runs", self.identity().name))
        })?;
        // Less than what was asked for would be a checkpoint that is found to lack something when it is needed.
        let taken: Vec<_> = subjects.iter().map(|(each, _)| names(each)).collect();
        if let Some(idle) = chosen::missing(wanted, &taken) {
            let pod = self.identity().name;
            return Err(DoorError::Nothing(format!("container {idle} of pod {pod} does not run")).into());
        }
        for (each, _) in &subjects {
            each.note_capture()?;
        }
        let order = Order {
            pod: self.identity(),
            sources: first.chosen.sources.clone(),
            choices: choices.or_annotated(&first.brief)?,
            flat: false,
            ends_pause: false,
            subjects: subjects.iter().map(|(_, subject)| subject.clone()).collect(),
        };
        let exit = order.choices.exit;
        let source = order.sources.file.clone();
        let (taken, node, running, limits) = blocking(move || {
            let node = Node::open(&order.sources, &Limits::within(OPEN_WITHIN).with_cancel(cancel.clone()))?;
            let limits = order.choices.limits(&node.config, &cancel);
            let taken = order::take(&node, &order, running.watch(), &limits)?;
            Ok::<_, DoorError>((taken, node, running, limits))
        })
        .await?;
        // What is to end stays frozen, so nothing can be started in it. Else the pod runs again while the checkpoint is
        // hashed and committed: processes may be started, or a probe would fail of a large pod. Delete still waits.
        let (_ending, _running_on): (Vec<_>, Vec<_>) = if exit {
            (held, Vec::new())
        } else {
            (Vec::new(), held.into_iter().map(|(_, held)| held.downgrade()).collect())
        };
        let mut stored = blocking(move || {
            let captured = taken.commit(running.watch(), &limits)?;
            Ok::<_, DoorError>(stored::settle(node, captured, source, &limits))
        })
        .await?;
        let checkpoint = stored.captured.id.clone();
        let checkpoint = checkpoint.as_str();
        tracing::info!(checkpoint, containers = subjects.len(), "captured");
        for (each, _) in &subjects {
            each.publish_checkpointed(checkpoint).await;
        }
        if let Some(ending) = stored.captured.ending.take() {
            let ended: Vec<_> = subjects.iter().map(|(each, _)| Arc::clone(each)).collect();
            end(&ended, ending).await?;
        }
        Ok(stored)
    }

    /// Ends the shim if no container is left; whether it will end.
    pub fn shut_down_if_empty(&self) -> bool {
        {
            let mut containers = self.containers();
            let sandbox = self.sandbox.get().is_some_and(|sandbox| sandbox.is_active());
            if sandbox || !containers.by_id.is_empty() {
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
                drop(tokio::time::timeout(Duration::from_secs(2), ended).await);
            }
            // A capture that is under way is waited for: it would be lost with the shim.
            let removed = loop {
                match self.delete(&container.id, "").await {
                    Err(TaskError::Occupied { .. }) => {}
                    other => break other,
                }
            };
            if let Err(error) = removed {
                tracing::warn!(id = container.id, %error, kind = ?error.kind(), "not removed at shutdown");
            }
        }
        if let Some(sandbox) = self.sandbox.get() {
            sandbox.stop().await;
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
