//! Hooks of the spec, by the point of the container's life at which each is run.
//!
//! | hook | where | when |
//! |---|---|---|
//! | `prestart`, `createRuntime` | host | the namespaces are there, the root is not changed yet: the container waits |
//! | `createContainer` | container's namespaces, host's files | then |
//! | `startContainer` | container | before the program |
//! | `poststart` | host | after `start` |
//! | `poststop` | host | after `delete` |

use cryopod_init::plan::Hook;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::making::Request;

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
