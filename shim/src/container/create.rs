//! Create: mounts, streams, and the runtime's `create` – or, for a restore, everything but a process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::types::mount::Mount as MountMessage;
use cryopod_checkpoint::fault;
use cryopod_checkpoint::target::TcpPolicy;
use cryopod_command::{Cancel, Limits};
use cryopod_runtime::backend::{Backend, CreateRequest, Stdio};
use cryopod_runtime::cgroup::Cgroup;
use cryopod_runtime::oom::OomWatch;
use cryopod_zfs::DatasetName;
use tokio::sync::{RwLock, watch};

use super::{CREATE_WITHIN, Container, Inner, Launch, Shared};
use crate::backends::Chosen;
use crate::bundle::{Brief, State as BundleState};
use crate::capture::place::{self, Newcomer, Wish};
use crate::capture::{DoorError, Node, order};
use crate::error::{TaskError, blocking};
use crate::events::{Event, Slots};
use crate::exits::{self, Child};
use crate::io::{self, IoError, Prepared, StdioPaths};
use crate::members;
use crate::mounts::{self, Mount};
use crate::process::state::{Change, State};
use crate::process::{EVENTS_PER_PROCESS, Process};
use crate::together::Company;

/// What containerd asked for.
#[derive(Debug, Clone)]
pub struct New {
    /// Container id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Root file system.
    pub mounts: Vec<Mount>,
    /// Streams of init.
    pub stdio: StdioPaths,
    /// `checkpoint` of the request, echoed in the event.
    pub checkpoint: String,
    /// What is to be restored.
    pub wish: Option<Wish>,
    /// Bundles of the containers that live in the pod, for a restore.
    pub neighbours: Vec<PathBuf>,
}

/// A process that the runtime has made.
pub(super) struct Made {
    pub pid: u32,
    pub cgroup: Option<Cgroup>,
    pub oom: Option<OomWatch>,
}

impl Container {
    /// A container that does not exist for anybody but its creator yet.
    ///
    /// # Errors
    /// When no events can be queued.
    pub async fn reserve(
        new: &New,
        brief: Brief,
        chosen: Chosen,
        number: u64,
        shared: Arc<Shared>,
    ) -> Result<Arc<Self>, TaskError> {
        let slots: Slots = shared.publisher.reserve(EVENTS_PER_PROCESS).await?;
        let root = new.mounts.iter().find(|mount| mount.kind == "zfs" && mount.target.is_empty());
        let dataset: Option<DatasetName> = root.and_then(|mount| mount.source.parse().ok());
        let bundle_state = BundleState {
            runtime: chosen.note.clone(),
            config_file: chosen.sources.file.clone(),
            config_body: chosen.sources.body.clone(),
            dataset: dataset.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..BundleState::new(&new.id, &shared.namespace, &shared.group)
        };
        let inner = Inner {
            init: Process::new("", State::Creating, new.stdio.clone(), slots),
            execs: BTreeMap::new(),
            cgroup: None,
            oom_kills: 0,
            bundle_state,
            launch: Launch::Fresh,
            placed_from: None,
            reading: None,
            pending: None,
            waiting: None,
            apart: watch::Sender::new(false),
            doing: "create",
        };
        Ok(Arc::new(Self {
            id: new.id.clone(),
            bundle: new.bundle.clone(),
            brief,
            chosen,
            dataset,
            number,
            shared,
            op: RwLock::new(()),
            inner: Mutex::new(inner),
        }))
    }

    /// Makes it; PID of init, 0 for a restore.
    ///
    /// # Errors
    /// On any error nothing is left of it: no process, no mount, no cgroup.
    pub async fn create(self: &Arc<Self>, new: New) -> Result<u32, TaskError> {
        let _op = self.turn("create").await;
        match self.make(&new).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                self.undo().await;
                Err(error)
            }
        }
    }

    async fn make(self: &Arc<Self>, new: &New) -> Result<u32, TaskError> {
        let (stdio, opening) = io::begin(&new.stdio, self.owner(), &self.shared.registry).await?;
        if let Some(wish) = new.wish.clone() {
            let (this, new) = (self.clone(), new.clone());
            let launch = blocking(move || this.place(&new, wish)).await?;
            self.inner().launch = launch;
        }
        let this = self.clone();
        let mounts = match new.wish {
            // Mounted where it was placed.
            Some(_) => Vec::new(),
            None => new.mounts.clone(),
        };
        if self.inner().launch == Launch::Fresh {
            let _expecting = self.shared.registry.expect();
            let make = blocking(move || {
                this.mount(&mounts)?;
                let request = CreateRequest { id: &this.id, bundle: &this.bundle, stdio };
                let pid = this.chosen.backend.create(request, &Limits::within(CREATE_WITHIN))?;
                this.note_pid(pid)?;
                Ok::<Made, TaskError>(observe(&*this.chosen.backend, &this.id, pid))
            });
            let (made, prepared) = opening.finish_during(make).await?;
            let pid = made.pid;
            self.adopt(made, prepared).await?;
            self.created(new, pid)?;
            self.watch_init();
            return Ok(pid);
        }
        let prepared = opening.finish().await?;
        self.inner().waiting = Some((stdio, prepared));
        self.created(new, 0)?;
        Ok(0)
    }

    /// Mounts the root, after noting for `delete` that it is to be unmounted. Blocks.
    fn mount(&self, mounts: &[Mount]) -> Result<(), TaskError> {
        let state = {
            let mut inner = self.inner();
            inner.bundle_state.mounted |= !mounts.is_empty();
            inner.bundle_state.clone()
        };
        self.note(&state)?;
        Ok(mounts::mount_all(mounts, &self.rootfs())?)
    }

    /// Puts what is to be restored in place and mounts it. Blocks.
    fn place(&self, new: &New, wish: Wish) -> Result<Launch, TaskError> {
        let work = self.bundle.join("criu-work");
        let checkpoint = match wish {
            Wish::Images(images) => {
                self.mount(&new.mounts)?;
                let from = images.display().to_string();
                self.inner().placed_from = Some(from.clone());
                let company = Company::default();
                return Ok(Launch::Restore { images, work, tcp: TcpPolicy::Keep, from, company });
            }
            Wish::Checkpoint(checkpoint) => checkpoint,
        };
        let node = Node::open(&self.chosen.sources, &Limits::within(CREATE_WITHIN))?;
        let limits = order::limits(&node.config, &Cancel::new());
        self.note_placing()?;
        let backend = self.chosen.backend.name();
        let newcomer = Newcomer {
            id: &self.id,
            namespace: &self.shared.namespace,
            bundle: &self.bundle,
            brief: &self.brief,
            given: &new.mounts,
            backend,
            neighbours: &new.neighbours,
        };
        let placed = place::place(&node, &self.shared.marks, &checkpoint, &newcomer, &limits)?;
        {
            let mut inner = self.inner();
            inner.bundle_state.placed = placed.own_root;
            inner.placed_from = Some(placed.checkpoint.to_string());
            inner.reading = placed.reading;
        }
        self.mount(&placed.mounts)?;
        fault::step("shim.create.mounted").map_err(DoorError::from)?;
        Ok(match placed.images {
            Some(images) => Launch::Restore {
                images,
                work,
                tcp: placed.tcp,
                from: placed.checkpoint.to_string(),
                company: placed.company,
            },
            None => Launch::Fresh,
        })
    }

    /// Notes the PID of init for `delete`.
    pub(super) fn note_pid(&self, pid: u32) -> Result<(), TaskError> {
        let state = {
            let mut inner = self.inner();
            inner.bundle_state.pid = pid;
            inner.bundle_state.pid_started = exits::start_time(pid).unwrap_or(0);
            inner.bundle_state.clone()
        };
        self.note(&state)
    }

    fn created(&self, new: &New, pid: u32) -> Result<(), TaskError> {
        let mut event = TaskCreate::new();
        event.container_id.clone_from(&self.id);
        event.bundle = self.bundle.display().to_string();
        event.rootfs = new.mounts.iter().map(mount_message).collect();
        let mut io = TaskIO::new();
        io.stdin.clone_from(&new.stdio.stdin);
        io.stdout.clone_from(&new.stdio.stdout);
        io.stderr.clone_from(&new.stdio.stderr);
        io.terminal = new.stdio.terminal;
        event.io = Some(io).into();
        event.checkpoint.clone_from(&new.checkpoint);
        event.pid = pid;
        let mut inner = self.inner();
        inner.change(&self.id, "", Change::Created)?;
        inner.init.slots.publish(&Event::Create(event));
        if self.brief.has_user_namespace() {
            // Said now, while the pod can still be had another way; containerd knows no event for it.
            tracing::warn!(
                container = self.id,
                "a pod with a user namespace (hostUsers: false) is captured without memory: only mode disk"
            );
        }
        Ok(())
    }

    /// Takes over a process that the runtime has made: watches it, connects its streams.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        made: Made,
        prepared: Result<Prepared, IoError>,
    ) -> Result<(), TaskError> {
        let child = Child::open(made.pid, &self.shared.registry).map_err(|source| TaskError::Watch {
            id: self.id.clone(),
            pid: made.pid,
            source,
        })?;
        // First: without its streams it goes again, and is waited for.
        self.inner().init.child = Some(Arc::new(child));
        let io = prepared?.connect().await?;
        if let Some(watch) = made.oom {
            self.watch_oom(watch);
        }
        let mut inner = self.inner();
        inner.init.io = Some(Arc::new(io));
        inner.cgroup = made.cgroup;
        Ok(())
    }

    /// Takes back a create that failed half-way. Its own failures are logged: the caller gets the first error.
    async fn undo(self: &Arc<Self>) {
        let this = self.clone();
        let undone = blocking(move || {
            let fresh = this.inner().launch == Launch::Fresh;
            let limits = Limits::within(super::UNDO_WITHIN);
            let deleted = if fresh { this.chosen.backend.delete(&this.id, &limits) } else { Ok(()) };
            mounts::unmount_all(&this.rootfs())?;
            this.let_go(&Limits::within(super::UNDO_WITHIN))?;
            members::forget(&this.shared.home, &this.id);
            deleted.map_err(TaskError::from)
        });
        if let Err(error) = undone.await {
            tracing::error!(id = self.id, %error, "a failed create could not be taken back whole");
        }
        let child = self.inner().init.child.clone();
        if let Some(child) = child {
            // Killed by the delete above; reaped here, since nobody watches it.
            tokio::time::timeout(super::STEP_WITHIN, child.ended()).await.ok();
        }
        self.inner().init.apply(Change::Delete).ok();
    }
}

/// What is known of a fresh process; cgroup and OOM watch are luxuries that may fail without harm.
pub(super) fn observe(backend: &dyn Backend, id: &str, pid: u32) -> Made {
    let cgroup = match backend.cgroup(id, pid) {
        Ok(path) => Some(Cgroup::at(path)),
        Err(error) => {
            tracing::warn!(id, pid, %error, "no cgroup: this container has no statistics");
            None
        }
    };
    let oom = cgroup.clone().and_then(|cgroup| match OomWatch::new(cgroup) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::info!(id, %error, "kills for want of memory are seen at the exit only");
            None
        }
    });
    Made { pid, cgroup, oom }
}

fn mount_message(mount: &Mount) -> MountMessage {
    let mut message = MountMessage::new();
    message.type_.clone_from(&mount.kind);
    message.source.clone_from(&mount.source);
    message.target.clone_from(&mount.target);
    message.options.clone_from(&mount.options);
    message
}

/// Streams of a deferred start, typed for the restore path.
pub(super) type Waiting = (Stdio, Prepared);
