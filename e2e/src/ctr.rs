//! Tasks by `ctr`, for the calls of the Task API that CRI has no verb for, and containerd's events as they come.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::shell::{self, Finished, eventually, exec, exec_ok};
use crate::suite::Failure;

/// The namespace that has the images.
const NAMESPACE: &str = "k8s.io";

/// The runtime under test.
const RUNTIME: &str = "io.containerd.cryopod.v2";

/// An image with a shell.
pub const BUSYBOX: &str = "localhost/busybox:1";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// `ctr` in that namespace, whatever comes of it.
pub fn ctr(args: &[&str]) -> Result<Finished, Failure> {
    let mut argv = vec!["ctr", "-n", NAMESPACE];
    argv.extend(args);
    exec(&argv)
}

/// Like [`ctr`], but it has to succeed; returns its standard output.
pub fn ctr_ok(args: &[&str]) -> Result<String, Failure> {
    let mut argv = vec!["ctr", "-n", NAMESPACE];
    argv.extend(args);
    exec_ok(&argv)
}

/// The state of a task as `ctr task ls` shows it: `RUNNING`, `PAUSED`, `STOPPED`; none when there is no such task.
pub fn state(id: &str) -> Result<Option<String>, Failure> {
    let list = ctr_ok(&["task", "ls"])?;
    let row = list.lines().find(|line| line.split_whitespace().next() == Some(id));
    Ok(row.and_then(|row| row.split_whitespace().nth(2)).map(str::to_owned))
}

/// A container with its task; both are removed when dropped.
#[derive(Debug)]
pub struct Task {
    /// Its id.
    pub id: String,
}

impl Task {
    /// `ctr run -d OPTIONS`; returns when the process runs.
    pub fn run(options: &[&str], command: &[&str]) -> Result<Task, Failure> {
        let task = Task::new();
        task.start(options, command)?;
        Ok(task)
    }

    /// Like [`Task::run`], for a name that the test has made before.
    pub fn start(&self, options: &[&str], command: &[&str]) -> Result<(), Failure> {
        let mut words = vec!["run", "-d", "--snapshotter", "zfs", "--runtime", RUNTIME];
        words.extend(options);
        words.extend([BUSYBOX, &self.id]);
        words.extend(command);
        ctr_ok(&words).map(drop)
    }

    /// A name for a container that the test makes itself.
    pub fn new() -> Task {
        Task { id: format!("e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    /// Runs a shell script.
    pub fn sh(options: &[&str], script: &str) -> Result<Task, Failure> {
        Task::run(options, &["sh", "-c", script])
    }

    /// `ctr task VERB ARGS ID`.
    pub fn task(&self, verb: &str, args: &[&str]) -> Result<Finished, Failure> {
        let mut words = vec!["task", verb];
        words.extend(args);
        words.push(&self.id);
        ctr(&words)
    }

    /// Like [`Task::task`], but it has to succeed.
    pub fn task_ok(&self, verb: &str, args: &[&str]) -> Result<String, Failure> {
        let mut words = vec!["task", verb];
        words.extend(args);
        words.push(&self.id);
        ctr_ok(&words)
    }

    /// Runs a command in it by `ctr task exec`.
    pub fn exec(&self, exec_id: &str, argv: &[&str]) -> Result<Finished, Failure> {
        let mut words = vec!["task", "exec", "--exec-id", exec_id, &self.id];
        words.extend(argv);
        ctr(&words)
    }

    /// Its state.
    pub fn state(&self) -> Result<Option<String>, Failure> {
        state(&self.id)
    }

    /// Waits until it is in that state.
    pub fn wait(&self, wanted: &str) -> Result<(), Failure> {
        eventually(&format!("task {} is {wanted}", self.id), Duration::from_secs(30), || {
            Ok((self.state()?.as_deref() == Some(wanted)).then_some(()))
        })
    }

    /// Counters of its cgroup.
    pub fn metrics(&self) -> Result<Value, Failure> {
        let text = self.task_ok("metrics", &["--format", "json"])?;
        serde_json::from_str(&text).map_err(|e| format!("ctr task metrics: {e}: {text}"))
    }

    /// Nothing is left of it that would have to be removed.
    pub fn forget(self) {
        std::mem::forget(self);
        tidy();
    }

    /// Kills it, waits, deletes task and container, each of which has to work.
    pub fn remove(self) -> Result<(), Failure> {
        if self.state()?.is_some_and(|state| state != "STOPPED") {
            self.task_ok("kill", &["--signal", "SIGKILL"])?;
            self.wait("STOPPED")?;
        }
        if self.state()?.is_some() {
            // A killed task makes ctr end with its exit code; that it is gone is what counts.
            self.task("rm", &[])?;
        }
        ctr_ok(&["container", "rm", &self.id])?;
        let id = self.id.clone();
        std::mem::forget(self);
        tidy();
        match state(&id)? {
            Some(state) => Err(format!("task {id} is still there, {state}")),
            None => Ok(()),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        for words in [&["task", "rm", "--force", &self.id] as &[&str], &["container", "rm", &self.id]] {
            if let Err(e) = ctr(words) {
                eprintln!("clean-up: {e}");
            }
        }
        tidy();
    }
}

/// containerd's namespace has a parent group that a runtime makes and nobody removes.
fn tidy() {
    std::fs::remove_dir(format!("/sys/fs/cgroup/{NAMESPACE}")).ok();
}

/// `ctr events` while it lives.
#[derive(Debug)]
pub struct Events {
    process: Child,
    path: String,
}

impl Events {
    /// Listens from now on.
    pub fn listen() -> Result<Events, Failure> {
        let path = format!("/run/cryopod-e2e/events-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir_all("/run/cryopod-e2e").map_err(|e| e.to_string())?;
        let file = File::create(&path).map_err(|e| format!("{path}: {e}"))?;
        let process = Command::new("ctr")
            .args(["-n", NAMESPACE, "events"])
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .map_err(|e| format!("cannot run ctr events: {e}"))?;
        let events = Events { process, path };
        // It says nothing when it has subscribed, so something harmless happens until it is heard.
        eventually("ctr events listens", Duration::from_secs(30), || {
            ctr_ok(&["namespaces", "label", NAMESPACE, "e2e=listen"])?;
            std::thread::sleep(Duration::from_millis(300));
            Ok((!events.text()?.is_empty()).then_some(()))
        })?;
        ctr_ok(&["namespaces", "label", NAMESPACE, "e2e="])?;
        Ok(events)
    }

    fn text(&self) -> Result<String, Failure> {
        std::fs::read_to_string(&self.path).map_err(|e| format!("{}: {e}", self.path))
    }

    /// Topics under `/tasks/` of the events about a container, in the order of their arrival, `exit` of an exec as
    /// `exit ID`.
    pub fn of(&self, container: &str) -> Result<Vec<String>, Failure> {
        let text = self.text()?;
        let mut topics = Vec::new();
        for line in text.lines() {
            let (Some(topic), Some(json)) = (line.find("/tasks/"), line.find('{')) else { continue };
            if topic > json {
                continue;
            }
            let event: Value =
                serde_json::from_str(&line[json..]).map_err(|e| format!("event {line}: {e}"))?;
            if event["container_id"] != container {
                continue;
            }
            let topic = line[topic + "/tasks/".len()..json].trim();
            let process = [&event["id"], &event["exec_id"]].into_iter().find_map(Value::as_str);
            topics.push(match process {
                Some(process) if process != container => format!("{topic} {process}"),
                _ => topic.to_owned(),
            });
        }
        Ok(topics)
    }

    /// Waits until `wanted` has arrived; returns all until then.
    pub fn until(&self, container: &str, wanted: &str) -> Result<Vec<String>, Failure> {
        eventually(&format!("event {wanted} of {container}"), Duration::from_secs(30), || {
            let topics = self.of(container)?;
            Ok(topics.iter().any(|topic| topic == wanted).then_some(topics))
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Err(e) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("clean-up: ctr events: {e}");
        }
        std::fs::remove_file(&self.path).ok();
    }
}

/// Restarts containerd, and waits until CRI answers again.
pub fn restart_containerd(while_down: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    shell::ok("systemctl stop containerd")?;
    let done = while_down();
    shell::ok("systemctl start containerd")?;
    eventually("CRI answers", Duration::from_secs(60), || {
        Ok((exec(&["crictl", "pods", "-q"])?.code == 0).then_some(()))
    })?;
    done
}
