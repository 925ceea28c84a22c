//! Containers without containerd: a bundle, a runtime, a directory below `<root>/containers`.
//!
//! The container's init is a child of a cryopod process (a subreaper), which knows its exit code and holds the
//! other ends of its pipes – the form in which CRIU can dump it and restore it elsewhere.

pub(crate) mod bundle;
pub(crate) mod console;
pub(crate) mod detached;
pub(crate) mod leftovers;
pub(crate) mod placement;
mod pumps;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod stdio;
pub(crate) mod template;

use std::time::Duration;

use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;

use crate::context::Context;
use crate::error::Error;
use registry::Entry;
use state::{State, Status};

/// Tidying up after a failure is not cancelled, but bounded.
const DISCARD: Duration = Duration::from_secs(300);

/// What a container is doing now.
pub(crate) fn status(context: &Context, state: &State) -> Status {
    let bare = state.status(false);
    if bare != Status::Running {
        return bare;
    }
    // A cgroup that cannot be read belongs to a container that is just ending.
    let frozen = state.init.is_some_and(|init| {
        let cgroup = context.backend(Some(&state.runtime)).map(|backend| backend.cgroup(&state.id, init.pid));
        matches!(cgroup, Ok(Ok(path)) if is_frozen(&path))
    });
    state.status(frozen)
}

fn is_frozen(cgroup: &std::path::Path) -> bool {
    let events = std::fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// Removes everything of a container: processes, the runtime's state, the root that was made for it, its directory.
pub(crate) fn dispose(context: &Context, entry: &Entry, limits: &Limits) -> Result<(), Error> {
    let state = match State::load(entry.dir()) {
        // Without its state the runtime still knows it; a mount, if there is one, keeps the directory.
        Err(Error::StateDamaged { .. }) => {
            context.backend(None)?.delete(entry.id(), limits)?;
            None
        }
        state => state?,
    };
    if let Some(state) = state {
        match context.backend(Some(&state.runtime)) {
            // It never had an init, so there is nothing that only its runtime could remove.
            Err(Error::NoRuntime { .. }) if state.init.is_none() => {}
            backend => backend?.delete(entry.id(), limits)?,
        }
        if state.placed {
            placement::undo(context, entry.id(), &state.rootfs, limits)?;
        }
    }
    entry.remove()
}

/// The same after a failure, whose error is the one to report.
pub(crate) fn discard(context: &Context, entry: &Entry) {
    if let Err(error) = dispose(context, entry, &Limits::within(DISCARD)) {
        tracing::error!(%error, id = entry.id(), "a container that did not come to be leaves something behind");
    }
}
