//! What can be asked of a container at any time: nothing here waits for a runtime call.

use containerd_shim_protos::shim::shim::StateResponse;
use cryopod_runtime::cgroup::Cgroup;
use cryopod_runtime::stats::{self, Stats};
use protobuf::EnumOrUnknown;
use tokio::sync::watch;

use super::{Container, Launch};
use crate::error::{TaskError, blocking};
use crate::events::timestamp;
use crate::exits::Exit;
use crate::process::state::State;

/// A container in one line, for Control and the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// State of init.
    pub state: State,
    /// PID of init.
    pub pid: u32,
    /// Execs that are registered.
    pub execs: usize,
    /// Checkpoint it was restored from; empty if it was started afresh.
    pub restored_from: String,
}

impl Container {
    /// The answer to State.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn state(&self, exec_id: &str) -> Result<StateResponse, TaskError> {
        let mut inner = self.inner();
        let process = inner.process(&self.id, exec_id)?;
        if matches!(process.state, State::Creating | State::Deleted) {
            return Err(TaskError::NoContainer { id: self.id.clone() });
        }
        let mut response = StateResponse::new();
        response.id.clone_from(&self.id);
        response.exec_id = exec_id.to_owned();
        response.bundle = self.bundle.display().to_string();
        response.pid = process.pid();
        response.status = EnumOrUnknown::new(process.state.status());
        response.stdin.clone_from(&process.stdio.stdin);
        response.stdout.clone_from(&process.stdio.stdout);
        response.stderr.clone_from(&process.stdio.stderr);
        response.terminal = process.stdio.terminal;
        if let State::Stopped(exit) = process.state {
            response.exit_status = exit.status;
            response.exited_at = Some(timestamp(exit.at)).into();
        }
        Ok(response)
    }

    /// Becomes `Some` when the process is STOPPED; valid until it is deleted.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn done(&self, exec_id: &str) -> Result<watch::Receiver<Option<Exit>>, TaskError> {
        Ok(self.inner().process(&self.id, exec_id)?.done())
    }

    /// PIDs of all its processes with the exec ids of those that are execs.
    ///
    /// Never empty before Delete: containerd deletes a task without processes when it loads the shim
    /// (`shouldCleanupShim`), and with it the exit code of what ended while containerd was away. A container that
    /// ended is shown with the PID its init had, one that waits to be restored with 0.
    ///
    /// # Errors
    /// When there is no cgroup to read although init lives.
    pub async fn pids(&self) -> Result<Vec<(u32, Option<String>)>, TaskError> {
        let (init, lives, cgroup, execs) = {
            let inner = self.inner();
            let execs: Vec<(u32, String)> =
                inner.execs.values().filter(|e| e.pid() != 0).map(|e| (e.pid(), e.exec_id.clone())).collect();
            (inner.init.pid(), inner.init.state.ended().is_none(), inner.cgroup.clone(), execs)
        };
        let mut pids = match cgroup {
            Some(cgroup) => blocking(move || cgroup.processes()).await.unwrap_or_default(),
            None => Vec::new(),
        };
        if pids.is_empty() || (lives && init != 0 && !pids.contains(&init)) {
            pids.insert(0, init);
        }
        let exec_of = |pid: u32| execs.iter().find(|(exec, _)| *exec == pid).map(|(_, id)| id.clone());
        Ok(pids.into_iter().map(|pid| (pid, exec_of(pid))).collect())
    }

    /// PID of init, 0 while there is none.
    pub fn pid(&self) -> u32 {
        self.inner().init.pid()
    }

    /// State of init.
    pub fn init_state(&self) -> State {
        self.inner().init.state
    }

    /// One line about it.
    pub fn summary(&self) -> Summary {
        let inner = self.inner();
        Summary {
            id: self.id.clone(),
            name: self.brief.name(&self.id).to_owned(),
            state: inner.init.state,
            pid: inner.init.pid(),
            execs: inner.execs.len(),
            restored_from: match &inner.launch {
                Launch::Fresh => String::new(),
                Launch::Restore { from, .. } => from.clone(),
            },
        }
    }

    /// Its cgroup, while it has one.
    pub fn cgroup(&self) -> Option<Cgroup> {
        self.inner().cgroup.clone()
    }

    /// Counters of its cgroup.
    ///
    /// # Errors
    /// When it has none any more.
    pub async fn stats(&self) -> Result<Stats, TaskError> {
        let cgroup = self.inner().cgroup.clone();
        let cgroup = cgroup
            .ok_or_else(|| TaskError::NotStarted { id: self.id.clone(), process: "init".to_owned() })?;
        blocking(move || stats::read(&cgroup)).await
    }
}
