//! New limits, in any state.
//!
//! A container that waits to be restored is unknown to its runtime, which brings it back with the limits of the
//! bundle's config.json. So they are written there: the memory comes back into a cgroup that has them already, where
//! limits set afterwards would come too late for a pod that was made smaller.

use std::path::Path;

use cryopod_command::Limits;
use serde_json::{Value, json};

use super::{Container, Launch, STEP_WITHIN};
use crate::bundle::{self, BundleError, MAX_CONFIG_BYTES};
use crate::error::{TaskError, blocking};
use crate::process::state::State;

impl Container {
    /// Applies new limits (OCI `LinuxResources`), in any state.
    ///
    /// # Errors
    /// Those of the backend; of a container that waits to be restored, when its config.json cannot be written.
    pub async fn update(&self, resources: Value) -> Result<(), TaskError> {
        let _op = self.turn("update").await;
        let waits = {
            let inner = self.inner();
            inner.init.state == State::Created && inner.launch != Launch::Fresh
        };
        if waits {
            let bundle = self.bundle.clone();
            return blocking(move || into_bundle(&bundle, &resources)).await;
        }
        let (backend, id) = (self.backend(), self.id.clone());
        blocking(move || backend.update(&id, &resources, &Limits::within(STEP_WITHIN))).await
    }
}

fn into_bundle(bundle: &Path, resources: &Value) -> Result<(), TaskError> {
    let path = bundle.join("config.json");
    let bytes = bundle::read_bounded(&path, MAX_CONFIG_BYTES)?;
    let parsed = serde_json::from_slice(&bytes);
    let mut spec = parsed.map_err(|source| BundleError::Parse { path: path.clone(), source })?;
    if !resources.is_object() {
        let reason = "it is not an object".to_owned();
        return Err(TaskError::Malformed { what: "resources", reason });
    }
    lay_over(&mut spec, json!({"linux": {"resources": resources}}));
    Ok(bundle::write_atomically(&path, &spec)?)
}

/// What an update does not name stays, as with the runtimes.
fn lay_over(old: &mut Value, new: Value) {
    match (old, new) {
        (_, Value::Null) => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                lay_over(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(config: &Value, resources: &Value) -> Result<Value, TaskError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        into_bundle(dir.path(), resources)?;
        Ok(serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
    }

    #[test]
    fn what_is_named_changes_and_the_rest_of_the_spec_stays() {
        let config = json!({
            "ociVersion": "1.2.0",
            "linux": {"cgroupsPath": "/p", "resources": {
                "memory": {"limit": 1, "swap": 2}, "pids": {"limit": 3}, "unified": {"memory.high": "4"},
            }},
        });
        let new = json!({
            "memory": {"limit": 10}, "cpu": {"quota": 5}, "unified": {"memory.low": "6"}, "pids": null,
        });
        let expected = json!({
            "ociVersion": "1.2.0",
            "linux": {"cgroupsPath": "/p", "resources": {
                "memory": {"limit": 10, "swap": 2}, "pids": {"limit": 3}, "cpu": {"quota": 5},
                "unified": {"memory.high": "4", "memory.low": "6"},
            }},
        });
        assert_eq!(updated(&config, &new).unwrap(), expected);
        let bare = updated(&json!({"ociVersion": "1.2.0"}), &json!({"pids": {"limit": 3}})).unwrap();
        assert_eq!(bare["linux"]["resources"]["pids"]["limit"], 3);
    }

    #[test]
    fn resources_that_are_none_are_refused() {
        assert!(matches!(updated(&json!({}), &json!(7)), Err(TaskError::Malformed { .. })));
    }
}
