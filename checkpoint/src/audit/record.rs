//! One line of the audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::CheckpointId;
use crate::target::PodIdentity;

/// Format of a record.
const VERSION: u32 = 1;
/// Longest message and longest label; a line has room for many of them.
const MAX_TEXT: usize = 2048;
/// Most labels that are written down.
const MAX_LABELS: usize = 16;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A pod or container was captured.
    Capture,
    /// A checkpoint was put in the place of a new container.
    Restore,
    /// A checkpoint was deleted.
    Delete,
    /// A checkpoint was written to a stream: its memory left the node.
    Export,
    /// A checkpoint came from a stream.
    Import,
    /// A person keeps it from being pruned.
    Hold,
    /// Nobody does any more.
    Release,
    /// A torn line of this log was cut off.
    Repair,
}

/// How it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Success,
    /// It was not; nothing of it is left.
    Failure,
}

/// Which process did it, for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Program, e.g. `cryopod-agent`.
    pub program: String,
    /// Its PID.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Who logged in, where the kernel knows (`/proc/self/loginuid`, which sudo does not change).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Who asked a cluster for it, by the name that its API server knows; as true as the cluster's admission makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Actor {
    /// This process.
    pub fn this(program: &str) -> Self {
        let login = std::fs::read_to_string("/proc/self/loginuid").ok();
        // 4294967295: nobody has logged in, it is a service.
        let login =
            login.map(|uid| uid.trim().to_owned()).filter(|uid| !uid.is_empty() && uid != "4294967295");
        Self {
            program: program.to_owned(),
            pid: std::process::id(),
            uid: nix::unistd::geteuid().as_raw(),
            login,
            user: None,
        }
    }
}

/// What is written down of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(super) operation: Operation,
    checkpoint: Option<CheckpointId>,
    pod: Option<PodIdentity>,
    labels: BTreeMap<String, String>,
    outcome: Outcome,
    message: Option<String>,
    duration: Option<Duration>,
    freeze: Option<Duration>,
    bytes: Option<u64>,
    user: Option<String>,
}

impl Entry {
    /// An operation that succeeded, so far nameless.
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            checkpoint: None,
            pod: None,
            labels: BTreeMap::new(),
            outcome: Outcome::Success,
            message: None,
            duration: None,
            freeze: None,
            bytes: None,
            user: None,
        }
    }

    /// For which user of a cluster, where the caller knows.
    pub fn asked_by(mut self, user: Option<&str>) -> Self {
        self.user = user.filter(|user| !user.is_empty()).map(cut);
        self
    }

    /// On which checkpoint.
    pub fn checkpoint(mut self, id: &CheckpointId) -> Self {
        self.checkpoint = Some(id.clone());
        self
    }

    /// Of which pod.
    pub fn pod(mut self, pod: &PodIdentity) -> Self {
        self.pod = Some(pod.clone());
        self
    }

    /// With which labels of the caller: for a capture that a cluster's object asked for, that object.
    pub fn labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        let short = |(key, value): (&String, &String)| (cut(key), cut(value));
        self.labels = labels.iter().take(MAX_LABELS).map(short).collect();
        self
    }

    /// How long it took, how long the pod stood still, and how large it is.
    pub fn figures(mut self, duration: Duration, freeze: Duration, bytes: u64) -> Self {
        (self.duration, self.freeze, self.bytes) = (Some(duration), Some(freeze), Some(bytes));
        self
    }

    /// Words about it.
    pub fn message(mut self, message: impl AsRef<str>) -> Self {
        self.message = Some(cut(message.as_ref()));
        self
    }

    /// As the result says.
    pub fn result<T, E: std::fmt::Display>(mut self, result: &Result<T, E>) -> Self {
        if let Err(error) = result {
            self.outcome = Outcome::Failure;
            self = self.message(error.to_string());
        }
        self
    }
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

/// A record as it stands in the log. Fields are written in this order, which is part of the format: the hash is over the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Format.
    pub version: u32,
    /// 1 for the first of a log.
    pub number: u64,
    /// When it ended.
    pub time: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub operation: Operation,
    /// On which checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// Of which pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodIdentity>,
    /// The caller's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why not, or words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Microseconds from begin to commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// Microseconds in which no task of the pod ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_us: Option<u64>,
    /// Memory and disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Hash of the record before it, 64 hexadecimal digits; empty for the first.
    pub previous: String,
    /// SHA-256 of this line with an empty hash, 64 hexadecimal digits.
    pub hash: String,
}

impl Record {
    /// The record that follows `last`.
    pub(super) fn after(last: Option<&Self>, entry: Entry, actor: Actor) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut record = Self {
            version: VERSION,
            number: last.map_or(1, |last| last.number.saturating_add(1)),
            time: Timestamp::now(),
            actor: Actor { user: entry.user.or(actor.user), ..actor },
            operation: entry.operation,
            checkpoint: entry.checkpoint,
            pod: entry.pod,
            labels: entry.labels,
            outcome: entry.outcome,
            message: entry.message,
            duration_us: entry.duration.map(micros),
            freeze_us: entry.freeze.map(micros),
            bytes: entry.bytes,
            previous: last.map(|last| last.hash.clone()).unwrap_or_default(),
            hash: String::new(),
        };
        record.hash = record.digest();
        record
    }

    /// What its hash has to be.
    pub(super) fn digest(&self) -> String {
        let bare = Self { hash: String::new(), ..self.clone() };
        Sha256::digest(bare.line().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As a line, without its end.
    pub(super) fn line(&self) -> String {
        // A struct of numbers and texts always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}
