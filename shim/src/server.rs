//! The long-lived process of a pod: one thread, one socket, three services.
//!
//! Runs until Shutdown finds the pod empty, or a signal ends it; then events are flushed, socket and discovery file
//! removed. SIGTERM and SIGINT take the containers along, because a shim must not leave any behind; SIGUSR1 logs the
//! state of the pod.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::args::Args;
use crate::backends::Backends;
use crate::capture::marks::Marks;
use crate::capture::node;
use crate::container::Shared;
use crate::control::ControlService;
use crate::discovery::Entry;
use crate::events::Publisher;
use crate::exits::{self, Registry};
use crate::pod::Pod;
use crate::proto::control_ttrpc::create_control;
use crate::sandbox::SandboxService;
use crate::spawn::{READY, READY_FD, SOCKET_FD};
use crate::task::TaskService;
use crate::{idle, log, socket, sys};

/// Blocking calls run in threads that end after a moment of idleness: a thread costs resident memory.
const THREAD_IDLE: Duration = Duration::from_secs(1);

/// serde_json and the runtime's error paths stay far below this.
const THREAD_STACK: usize = 512 * 1024;

/// One per runtime call in flight; more than a pod has containers, so that none waits for another's slow call.
const MAX_THREADS: usize = 128;

/// containerd gives Shutdown 3 s.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `serve` is for `start` only.
    #[error("descriptor {fd} is missing: `serve` is started by `start` only: {source}")]
    Descriptor {
        /// Which.
        fd: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step of the setup failed.
    #[error("{step}: {source}")]
    Setup {
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// ttrpc does not serve.
    #[error("serve ttrpc: {0}")]
    Ttrpc(#[from] ttrpc::Error),
}

fn setup<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ServeError {
    move |source| ServeError::Setup { step, source: source.into() }
}

/// Is the shim until the pod is gone.
///
/// # Errors
/// When it cannot serve; the text also goes to the waiting `start`.
pub fn serve(args: &Args, backends: Box<dyn Backends>) -> Result<(), ServeError> {
    let descriptor = |fd| sys::inherited_fd(fd).map_err(|source| ServeError::Descriptor { fd, source });
    let socket = StdListener::from(descriptor(SOCKET_FD)?);
    let mut ready = File::from(descriptor(READY_FD)?);
    let result = run(args, socket, &mut ready, backends);
    if let Err(error) = &result {
        writeln!(ready, "{error}").ok();
    }
    if let Some(path) = socket::path_of(&args.socket) {
        std::fs::remove_file(path).ok();
    }
    result
}

fn run(
    args: &Args,
    socket: StdListener,
    ready: &mut File,
    backends: Box<dyn Backends>,
) -> Result<(), ServeError> {
    let bundle = args.bundle.clone().unwrap_or_default();
    let fields = [
        ("runtime", "io.containerd.cryopod.v2"),
        ("sandbox", args.id.as_str()),
        ("namespace", args.namespace.as_str()),
    ];
    log::init(&bundle, &fields, args.log_level);
    // Processes of containers become our children when their runtime ends.
    nix::sys::prctl::set_child_subreaper(true).map_err(setup("become a subreaper"))?;
    socket.set_nonblocking(true).map_err(setup("listen"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(THREAD_IDLE)
        .thread_stack_size(THREAD_STACK)
        .max_blocking_threads(MAX_THREADS)
        .build()
        .map_err(setup("start the event loop"))?;
    let result = runtime.block_on(async {
        let shared = Shared {
            namespace: args.namespace.clone(),
            group: args.id.clone(),
            home: bundle.clone(),
            publisher: Publisher::new(&args.namespace, &args.ttrpc_address),
            registry: Registry::default(),
            together: Arc::default(),
            marks: Marks::default(),
        };
        let pod = Pod::new(shared, backends);
        let listener = UnixListener::from_std(socket).map_err(setup("listen"))?;
        let mut server = services(&pod).add_listener(Listener::from(listener));
        server.start().await?;
        let entry = Entry::write(args, &bundle);
        ready.write_all(READY).map_err(setup("tell `start`"))?;
        *ready = File::open("/dev/null").map_err(setup("tell `start`"))?;
        tracing::info!(pid = std::process::id(), "serving");
        node::thaw_leftovers();
        tokio::spawn(idle::trim());
        tokio::spawn(exits::sweep_strangers(pod.shared().registry.clone()));
        until_ended(&pod).await;
        finish(&pod, &mut server).await;
        drop(entry);
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// All services of a pod on one server.
pub fn services(pod: &Arc<Pod>) -> Server {
    Server::new()
        .register_service(create_task(Arc::new(TaskService { pod: pod.clone() })))
        .register_service(create_sandbox(Arc::new(SandboxService { pod: pod.clone() })))
        .register_service(create_control(Arc::new(ControlService { pod: pod.clone() })))
}

/// Serves signals until the pod is to end.
async fn until_ended(pod: &Arc<Pod>) {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::user_defined1()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut dump)) = signals else {
        tracing::error!("signals cannot be handled; ending with the pod only");
        return pod.ended().await;
    };
    loop {
        tokio::select! {
            () = pod.ended() => return,
            _ = terminate.recv() => pod.remove_all().await,
            _ = interrupt.recv() => pod.remove_all().await,
            _ = dump.recv() => {
                let events = pod.shared().publisher.counters();
                tracing::info!(sent = events.sent, waiting = events.waiting, dropped = events.dropped, "{}", pod.dump());
            }
        }
    }
}

async fn finish(pod: &Arc<Pod>, server: &mut Server) {
    if !pod.shared().publisher.flush(FLUSH_WITHIN).await {
        tracing::warn!("ending with events that containerd did not take");
    }
    // Lets the answer to Shutdown leave; containerd takes a closed connection for success too.
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(tokio::time::timeout(Duration::from_millis(500), server.shutdown()).await);
    tracing::info!("ended");
}
