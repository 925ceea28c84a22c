//! What can be done to a node, and why nothing is: the words between the plan and whoever carries it out.

use std::collections::BTreeMap;
use std::fmt;

use super::imports;
use super::state::State;

/// One thing to do. Each can be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets labels of the node; none takes one off.
    Label(BTreeMap<String, Option<String>>),
    /// Writes the marker: a change begins.
    Begin(State),
    /// Writes the marker: the change is complete, now.
    Complete(State),
    /// Takes the marker away.
    Forget,
    /// Keeps a drop-in of somebody else under another name.
    BackUp,
    /// Writes our drop-in.
    WriteDropIn(String),
    /// Removes it.
    RemoveDropIn,
    /// Writes the main configuration.
    WriteMain(String),
    /// Removes it.
    RemoveMain,
    /// Asks containerd whether it can read its configuration, and has these handlers then; takes the change back if not.
    Verify(Vec<String>),
    /// Restarts containerd.
    Restart(&'static str),
    /// Ends with the request to restart it.
    AskForRestart(&'static str),
    /// Waits until the node is Ready and kubelet sees these handlers.
    AwaitHandlers(Vec<String>),
    /// Waits until the node is Ready and kubelet sees none of them.
    AwaitNoHandlers(Vec<String>),
    /// Ends with an error if a pod of ours has started meanwhile.
    StillUnused,
    /// Removes the programs that an image brought.
    RemovePrograms,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No unit.
    #[error("none of these units is active here: {0}; without containerd there is nothing to set up")]
    NoContainerd(String),
    /// Drop-ins of an older one replace whole sections.
    #[error(
        "containerd {0} is too old, it has to be 2.0 or newer: before, a drop-in replaces what the main file says"
    )]
    TooOld(String),
    /// The main configuration stays as it is.
    #[error("{file} is left alone: {why}")]
    Main {
        /// Which file.
        file: String,
        /// What is in the way.
        why: imports::Refused,
    },
    /// It is rendered by somebody else.
    #[error(
        "{file} is not there or does not import {pattern}: the distribution is older than the releases with containerd 2, or \
         runs with another --data-dir than its usual one, which setup does not know"
    )]
    NoImport {
        /// Which file.
        file: String,
        /// What it should import.
        pattern: String,
    },
    /// Nothing would work.
    #[error("none of the handlers can work here: {0}")]
    Impossible(String),
    /// A name that is not ours.
    #[error("{0:?} is no handler of cryopod: they are called cryopod or cryopod-RUNTIME, in small letters")]
    NoHandler(String),
    /// Pods run.
    #[error(
        "pods of cryopod run here and would be lost: {0}. Delete or drain them (`kubectl get pods -A --field-selector \
         spec.nodeName=NODE`), then try again; nothing has been changed"
    )]
    InUse(String),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(labels) => {
                let one = |(key, value): (&String, &Option<String>)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => format!("{key}-"),
                };
                write!(f, "label the node: {}", labels.iter().map(one).collect::<Vec<_>>().join(" "))
            }
            Self::Begin(_) => f.write_str("note that the configuration of containerd is being changed"),
            Self::Complete(_) => f.write_str("note that the change is complete"),
            Self::Forget => f.write_str("forget the state of the setup"),
            Self::BackUp => f.write_str("keep the present drop-in beside ours"),
            Self::WriteDropIn(_) => f.write_str("write containerd's drop-in"),
            Self::RemoveDropIn => f.write_str("remove containerd's drop-in"),
            Self::WriteMain(_) => f.write_str("write the imports of containerd's main configuration"),
            Self::RemoveMain => f.write_str("remove containerd's main configuration, which setup made"),
            Self::Verify(_) => f.write_str("ask containerd whether it reads that"),
            Self::Restart(unit) => write!(f, "restart {unit}"),
            Self::AskForRestart(unit) => write!(f, "wait for a restart of {unit}"),
            Self::AwaitHandlers(names) => write!(f, "wait until the node is Ready with {}", names.join(", ")),
            Self::AwaitNoHandlers(names) => {
                write!(f, "wait until the node is Ready without {}", names.join(", "))
            }
            Self::StillUnused => f.write_str("look again whether pods run"),
            Self::RemovePrograms => f.write_str("remove the programs"),
        }
    }
}
