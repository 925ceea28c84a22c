//! Start of init: the runtime's `start`, or bringing memory back.

use std::sync::Arc;

use containerd_shim_protos::events::task::TaskStart;
use cryopod_checkpoint::fault;
use cryopod_command::Limits;
use cryopod_runtime::backend::{CreateRequest, RestoreRequest};

use super::create::{Made, Waiting, observe};
use super::{CREATE_WITHIN, Container, Launch, UNDO_WITHIN};
use crate::capture::DoorError;
use crate::capture::marks::Announced;
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::io::Prepared;
use crate::process::state::{Change, State};

impl Container {
    /// Starts init; its PID. TaskStart is queued before any exit of it.
    ///
    /// # Errors
    /// When it is not CREATED, or the runtime fails; then it is CREATED, or STOPPED if it died.
    pub async fn start(self: &Arc<Self>) -> Result<u32, TaskError> {
        let _op = self.turn("start").await;
        self.inner().change(&self.id, "", Change::Start)?;
        let (launch, io) = {
            let inner = self.inner();
            (inner.launch.clone(), inner.init.io.clone())
        };
        if let Some(io) = io
            && let Err(error) = io.open_input()
        {
            self.inner().change(&self.id, "", Change::StartFailed)?;
            return Err(error.into());
        }
        let (announced, result) = match (self.announce().await, &launch) {
            (Err(error), _) => (None, Err(error)),
            (Ok(announced), Launch::Fresh) => (announced, self.start_fresh().await),
            (Ok(announced), Launch::Restore { .. }) => (announced, self.start_restored(launch.clone()).await),
        };
        if result.is_ok() {
            self.inner().reading = None;
            // Not waited for less than the process itself: the next start may come as soon as this one is answered.
            blocking(move || Ok::<_, TaskError>(announced.map(Announced::remember))).await.ok();
        }
        let change = if result.is_ok() { Change::Started } else { Change::StartFailed };
        let (pid, state) = {
            let mut inner = self.inner();
            let state = inner.change(&self.id, "", change)?;
            let pid = inner.init.pid();
            if result.is_ok() {
                let mut event = TaskStart::new();
                event.container_id.clone_from(&self.id);
                event.pid = pid;
                inner.init.slots.publish(&Event::Start(event));
            }
            (pid, state)
        };
        if result.is_ok()
            && let Launch::Restore { from, company, .. } = &launch
        {
            self.watch_init();
            let this = self.clone();
            let name = self.brief.name(&self.id);
            self.shared.together.back(from, name, company, Box::new(move || this.let_go_on()));
        }
        if let State::Exiting(exit) = state {
            self.finish_init(exit);
        }
        result.map(|()| pid)
    }

    /// Makes ready to remember that what was put in place has been started, with memory or without: the next start of
    /// this container in this pod must not put it there again, over what the pod has written since.
    async fn announce(self: &Arc<Self>) -> Result<Option<Announced>, TaskError> {
        let Some(from) = self.inner().placed_from.clone() else { return Ok(None) };
        let this = self.clone();
        blocking(move || this.shared.marks.announce(&this.brief, &this.id, &from).map_err(DoorError::from))
            .await
    }

    async fn start_fresh(&self) -> Result<(), TaskError> {
        let (backend, id) = (self.backend(), self.id.clone());
        blocking(move || backend.start(&id, &Limits::within(CREATE_WITHIN))).await
    }

    async fn start_restored(self: &Arc<Self>, launch: Launch) -> Result<(), TaskError> {
        let waiting: Option<Waiting> = self.inner().waiting.take();
        let not_started = || TaskError::NotStarted { id: self.id.clone(), process: "init".to_owned() };
        let (stdio, prepared) = waiting.ok_or_else(not_started)?;
        let Launch::Restore { images, work, tcp, from, company } = launch else { return Err(not_started()) };
        let this = self.clone();
        let frozen = self.shared.together.must_wait(&from, self.brief.name(&self.id), &company);
        self.inner().apart.send_replace(frozen);
        let _expecting = self.shared.registry.expect();
        let restored = blocking(move || {
            std::fs::create_dir_all(&work)
                .map_err(|source| TaskError::Directory { path: work.clone(), source })?;
            let request = CreateRequest { id: &this.id, bundle: &this.bundle, stdio };
            let restore = RestoreRequest { images: &images, work: &work, tcp, frozen };
            Ok::<_, TaskError>(this.backend().restore(request, &restore, &Limits::within(CREATE_WITHIN))?)
        });
        let pid = restored.await?;
        let begun = self.take_over(pid, prepared).await;
        if begun.is_err() {
            self.take_back_restored().await;
        }
        begun
    }

    /// From here on the process is there: whoever fails has to end it.
    async fn take_over(self: &Arc<Self>, pid: u32, prepared: Prepared) -> Result<(), TaskError> {
        let this = self.clone();
        let made: Made = blocking(move || {
            this.note_pid(pid)?;
            fault::step("shim.start.restored").map_err(DoorError::from)?;
            Ok::<_, TaskError>(observe(&*this.backend(), &this.id, pid))
        })
        .await?;
        self.adopt(made, Ok(prepared)).await?;
        let io = self.inner().init.io.clone();
        Ok(io.map_or(Ok(()), |io| io.open_input())?)
    }

    /// A failed Start leaves nothing that runs: containerd believes that it never did. Its own failures are logged, since
    /// the caller has an error already.
    async fn take_back_restored(self: &Arc<Self>) {
        self.inner().apart.send_replace(false);
        // So that Delete, which waits for its end, sees it.
        self.watch_init();
        let (backend, id) = (self.backend(), self.id.clone());
        if let Err(error) = blocking(move || backend.delete(&id, &Limits::within(UNDO_WITHIN))).await {
            tracing::error!(id = self.id, %error, "a restored process whose start failed is not ended; Delete does it");
        }
    }
}
