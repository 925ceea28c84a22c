//! A backend that runs plain processes of this machine, and a containerd that takes events.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::sandbox_async::SandboxClient;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, Events, TaskClient, create_events};
use cryopod_checkpoint::target::{AtInstant, DumpOptions, DumpStats, ImageDir, Member};
use cryopod_command::Limits;
use cryopod_runtime::backend::{Backend, Capabilities, CreateRequest, ExecRequest, RestoreRequest, Stdio};
use cryopod_runtime::error::Error;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::TtrpcContext;
use ttrpc::asynchronous::Server;

use crate::backends::{Asked, Backends, BackendsError, Chosen, note};
use crate::capture::marks::Marks;
use crate::container::{Container, New, Shared};
use crate::events::Publisher;
use crate::exits::Registry;
use crate::pod::Pod;
use crate::proto::control_ttrpc::ControlClient;
use crate::proto::cri::RuntimeOptions;
use crate::server::services;

/// Runs `process.args` of the bundle as children of the test. `create` waits for a file `go` to appear, so that
/// nothing runs before `start`; annotation `slow` makes `create` take that many milliseconds, and a file `hang` in the
/// bundle lets `delete` use up all the time that it is given.
#[derive(Default)]
pub struct FakeBackend {
    bundles: Mutex<BTreeMap<String, PathBuf>>,
    restored: Mutex<BTreeMap<String, u32>>,
    cgroups: Mutex<BTreeMap<String, PathBuf>>,
}

fn streams(stdio: Stdio) -> [ProcessStdio; 3] {
    let Stdio::Pipes { stdin, stdout, stderr } = stdio else { panic!("no terminals here") };
    [stdin, stdout, stderr].map(|fd: Option<OwnedFd>| fd.map_or_else(ProcessStdio::null, ProcessStdio::from))
}

fn spawn(script: &str, stdio: Stdio) -> u32 {
    let [stdin, stdout, stderr] = streams(stdio);
    let child = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let pid = child.id();
    std::mem::forget(child);
    pid
}

fn unsupported() -> Error {
    Error::NoContainer { container: "no memory capture here".to_owned() }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        "fake"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            memory_checkpoint: false,
            pre_dump: false,
            terminal: false,
            exec: true,
            pause: true,
            update: true,
        }
    }
    fn features(&self, _: &Limits) -> Result<Option<serde_json::Value>, Error> {
        Ok(None)
    }
    fn create(&self, request: CreateRequest<'_>, _: &Limits) -> Result<u32, Error> {
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(request.bundle.join("config.json")).unwrap()).unwrap();
        if let Some(slow) = config["annotations"]["slow"].as_str() {
            std::thread::sleep(Duration::from_millis(slow.parse().unwrap()));
        }
        if config["annotations"]["fail"].is_string() {
            return Err(Error::NoContainer { container: "told to fail".to_owned() });
        }
        let script = config["process"]["args"][0].as_str().unwrap();
        self.bundles.lock().unwrap().insert(request.id.to_owned(), request.bundle.to_owned());
        let go = request.bundle.join("go");
        // A test that ended without a start takes its directory along, and the waiting shell must not outlive it.
        let waits = format!(
            "while [ ! -e {go} ]; do [ -d {dir} ] || exit 1; sleep 0.01; done; {script}",
            go = go.display(),
            dir = request.bundle.display()
        );
        Ok(spawn(&waits, request.stdio))
    }
    fn start(&self, id: &str, _: &Limits) -> Result<(), Error> {
        let bundle = self.bundles.lock().unwrap().get(id).cloned().unwrap();
        std::fs::write(bundle.join("go"), "").unwrap();
        // Long enough for a short-lived workload to end before its start is reported.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }
    fn restore(&self, request: CreateRequest<'_>, _: &RestoreRequest<'_>, _: &Limits) -> Result<u32, Error> {
        let pid = spawn("exec sleep 60", request.stdio);
        self.restored.lock().unwrap().insert(request.id.to_owned(), pid);
        Ok(pid)
    }
    fn exec(&self, request: ExecRequest<'_>, _: &Limits) -> Result<u32, Error> {
        let script = request.process["args"][0].as_str().unwrap();
        if script == "fail" {
            return Err(unsupported());
        }
        if let Some(slow) = request.process["slow"].as_u64() {
            std::thread::sleep(Duration::from_millis(slow));
        }
        Ok(spawn(script, request.stdio))
    }
    fn kill(&self, _: &str, pid: u32, signal: i32, _: bool, _: &Limits) -> Result<(), Error> {
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).ok();
        Ok(())
    }
    fn delete(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        let bundle = self.bundles.lock().unwrap().get(id).cloned();
        if bundle.is_some_and(|bundle| bundle.join("hang").exists()) {
            std::thread::sleep(limits.remaining().unwrap());
            return Err(Error::Unsupported { backend: "fake".to_owned(), what: "delete in time" });
        }
        self.bundles.lock().unwrap().remove(id);
        if let Some(pid) = self.restored.lock().unwrap().remove(id) {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        Ok(())
    }
    fn pause(&self, _: &str, _: &Limits) -> Result<(), Error> {
        Ok(())
    }
    fn resume(&self, _: &str, _: &Limits) -> Result<(), Error> {
        Ok(())
    }
    fn update(&self, id: &str, _: &serde_json::Value, _: &Limits) -> Result<(), Error> {
        let known = self.bundles.lock().unwrap().contains_key(id);
        if known { Ok(()) } else { Err(Error::NoContainer { container: id.to_owned() }) }
    }
    fn cgroup(&self, id: &str, _: u32) -> Result<PathBuf, Error> {
        let known = self.cgroups.lock().unwrap().get(id).cloned();
        known.ok_or_else(|| Error::NoContainer { container: id.to_owned() })
    }
    fn pre_dump(&self, _: &Member, _: &ImageDir, _: &Limits) -> Result<DumpStats, Error> {
        Err(unsupported())
    }
    fn dump(
        &self,
        _: &Member,
        _: &ImageDir,
        _: &DumpOptions,
        _: &AtInstant<'_>,
        _: &Limits,
    ) -> Result<DumpStats, Error> {
        Err(unsupported())
    }
}

/// Runtime options that name a configuration file.
pub fn options(config: &Path) -> Any {
    let options = RuntimeOptions { config_path: config.display().to_string(), ..Default::default() };
    let value = protobuf::Message::write_to_bytes(&options).unwrap();
    Any { type_url: "runtimeoptions.v1.Options".to_owned(), value, ..Default::default() }
}

/// One backend under whatever name; the configuration of this machine plays no part.
struct OneBackend(Arc<FakeBackend>);
impl Backends for OneBackend {
    fn read(&self, given: Option<&Any>) -> Result<Arc<Asked>, BackendsError> {
        let plain = options(Path::new("/dev/null"));
        Asked::new(Some(given.unwrap_or(&plain))).map(Arc::new)
    }
    fn backend(&self, namespace: &str, asked: &Asked, runtime: &str) -> Chosen {
        asked.chosen(self.0.clone(), Some(note(&asked.oci_options(namespace, runtime))))
    }
}

/// `topic container exec pid-or-status`, in the order of arrival.
#[derive(Default, Clone)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn topics(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            if self.topics().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.topics()
    }
}

#[async_trait]
impl Events for Seen {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        use containerd_shim_protos::events::task as m;
        use protobuf::Message;
        let envelope = request.envelope.unwrap();
        assert_eq!(envelope.namespace, "ns");
        let value = &envelope.event.value;
        let detail = match envelope.topic.as_str() {
            "/tasks/exit" => {
                let exit = m::TaskExit::parse_from_bytes(value).unwrap();
                format!(" {} {}", exit.id, exit.exit_status)
            }
            "/tasks/exec-added" => format!(" {}", m::TaskExecAdded::parse_from_bytes(value).unwrap().exec_id),
            "/tasks/exec-started" => {
                format!(" {}", m::TaskExecStarted::parse_from_bytes(value).unwrap().exec_id)
            }
            _ => String::new(),
        };
        self.0.lock().unwrap().push(format!("{}{detail}", envelope.topic));
        Ok(Empty::new())
    }
}

/// A containerd that takes events at `path`.
pub async fn containerd(path: &Path) -> (Server, Seen) {
    let seen = Seen::default();
    std::fs::remove_file(path).ok();
    let mut server = Server::new()
        .bind(&format!("unix://{}", path.display()))
        .unwrap()
        .register_service(create_events(Arc::new(seen.clone())));
    server.start().await.unwrap();
    (server, seen)
}

/// A shim serving a fake pod.
pub struct Shim {
    pub dir: tempfile::TempDir,
    pub task: TaskClient,
    pub sandbox: SandboxClient,
    pub control: ControlClient,
    pub pod: Arc<Pod>,
    pub seen: Seen,
    backend: Arc<FakeBackend>,
    _servers: (Server, Server),
}

/// The pod of a shim whose files are in `dir`.
fn pod(dir: &Path, backend: Arc<FakeBackend>) -> Arc<Pod> {
    let events = dir.join("containerd.ttrpc");
    let shared = Shared {
        namespace: "ns".to_owned(),
        group: "pod".to_owned(),
        home: dir.to_owned(),
        publisher: Publisher::new("ns", &events.display().to_string()),
        registry: Registry::default(),
        together: Arc::default(),
        marks: Marks::at(dir.join("restored"), "/nonexistent"),
    };
    Pod::new(shared, Box::new(OneBackend(backend)))
}

pub async fn shim() -> Shim {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("containerd.ttrpc");
    let (containerd, seen) = containerd(&events).await;
    let backend: Arc<FakeBackend> = Arc::default();
    let pod = pod(dir.path(), backend.clone());
    let address = format!("unix://{}", dir.path().join("s").display());
    let mut server = services(&pod).bind(&address).unwrap();
    server.start().await.unwrap();
    let client = Client::connect(&address).await.unwrap();
    let (task, sandbox) = (TaskClient::new(client.clone()), SandboxClient::new(client.clone()));
    let control = ControlClient::new(client);
    Shim { dir, task, sandbox, control, pod, seen, backend, _servers: (containerd, server) }
}

impl Shim {
    /// The pod as another shim finds it that is started for the same bundle.
    pub fn restarted(&self) -> Arc<Pod> {
        pod(self.dir.path(), self.backend.clone())
    }

    /// PID of the process that the backend has brought back for `id` and not removed again.
    pub fn restored(&self, id: &str) -> Option<u32> {
        self.backend.restored.lock().unwrap().get(id).copied()
    }

    /// The directory that stands for the cgroup of `id`, with these files; before the container is made.
    pub fn cgroup(&self, id: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.dir.path().join(format!("cgroup-{id}"));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), text).unwrap();
        }
        self.backend.cgroups.lock().unwrap().insert(id.to_owned(), dir.clone());
        dir
    }

    /// A container that sleeps.
    pub async fn running(&self, id: &str) -> Arc<Container> {
        let bundle = self.bundle(id, "exec sleep 60", &serde_json::json!({}));
        let new = New {
            id: id.to_owned(),
            bundle: bundle.into(),
            mounts: Vec::new(),
            stdio: Default::default(),
            checkpoint: String::new(),
            wish: None,

            neighbours: Vec::new(),
        };
        self.pod.create(new, None).await.unwrap();
        let container = self.pod.container(id).unwrap();
        container.start().await.unwrap();
        container
    }

    /// A bundle whose init runs `script`.
    pub fn bundle(&self, id: &str, script: &str, annotations: &serde_json::Value) -> String {
        let bundle = self.dir.path().join(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let config = serde_json::json!({
            "process": {"args": [script]}, "annotations": annotations,
            "linux": {"namespaces": [{"type": "pid"}]}
        });
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle.display().to_string()
    }
}
