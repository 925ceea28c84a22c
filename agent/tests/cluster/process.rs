//! The agent's process, on a node that it does not share with this machine: `/run` and `/var/lib` are its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cryopod_checkpoint::digest;
use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::manifest::Manifest;

/// Name of its Node object.
pub(crate) const NODE: &str = "own";
/// Namespace of the lease.
pub(crate) const LEADERS: &str = "cryopod-system";

/// Mounts what the agent writes to, and becomes the agent.
const ENTER: &str = "mount -t tmpfs cryopod-test /run && mount -t tmpfs cryopod-test /var/lib && exec \"$@\"";

/// A node with a directory store.
pub(crate) struct Node {
    _dir: tempfile::TempDir,
    config: PathBuf,
    kubeconfig: PathBuf,
}

impl Node {
    /// With these checkpoints in it.
    pub(crate) fn with_store(kubeconfig: &str, ids: &[CheckpointId]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let sample = include_str!("../../../checkpoint/src/manifest/v1.json");
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("cryopod"), "").unwrap();
        for id in ids {
            // Its snapshots are named after it.
            let text = sample.replace("web-20260304-050607-00ff", id.as_str());
            checkpoint(&store.join("checkpoints").join(id.as_str()), text.as_bytes());
        }
        let config = dir.path().join("config.toml");
        let text =
            format!("[store]\nkind = \"dir\"\n[store.dir]\npath = {:?}\n", store.display().to_string());
        fs::write(&config, text).unwrap();
        Self { _dir: dir, config, kubeconfig: fs::canonicalize(kubeconfig).unwrap() }
    }
}

/// A committed checkpoint as the directory store has it.
fn checkpoint(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.join("memory")).unwrap();
    fs::write(path.join("cryopod"), "").unwrap();
    let manifest = Manifest::parse(bytes).unwrap();
    fs::write(path.join("memory/manifest.json"), bytes).unwrap();
    let marker =
        serde_json::json!({ "version": 1, "manifest": digest::of(bytes), "summary": manifest.summary() });
    fs::write(path.join("committed"), marker.to_string()).unwrap();
}

/// A running agent; it ends with this.
pub(crate) struct Agent {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Agent {
    pub(crate) fn start(node: &Node) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if !nix::unistd::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", ENTER, "agent", env!("CARGO_BIN_EXE_cryopod-agent"), "run"]);
        command.args(["--node-name", NODE, "--namespace", LEADERS, "--listen", "127.0.0.1:0"]);
        command.arg("--config").arg(&node.config).arg("--kubeconfig").arg(&node.kubeconfig);
        command.env_remove("CRYOPOD_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with these words; the number behind `key` in it.
    pub(crate) fn says(&mut self, words: &str, key: &str) -> f64 {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("the agent does not say {words:?}:\n{}", self.seen.join("\n"));
            };
            let found = line.contains(words);
            self.seen.push(line);
            if found {
                return self.last(key);
            }
        }
    }

    /// The number behind `key` in the last line.
    pub(crate) fn last(&self, key: &str) -> f64 {
        let line = self.seen.last().unwrap();
        let rest = line.split_once(key).unwrap_or_else(|| panic!("{key} is not in {line}")).1;
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// A line of /proc/PID/status, in KiB.
    pub(crate) fn memory(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
