//! Pods and containers through CRI, as kubelet would make them, by `crictl`.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::shell::{self, eventually, exec, exec_ok};
use crate::suite::Failure;

/// Where pod logs go; kubelet uses `/var/log/pods`.
const LOGS: &str = "/var/log/pods";
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A pod to be run; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Pod {
    /// Sandbox id.
    pub id: String,
    /// `metadata.name`.
    pub name: String,
    config: Value,
    config_path: String,
    address: OnceLock<String>,
}

/// A container of a pod.
#[derive(Debug, Clone)]
pub struct Container {
    /// Container id.
    pub id: String,
    /// `metadata.name`.
    pub name: String,
    log: String,
    pid: OnceLock<u32>,
}

/// What a test wants of a container; the rest is as kubelet would set it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `metadata.name`.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Command line.
    pub command: Vec<String>,
    /// Merged over the generated CRI `ContainerConfig`.
    pub extra: Value,
}

impl Spec {
    /// A container that runs a shell script in the busybox image.
    pub fn sh(name: &str, script: &str) -> Self {
        Spec {
            name: name.into(),
            image: "localhost/busybox:1".into(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            extra: json!({}),
        }
    }

    /// Counts in memory, in `/data/count` (see [`crate::ticks`]) and on standard output, ten times a second.
    pub fn counter(name: &str) -> Self {
        Spec::sh(
            name,
            "mkdir -p /data; i=0; read t < /proc/sys/kernel/random/uuid; trap 'exit 0' TERM; \
             while :; do i=$((i+1)); echo $i $t >> /data/count; echo $i; sleep 0.1; done",
        )
    }

    /// Merges `extra` over the CRI `ContainerConfig`.
    pub fn with(mut self, extra: &Value) -> Self {
        merge(&mut self.extra, extra);
        self
    }
}

impl Pod {
    /// Runs a sandbox with the runtime handler.
    pub fn run(handler: &str, name: &str) -> Result<Pod, Failure> {
        Pod::run_with(handler, name, &BTreeMap::new(), &json!({}))
    }

    /// Runs a sandbox with annotations and a patch over its CRI `PodSandboxConfig`.
    pub fn run_with(
        handler: &str,
        name: &str,
        annotations: &BTreeMap<String, String>,
        patch: &Value,
    ) -> Result<Pod, Failure> {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{name}-{}-{n}", std::process::id());
        let mut config = json!({
            "metadata": {"name": name, "namespace": "default", "uid": uid, "attempt": 0},
            "hostname": name,
            "log_directory": format!("{LOGS}/default_{name}_{uid}"),
            "annotations": annotations,
            "labels": {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default",
                       "io.kubernetes.pod.uid": uid},
            "linux": {"cgroup_parent": cgroup(&uid), "security_context": namespaces()},
        });
        merge(&mut config, patch);
        let config_path = format!("/run/cryopod-e2e/{uid}.json");
        std::fs::create_dir_all("/run/cryopod-e2e").map_err(|e| e.to_string())?;
        std::fs::write(&config_path, config.to_string()).map_err(|e| e.to_string())?;
        let id = exec_ok(&["crictl", "runp", "--runtime", handler, &config_path])?;
        Ok(Pod { id, name: name.into(), config, config_path, address: OnceLock::new() })
    }

    /// Creates a container, without starting it.
    pub fn create(&self, spec: &Spec) -> Result<Container, Failure> {
        let log = format!("{}_0.log", spec.name);
        let mut config = json!({
            "metadata": {"name": spec.name, "attempt": 0},
            "image": {"image": spec.image},
            "command": spec.command,
            "log_path": log,
            "labels": {"io.kubernetes.container.name": spec.name},
            "linux": {"resources": {}, "security_context": namespaces()},
        });
        merge(&mut config, &spec.extra);
        let path = format!("{}.{}.json", self.config_path, spec.name);
        std::fs::write(&path, config.to_string()).map_err(|e| e.to_string())?;
        let id = exec_ok(&["crictl", "create", &self.id, &path, &self.config_path])?;
        let directory = self.config["log_directory"].as_str().unwrap_or(LOGS);
        Ok(Container { id, name: spec.name.clone(), log: format!("{directory}/{log}"), pid: OnceLock::new() })
    }

    /// Creates and starts a container.
    pub fn start(&self, spec: &Spec) -> Result<Container, Failure> {
        let container = self.create(spec)?;
        exec_ok(&["crictl", "start", &container.id])?;
        Ok(container)
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.config["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// Its address.
    pub fn address(&self) -> Result<&str, Failure> {
        if let Some(address) = self.address.get() {
            return Ok(address);
        }
        let text = exec_ok(&["crictl", "inspectp", &self.id])?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("crictl inspectp: {e}"))?;
        let address = value["status"]["network"]["ip"].as_str().filter(|ip| !ip.is_empty());
        let address = address.ok_or("the pod has no address")?.to_owned();
        Ok(self.address.get_or_init(|| address))
    }

    /// Stops and removes the pod, and waits until that is done.
    pub fn remove(self) -> Result<(), Failure> {
        let id = self.id.clone();
        exec_ok(&["crictl", "stopp", &id])?;
        exec_ok(&["crictl", "rmp", &id])?;
        let left = remove_cgroup(self.uid());
        std::mem::forget(self);
        left
    }
}

impl Pod {
    /// Like [`Pod::remove`], tried again as kubelet does it: right after a shim was killed, containerd may still be
    /// talking to it.
    pub fn remove_in_the_end(self, patience: Duration) -> Result<(), Failure> {
        let id = self.id.clone();
        let mut last = String::new();
        eventually("the pod is removed", patience, || {
            for verb in ["stopp", "rmp"] {
                let done = exec(&["crictl", verb, &id])?;
                if done.code != 0 {
                    last = done.stderr;
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .map_err(|e| format!("{e}: {last}"))?;
        let left = remove_cgroup(self.uid());
        std::mem::forget(self);
        left
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A failed test must not spoil the next one; what cannot be removed shows in the leak check of the suite.
        for argv in [["crictl", "stopp", &self.id], ["crictl", "rmp", &self.id]] {
            if let Err(e) = exec(&argv) {
                eprintln!("clean-up: {e}");
            }
        }
        if let Err(e) = remove_cgroup(self.uid()) {
            eprintln!("clean-up: {e}");
        }
    }
}

/// A process namespace per container, as kubelet asks for unless the pod shares its processes (CRI's default is one
/// for the pod).
fn namespaces() -> Value {
    json!({"namespace_options": {"pid": 1}})
}

/// The pod's own group, which kubelet makes and removes.
fn cgroup(uid: &str) -> String {
    format!("/kubepods/pod{uid}")
}

fn remove_cgroup(uid: &str) -> Result<(), Failure> {
    let path = format!("/sys/fs/cgroup{}", cgroup(uid));
    match std::fs::remove_dir(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{path}: {e}")),
        _ => Ok(()),
    }
}

impl Container {
    /// `crictl inspect`, the `status` object.
    pub fn status(&self) -> Result<Value, Failure> {
        let text = exec_ok(&["crictl", "inspect", &self.id])?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("crictl inspect: {e}"))?;
        Ok(value["status"].clone())
    }

    /// CRI state without its prefix: `RUNNING`, `EXITED`, `CREATED`.
    pub fn state(&self) -> Result<String, Failure> {
        let status = self.status()?;
        Ok(status["state"].as_str().unwrap_or_default().trim_start_matches("CONTAINER_").to_owned())
    }

    /// Waits until it has ended; returns its exit code.
    pub fn wait_exit(&self, patience: Duration) -> Result<i64, Failure> {
        eventually("container ends", patience, || {
            let status = self.status()?;
            Ok((status["state"] == "CONTAINER_EXITED").then(|| status["exitCode"].as_i64().unwrap_or(0)))
        })
    }

    /// Host PID of its init.
    pub fn pid(&self) -> Result<u32, Failure> {
        if let Some(pid) = self.pid.get() {
            return Ok(*pid);
        }
        let text = exec_ok(&["crictl", "inspect", &self.id])?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("crictl inspect: {e}"))?;
        let pid = value["info"]["pid"].as_u64().and_then(|p| u32::try_from(p).ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or("no pid in crictl inspect")?;
        Ok(*self.pid.get_or_init(|| pid))
    }

    /// A path inside of it, as the host reaches it while it runs.
    pub fn path(&self, path: &str) -> Result<std::path::PathBuf, Failure> {
        Ok(format!("/proc/{}/root{path}", self.pid()?).into())
    }

    /// A file of it; no process is needed for that inside.
    pub fn file(&self, path: &str) -> Result<String, Failure> {
        let there = self.path(path)?;
        let bytes = std::fs::read(there).map_err(|e| format!("{}: {path}: {e}", self.name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs a command in it.
    pub fn exec(&self, argv: &[&str]) -> Result<shell::Finished, Failure> {
        let mut all = vec!["crictl", "exec", &self.id];
        all.extend(argv);
        exec(&all)
    }

    /// Its log as kubelet would show it: (stream, line).
    pub fn logs(&self) -> Result<Vec<(String, String)>, Failure> {
        let text = std::fs::read_to_string(&self.log).map_err(|e| format!("{}: {e}", self.log))?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(4, ' ');
                let (_, stream, _, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
                Some((stream.to_owned(), rest.to_owned()))
            })
            .collect())
    }

    /// Stops it with a grace period in seconds.
    pub fn stop(&self, grace: u32) -> Result<(), Failure> {
        exec_ok(&["crictl", "stop", "--timeout", &grace.to_string(), &self.id]).map(drop)
    }

    /// Removes it.
    pub fn remove(&self) -> Result<(), Failure> {
        exec_ok(&["crictl", "rm", &self.id]).map(drop)
    }
}

/// Lays `patch` over `base`, objects key by key.
pub fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}
