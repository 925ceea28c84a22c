//! `cryopod-agent run`: everything that one agent does, until it is told to end.
//!
//! In this order, so that nothing is begun on top of what a crash left: listen, recover, say ready, then the controllers.
//! Ending leaves everything as it is: captures go on in the shims that are asked again after the next start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cryopod_checkpoint::audit::{self, Actor};
use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_checkpoint::recover::Recovery;
use cryopod_command::Limits;
use cryopod_runtime::config::Sources;
use cryopod_runtime::repair::OciRepair;
use cryopod_shim::capture::Node;
use kube::Client;
use tokio::sync::watch;

use crate::context::Context;
use crate::leader::{Contact, Election, identity};
use crate::metrics::scrape::Scraper;
use crate::metrics::{Metrics, Text};
use crate::node::{LocalNode, NodeWork};
use crate::serve::{self, Source};
use crate::setup::labels;
use crate::{checkpoint, orphans, restore, schedule};

/// How old the look at the store may be that a scrape shows; a `zfs list` of a thousand datasets is tens of milliseconds.
const STORE_AGE: Duration = Duration::from_secs(60);
/// Longest look at the store, and longest recovery.
const LOOK: Duration = Duration::from_secs(60);
const RECOVER: Duration = Duration::from_secs(600);
/// An agent whose API server is silent for so long is not ready.
const SILENCE: Duration = Duration::from_secs(60);
/// How often what a crash left is looked for again.
const RECOVER_EVERY: Duration = Duration::from_secs(300);

/// What `run` is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this node's Node object.
    pub node: String,
    /// Namespace of the leader's lease.
    pub namespace: String,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Configuration of cryopod, if not the usual files.
    pub config: Option<PathBuf>,
}

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address is taken, or not ours.
    #[error("cannot serve metrics on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings, client: Option<Client>) -> Result<(), RunError> {
    audit::begin(Path::new(audit::DIR), Actor::this("cryopod-agent"));
    let (address, metrics) = (settings.listen, Arc::new(Metrics::default()));
    let listener = serve::listen(address).await.map_err(|source| RunError::Listen { address, source })?;
    let (told, leading) = watch::channel(false);
    let shown = Arc::new(Shown {
        metrics: Arc::clone(&metrics),
        scraper: Scraper::default(),
        sources: Sources { file: settings.config.clone(), ..Sources::default() },
        store: tokio::sync::Mutex::default(),
        recovered: AtomicBool::new(false),
        leading,
        contact: Arc::new(Mutex::new(client.as_ref().map(|_| Instant::now()))),
    });
    tokio::spawn(serve::run(listener, Arc::clone(&shown)));
    recover(&shown).await;
    shown.recovered.store(true, Ordering::Relaxed);
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(watchdog());
    tokio::spawn({
        let shown = Arc::clone(&shown);
        async move {
            loop {
                tokio::time::sleep(RECOVER_EVERY).await;
                recover(&shown).await;
            }
        }
    });
    if let Some(client) = client {
        let work: Arc<dyn NodeWork> = Arc::new(LocalNode::new(shown.sources.clone(), Arc::clone(&metrics)));
        let context = Arc::new(Context::new(client.clone(), &settings.node, work, metrics));
        tokio::spawn(checkpoint::run(Arc::clone(&context)));
        tokio::spawn(labels::run(Arc::clone(&context)));
        let election =
            Election::new(client, &settings.namespace, identity(&settings.node), Arc::clone(&shown.contact));
        tokio::spawn(election.run(told, move || lead(Arc::clone(&context))));
    } else {
        tracing::warn!("no cluster is configured: metrics and recovery only");
    }
    ended().await;
    notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

/// What the leader does; dropped when it leads no more.
async fn lead(context: Arc<Context>) {
    tokio::join!(
        orphans::run(Arc::clone(&context)),
        restore::run(Arc::clone(&context)),
        schedule::run(context)
    );
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM"),
        _ = int.recv() => tracing::info!("SIGINT"),
    }
}

/// systemd is told where there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// From the event loop itself, so that a loop that hangs is one that systemd restarts.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(limit / 3).await;
    }
}

/// Finishes or undoes what a dead process left on this node.
async fn recover(shown: &Arc<Shown>) {
    let sources = shown.sources.clone();
    let report = tokio::task::spawn_blocking(move || {
        let node = Node::open(&sources, &Limits::within(LOOK)).map_err(|error| error.to_string())?;
        let recovery = Recovery::begin(&node.journal, &OciRepair).map_err(|error| error.to_string())?;
        Ok::<_, String>(recovery.everything(&node.store, &OciRepair, &Limits::within(RECOVER)))
    });
    match report.await {
        Ok(Ok(report)) => {
            if !report.is_clean() {
                tracing::warn!(
                    operations = report.operations.join(" "),
                    "cleaned up after a process that died"
                );
            }
            for failure in &report.failures {
                tracing::warn!(%failure, "recovery");
            }
            shown.metrics.recover_failed(u64::try_from(report.failures.len()).unwrap_or(u64::MAX));
        }
        Ok(Err(error)) => {
            tracing::warn!(error, "recovery could not look");
            shown.metrics.recover_failed(1);
        }
        Err(error) => tracing::error!(%error, "recovery"),
    }
}

/// What the store was when it was last looked at.
#[derive(Debug, Default)]
struct Look {
    at: Option<Instant>,
    checkpoints: Vec<CheckpointInfo>,
    available: u64,
}

/// What `/metrics` and `/readyz` show.
struct Shown {
    metrics: Arc<Metrics>,
    scraper: Scraper,
    sources: Sources,
    store: tokio::sync::Mutex<Look>,
    recovered: AtomicBool,
    leading: watch::Receiver<bool>,
    /// When the API server last answered; None where no cluster is configured.
    contact: Contact,
}

impl Shown {
    async fn store(&self, text: &mut Text) {
        let mut look = self.store.lock().await;
        if look.at.is_none_or(|at| at.elapsed() > STORE_AGE) {
            let sources = self.sources.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let limits = Limits::within(LOOK);
                let node = Node::open(&sources, &limits).ok()?;
                Some((node.store.list(&limits).ok()?, node.store.available(&limits).ok()?))
            });
            if let Ok(Some((checkpoints, available))) = looked.await {
                *look = Look { at: Some(Instant::now()), checkpoints, available };
            }
        }
        if look.at.is_none() {
            return;
        }
        let used: u64 = look.checkpoints.iter().map(|it| it.memory_bytes.saturating_add(it.disk_bytes)).sum();
        let unsettled = look.checkpoints.iter().filter(|it| !it.settled).count();
        for (name, help, value) in [
            (
                "cryopod_store_checkpoints",
                "Committed checkpoints in the store.",
                look.checkpoints.len() as f64,
            ),
            ("cryopod_store_unsettled", "Checkpoints that still depend on their source.", unsettled as f64),
            ("cryopod_store_used_bytes", "Bytes that the checkpoints refer to, shared or not.", used as f64),
            ("cryopod_store_available_bytes", "Bytes that can still be written.", look.available as f64),
        ] {
            text.head(name, "gauge", help);
            text.line(name, &[], value);
        }
    }
}

impl Source for Shown {
    async fn metrics(&self) -> String {
        let began = Instant::now();
        let mut text = Text::default();
        text.head("cryopod_build_info", "gauge", "Version of the agent.");
        text.line("cryopod_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let scraped = self.scraper.scrape().await;
        text.head("cryopod_pods", "gauge", "Running pods by backend.");
        for (backend, count) in &scraped.backends {
            text.line("cryopod_pods", &[("backend", backend)], *count as f64);
        }
        text.head("cryopod_shim_scrape_failures_total", "counter", "Shims that gave no metrics.");
        text.line("cryopod_shim_scrape_failures_total", &[], scraped.failures as f64);
        text.head("cryopod_leader", "gauge", "Whether this agent leads.");
        text.line("cryopod_leader", &[], f64::from(u8::from(*self.leading.borrow())));
        self.metrics.render(&mut text);
        self.store(&mut text).await;
        text.head("cryopod_scrape_duration_seconds", "gauge", "Time that this scrape took.");
        text.line("cryopod_scrape_duration_seconds", &[], began.elapsed().as_secs_f64());
        let mut text = text.into_string();
        text.push_str(&scraped.text);
        text
    }

    fn unready(&self) -> Option<String> {
        if !self.recovered.load(Ordering::Relaxed) {
            return Some("looks for what a crash left".to_owned());
        }
        let silent =
            self.contact.lock().unwrap_or_else(std::sync::PoisonError::into_inner).map(|at| at.elapsed());
        let seconds = silent.filter(|silent| *silent > SILENCE)?.as_secs();
        Some(format!("the API server has not answered for {seconds} s"))
    }
}
