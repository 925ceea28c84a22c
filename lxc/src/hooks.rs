//! Hooks of the spec, by the point of the container's life at which each is run, and the gate at which a container in the
//! making waits for those of the host.
//!
//! | hook | where | when |
//! |---|---|---|
//! | `prestart`, `createRuntime` | host | the namespaces are there, the root is not changed yet: at the gate |
//! | `createContainer` | container's namespaces, host's files | then |
//! | `startContainer` | container | before the program |
//! | `poststart` | host | after `start` |
//! | `poststop` | host | after `delete` |

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cryopod_init::hooks::run_all;
use cryopod_init::plan::Hook;
use cryopod_init::report::Report;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::making::{Error, Request, host};

/// All of a spec, each with the state that it is given, but for the PID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// `prestart` and `createRuntime`.
    #[serde(skip)]
    pub create_runtime: Vec<Hook>,
    /// `createContainer`.
    #[serde(skip)]
    pub create_container: Vec<Hook>,
    /// `startContainer`.
    #[serde(skip)]
    pub start_container: Vec<Hook>,
    /// `poststart`; kept with the container.
    pub poststart: Vec<Hook>,
    /// `poststop`; likewise.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Those of the container that is asked for.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let Some(hooks) = request.spec.hooks().as_ref() else { return Self::default() };
        let list = |wanted: &Option<Vec<oci_spec::runtime::Hook>>, status: &str| -> Vec<Hook> {
            let state = state(request, status);
            wanted.iter().flatten().map(|wanted| hook(wanted, &state)).collect()
        };
        // Deprecated, and still what some tools write.
        #[allow(deprecated)]
        let mut create_runtime = list(hooks.prestart(), "creating");
        create_runtime.extend(list(hooks.create_runtime(), "creating"));
        Self {
            create_runtime,
            create_container: list(hooks.create_container(), "creating"),
            start_container: list(hooks.start_container(), "created"),
            poststart: list(hooks.poststart(), "running"),
            poststop: list(hooks.poststop(), "stopped"),
        }
    }

    /// Whether the container has to wait for the host while it is made.
    #[must_use]
    pub fn need_a_gate(&self) -> bool {
        !(self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

/// OCI state, without the PID.
fn state(request: &Request<'_>, status: &str) -> String {
    let spec: &Spec = request.spec;
    serde_json::json!({
        "ociVersion": spec.version(),
        "id": request.id,
        "status": status,
        "bundle": request.bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    })
    .to_string()
}

fn hook(wanted: &oci_spec::runtime::Hook, state: &str) -> Hook {
    Hook {
        path: wanted.path().clone(),
        args: wanted.args().clone().unwrap_or_default(),
        env: wanted.env().clone().unwrap_or_default(),
        timeout: wanted.timeout().and_then(|seconds| u32::try_from(seconds).ok()),
        state: state.to_owned(),
    }
}

/// Our side of the gate, and the descriptors of the other.
pub(crate) struct Gate {
    ours: UnixStream,
    pub(crate) theirs: UnixStream,
    pub(crate) hooks: File,
}

impl Gate {
    pub(crate) fn make(hooks: &Hooks) -> Result<Self, Error> {
        let (ours, theirs) = host("make", "a pair of sockets", UnixStream::pair())?;
        let hooks = host("write", "the hooks", crate::create::written(&hooks.create_container))?;
        Ok(Self { ours, theirs, hooks })
    }

    /// Leaves only our side.
    pub(crate) fn into_ours(self) -> UnixStream {
        self.ours
    }
}

/// Waits for the container at the gate, runs the hooks of the host, and lets it through. One that does not get there is no
/// error here: liblxc has the reason.
pub(crate) fn pass(
    mut gate: UnixStream,
    hooks: &Hooks,
    patience: Duration,
    pid: impl FnOnce() -> io::Result<u32>,
) -> Result<(), Error> {
    host("wait for", "the container", gate.set_read_timeout(Some(patience)))?;
    match host("hear of", "the container", Report::hear(&mut gate))? {
        Some(Report::Ready | Report::Running { .. }) => {}
        Some(Report::Failed { message, errno }) => return Err(Error::Inside { message, errno }),
        None => return Ok(()),
    }
    let pid = host("find the first process of", "the container", pid())?;
    run_all(&hooks.create_runtime, pid)
        .map_err(|error| Error::Inside { message: error.to_string(), errno: error.source.raw_os_error() })?;
    host("let", "the container go on", gate.write_all(&pid.to_ne_bytes()))?;
    // Its own hooks have no limit but their own.
    host("wait for", "the container", gate.set_read_timeout(None))?;
    match host("hear of", "the container", Report::hear(&mut gate))? {
        Some(Report::Failed { message, errno }) => Err(Error::Inside { message, errno }),
        Some(_) | None => Ok(()),
    }
}
