//! `[[routing]]` rules in the node's configuration: a pod that one matches runs in the runtime that it gives, all of it
//! and for as long as it lives; the others run in the default one.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{CRUN, Case, NONE};
use crate::crictl::{Container, Pod, Spec};
use crate::suite::{Failure, ensure};
use crate::{cryopod, shell};

pub const CASES: &[Case] = &[("a_rule_gives_a_pod_another_runtime", CRUN, NONE, routed)];

const DIRECTORY: &str = "/etc/cryopod/conf.d";
const FILE: &str = "/etc/cryopod/conf.d/99-routing.toml";
const LABEL: &str = "e2e.cryopod.dev/isolation";

/// By its label alone; the first rule matches neither pod, and would give what does not exist in this node.
const RULES: &str = r#"[runtime.nothing]
path = "/nonexistent/runtime"

[[routing]]
namespace = "kube-*"
backend = "nothing"

[[routing]]
labels = { "e2e.cryopod.dev/isolation" = "str?ct" }
backend = "runc"
"#;

/// Where both runtimes keep the state of containers of CRI; a directory of the other one is none of a container to them.
const ROOT: &str = "/run/cryopod/oci/k8s.io";

/// The file with the rules; gone when dropped, or the pods of all other tests would be asked about.
struct Rules {
    made_directory: bool,
}

impl Rules {
    fn write() -> Result<Self, Failure> {
        let rules = Self { made_directory: !Path::new(DIRECTORY).exists() };
        std::fs::create_dir_all(DIRECTORY).map_err(|e| format!("{DIRECTORY}: {e}"))?;
        std::fs::write(FILE, RULES).map_err(|e| format!("{FILE}: {e}"))?;
        Ok(rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let removed = std::fs::remove_file(FILE).and_then(|()| match self.made_directory {
            true => std::fs::remove_dir(DIRECTORY),
            false => Ok(()),
        });
        if let Err(e) = removed {
            eprintln!("clean-up of {FILE}: {e}");
        }
    }
}

/// Ids of the containers that a runtime holds.
fn held(runtime: &str) -> Result<Vec<String>, Failure> {
    let text = shell::exec_ok(&[runtime, "--root", ROOT, "list", "-q"])?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// The container is held by `runtime` and not by `other`.
fn runs_in(container: &Container, runtime: &str, other: &str) -> Result<(), Failure> {
    let (here, there) = (held(runtime)?, held(other)?);
    ensure(here.contains(&container.id), || {
        format!("{} ({}) is none of {runtime}'s: {here:?}", container.name, container.id)
    })?;
    ensure(!there.contains(&container.id), || format!("{} is {other}'s too", container.name))?;
    ensure(container.state()? == "RUNNING", || format!("{} does not run", container.name))
}

/// What the command says of such a pod, in JSON.
fn explained(labels: &[&str]) -> Result<serde_json::Value, Failure> {
    let mut argv = vec!["route", "explain", "--namespace", "default", "--pod", "routed"];
    argv.extend(labels.iter().flat_map(|label| ["--label", label]));
    cryopod::ok(&argv)
}

fn routed(handler: &str) -> Result<(), Failure> {
    let rules = Rules::write()?;
    cryopod::ok(&["config", "check"])?;
    let label = format!("{LABEL}=strict");
    let answer = explained(&[&label])?;
    let right = answer["backend"] == "runc" && answer["rule"]["file"] == FILE && answer["rule"]["line"] == 8;
    ensure(right && answer["passed"][0]["line"] == 4, || format!("`route explain` answers {answer}"))?;
    let answer = explained(&[])?;
    ensure(answer["backend"] == "crun" && answer["rule"].is_null(), || {
        format!("`route explain` answers {answer} without the label")
    })?;

    let labels = json!({"labels": {LABEL: "strict"}});
    let routed = Pod::run_with(handler, "routed", &BTreeMap::new(), &labels)?;
    let usual = Pod::run(handler, "usual")?;
    let sleep = |name| Spec::sh(name, "sleep 1000");
    let (first, other) = (routed.start(&sleep("first"))?, usual.start(&sleep("other"))?);
    runs_in(&first, "runc", "crun")?;
    runs_in(&other, "crun", "runc")?;
    let state = cryopod::ok(&["state", &routed.id])?;
    ensure(state["containers"][0]["backend"] == "oci/runc", || format!("the shim says {state}"))?;
    let done = first.exec(&["echo", "hello"])?;
    ensure(done.stdout == "hello\n", || format!("exec in it: {:?} {}", done.stdout, done.stderr))?;

    // What was decided stands, whatever the files say later.
    drop(rules);
    let second = routed.start(&sleep("second"))?;
    runs_in(&second, "runc", "crun")?;
    let later = Pod::run_with(handler, "later", &BTreeMap::new(), &labels)?;
    let third = later.start(&sleep("third"))?;
    runs_in(&third, "crun", "runc")?;
    later.remove()?;
    routed.remove()?;
    usual.remove()
}
