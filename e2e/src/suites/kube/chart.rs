//! The life of the chart: `helm test`, an upgrade that drops a handler, a refused and a finished `helm uninstall`, and the
//! installation that follows. Runs last, since it takes away what the other tests work with.

use serde_json::Value;

use crate::kube::{self, AFTER_KILLS, PATIENCE, apply, counter, delete, kubectl, until_running};
use crate::shell::{self, Finished, eventually};
use crate::suite::{Failure, ensure};

const NAMESPACE: &str = "cryopod-system";
const LIBRARY: &str = "/usr/local/lib/cryopod";
const DROP_IN: &str = "/etc/containerd/conf.d/cryopod.toml";
/// As the chart's values have them: `--reuse-values` keeps what was set before, and null would be nothing at all.
const BOTH: &str = r#"runtimeClasses=[{"name":"cryopod","overhead":{"memory":"8Mi","cpu":"10m"}},{"name":"cryopod-lxc","overhead":{"memory":"10Mi","cpu":"10m"}}]"#;
const LXC: &str = "cryopod.dev/handler-cryopod-lxc";

pub(super) fn helm_test() -> Result<(), Failure> {
    let said = helm_ok(&["test", "cryopod", "--timeout", "10m"])?;
    ensure(said.matches("Phase:").count() == said.matches("Succeeded").count(), || said.clone())?;
    for name in ["cryopod-test-nodes", "cryopod-test-cryopod", "cryopod-test-cryopod-lxc"] {
        ensure(said.contains(name), || format!("{name} has not run: {said}"))?;
    }
    Ok(())
}

/// A handler that is dropped takes no new pods at once and stays for the one that it has; the pod runs on through all of it.
pub(super) fn dropped_handler() -> Result<(), Failure> {
    let node = kube::node_name()?;
    apply(&counter("last-of-lxc", Some("cryopod-lxc")))?;
    until_running("last-of-lxc")?;
    let before = kube::count("last-of-lxc")?;
    upgrade(&["--set-json", r#"runtimeClasses=[{"name":"cryopod"}]"#])?;
    ensure(!labels()?.contains(LXC), || "the node still offers cryopod-lxc".into())?;
    let drop_in = kube::in_node(&node, &format!("cat {DROP_IN}"))?;
    ensure(drop_in.contains("runtimes.cryopod-lxc]"), || "the handler of a running pod is gone".into())?;
    let after = kube::count("last-of-lxc")?;
    ensure(after.0 == before.0 && after.1 > before.1, || format!("{before:?}, then {after:?}"))?;
    kubectl(&["delete", "pod", "last-of-lxc", "--timeout=120s"])?;
    // The next setup finds no pod of it.
    kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/cryopod-agent"])?;
    rolled_out()?;
    let drop_in = kube::in_node(&node, &format!("cat {DROP_IN}"))?;
    ensure(!drop_in.contains("cryopod-lxc"), || format!("the handler is still there: {drop_in}"))?;
    upgrade(&["--set-json", BOTH])?;
    ensure(labels()?.contains(LXC), || "the node does not offer cryopod-lxc again".into())
}

pub(super) fn refused_while_a_pod_runs() -> Result<(), Failure> {
    apply(&counter("in-the-way", Some("cryopod")))?;
    until_running("in-the-way")?;
    let before = kube::count("in-the-way")?;
    let (labels_before, drop_in) =
        (labels()?, kube::in_node(&kube::node_name()?, &format!("cat {DROP_IN}"))?);
    let done = helm(&["uninstall", "cryopod", "--timeout", "5m"])?;
    ensure(done.code != 0, || format!("helm uninstall took the node away from a pod: {}", done.stdout))?;
    let log = kubectl(&["-n", NAMESPACE, "logs", "job/cryopod-uninstall-check"])?;
    ensure(log.contains("default/in-the-way"), || format!("the hook does not name the pod: {log}"))?;
    ensure(labels()? == labels_before, || "the node's labels have changed".into())?;
    let now = kube::in_node(&kube::node_name()?, &format!("cat {DROP_IN}"))?;
    ensure(now == drop_in, || "containerd's drop-in has changed".into())?;
    // As the guide says: helm notes that it is uninstalling before it asks, and upgrades nothing until that is taken back.
    let history: Value = serde_json::from_str(&helm_ok(&["history", "cryopod", "-o", "json"])?)
        .map_err(|error| error.to_string())?;
    let last = history.as_array().and_then(|all| all.last()).map(|it| it["revision"].to_string());
    let last = last.ok_or("the release has no revision")?;
    helm_ok(&["rollback", "cryopod", &last, "--wait", "--timeout", "10m"])?;
    upgrade(&[])?;
    let after = kube::count("in-the-way")?;
    ensure(after.0 == before.0 && after.1 > before.1, || format!("{before:?}, then {after:?}"))?;
    delete(&["pod", "in-the-way"])
}

/// Nothing of it is left on the node, and the same chart can be installed again, and removed again.
pub(super) fn uninstall_and_install() -> Result<(), Failure> {
    let node = kube::node_name()?;
    let values = helm_ok(&["get", "values", "cryopod", "-o", "json"])?;
    let file = std::env::temp_dir().join(format!("cryopod-values-{}.json", std::process::id()));
    std::fs::write(&file, values).map_err(|error| format!("{}: {error}", file.display()))?;
    let result = (0..2).try_for_each(|_| {
        helm_ok(&["uninstall", "cryopod", "--wait", "--timeout", "10m"])?;
        clean(&node)?;
        let chart = chart()?;
        let file = file.display().to_string();
        helm_ok(&["install", "cryopod", &chart, "--values", &file, "--wait", "--timeout", "10m"])?;
        rolled_out()?;
        ensure(labels()?.contains(LXC), || "the node is not ready again".into())
    });
    std::fs::remove_file(&file).ok();
    result?;
    // Definitions stay with their objects, and the agents find them.
    kubectl(&["get", "crd", "podcheckpoints.cryopod.dev"])?;
    eventually("kubectl cryopod doctor", PATIENCE, || {
        Ok((kube::try_kubectl(&["cryopod", "doctor"])?.code == 0).then_some(()))
    })
}

fn clean(node: &str) -> Result<(), Failure> {
    ensure(labels()?.is_empty(), || format!("labels are left: {}", labels().unwrap_or_default()))?;
    let left = format!(
        "ls -d {LIBRARY} {DROP_IN} /var/lib/cryopod/setup.json /etc/systemd/system/cryopod-recover.service \
         /usr/local/bin/cryopod /usr/local/bin/containerd-shim-cryopod* 2>/dev/null || true
         containerd config dump | grep cryopod || true"
    );
    let left = kube::in_node(node, &left)?;
    ensure(left.trim().is_empty(), || format!("left on the node: {left}"))
}

/// Names of the node's labels of ours.
fn labels() -> Result<String, Failure> {
    let node = kube::get("node", &kube::node_name()?)?.ok_or("the node is gone")?;
    let labels = node["metadata"]["labels"].as_object();
    let ours = labels.into_iter().flatten().filter(|(key, _)| key.starts_with("cryopod.dev/"));
    Ok(ours.map(|(key, value)| format!("{key}={value}\n")).collect())
}

fn upgrade(more: &[&str]) -> Result<(), Failure> {
    let chart = chart()?;
    let arguments = ["upgrade", "cryopod", &chart, "--reuse-values", "--wait", "--timeout", "10m"];
    helm_ok(&[&arguments, more].concat())?;
    rolled_out()
}

/// helm does not wait for the last pod of a DaemonSet.
fn rolled_out() -> Result<(), Failure> {
    let timeout = format!("--timeout={}s", AFTER_KILLS.as_secs());
    kubectl(&["-n", NAMESPACE, "rollout", "status", "daemonset/cryopod-agent", &timeout]).map(|_| ())
}

/// The chart of the checkout that the cluster was installed from.
fn chart() -> Result<String, Failure> {
    std::env::var("CRYOPOD_CHART").map_err(|_| "CRYOPOD_CHART is not set".into())
}

fn helm(arguments: &[&str]) -> Result<Finished, Failure> {
    shell::exec(&[&["helm", "--namespace", NAMESPACE], arguments].concat())
}

fn helm_ok(arguments: &[&str]) -> Result<String, Failure> {
    shell::exec_ok(&[&["helm", "--namespace", NAMESPACE], arguments].concat())
}
