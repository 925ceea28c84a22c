//! `cryopod-agent await`: waits for a state of the whole cluster. For the hooks and tests of the chart.
//!
//! What is asked is a function of the nodes and pods ([`unmet`]); an end that comes too late names what was still missing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::setup::cluster::{client, view};
use crate::setup::{Error, HANDLER, READY};

const POLL: Duration = Duration::from_secs(2);
/// How many names a message has.
const NAMED: usize = 10;

/// Waits until the cluster is as is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to wait for.
    #[arg(value_enum)]
    state: State,
    /// RuntimeClasses whose pods are meant, with commas.
    #[arg(long, value_delimiter = ',', default_value = "cryopod,cryopod-lxc", value_name = "NAME")]
    handlers: Vec<String>,
    /// After so many seconds it ends with an error; with 0 it looks once.
    #[arg(long, default_value_t = 0, value_name = "N")]
    timeout_seconds: u64,
    /// How to reach the cluster; else as a pod of it does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// No pod of the RuntimeClasses is left that has not ended.
    PodsGone,
    /// No node has a label of setup.
    NodesClean,
    /// Each node that setup has begun with is ready for pods, and there is one.
    NodesReady,
    /// The signal to end: for the place of a container that has nothing left to do.
    Termination,
}

/// The verb.
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cryopod-agent await: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cryopod-agent await: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    if options.state == State::Termination {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?.recv().await;
        return Ok(());
    }
    let client: Client = client(options.kubeconfig.as_deref()).await?;
    let until = Instant::now() + Duration::from_secs(options.timeout_seconds);
    let mut told = Vec::new();
    loop {
        let missing = match look(&client, options).await {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) => missing,
            // The API server itself may be restarting with its node.
            Err(error) => vec![error.to_string()],
        };
        if missing != told {
            println!("waiting: {}", named(&missing));
            told.clone_from(&missing);
        }
        if Instant::now() >= until {
            return Err(advice(options.state, &missing).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn look(client: &Client, options: &Options) -> Result<Vec<String>, Error> {
    let failed = |error: kube::Error| Error::NoCluster(error.to_string());
    let everything = ListParams::default();
    let (mut nodes, mut pods) = (Vec::new(), Vec::new());
    if options.state == State::PodsGone {
        pods = Api::<Pod>::all(client.clone()).list(&everything).await.map_err(failed)?.items;
    } else {
        nodes = Api::<Node>::all(client.clone()).list(&everything).await.map_err(failed)?.items;
    }
    Ok(unmet(options.state, &options.handlers, &nodes, &pods))
}

/// What is not yet as asked; nothing if all is.
fn unmet(state: State, handlers: &[String], nodes: &[Node], pods: &[Pod]) -> Vec<String> {
    match state {
        State::Termination => Vec::new(),
        State::PodsGone => pods.iter().filter(|pod| runs(pod, handlers)).map(pod_name).collect(),
        State::NodesClean => {
            let labelled = nodes.iter().filter(|node| !view(node).labels.is_empty());
            labelled.map(|node| node.metadata.name.clone().unwrap_or_default()).collect()
        }
        State::NodesReady => {
            let ours: Vec<&Node> =
                nodes.iter().filter(|node| view(node).labels.contains_key(READY)).collect();
            if ours.is_empty() {
                return vec![format!("no node has the label {READY}")];
            }
            ours.into_iter().filter_map(|node| not_ready(node, handlers)).collect()
        }
    }
}

/// Why pods cannot run there.
fn not_ready(node: &Node, handlers: &[String]) -> Option<String> {
    let (seen, name) = (view(node), node.metadata.name.as_deref().unwrap_or_default());
    if seen.labels.get(READY).map(String::as_str) != Some("true") {
        return Some(format!("{name}: setup has not ended well"));
    }
    if !seen.ready {
        return Some(format!("{name}: not Ready"));
    }
    // A handler that cannot work there has no label, and no pods.
    let offered = handlers.iter().filter(|handler| seen.labels.contains_key(&format!("{HANDLER}{handler}")));
    let missing: Vec<&str> = offered.filter(|it| !seen.handlers.contains(*it)).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("{name}: kubelet does not see {}", missing.join(", ")))
}

fn runs(pod: &Pod, handlers: &[String]) -> bool {
    let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_ref());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    class.is_some_and(|class| handlers.contains(class)) && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn pod_name(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node yet");
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    format!("{}/{} on {node}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn named(missing: &[String]) -> String {
    let more = missing.len().saturating_sub(NAMED);
    let some = missing[..missing.len() - more].join(", ");
    if more > 0 { format!("{some} and {more} more") } else { some }
}

fn advice(state: State, missing: &[String]) -> String {
    let missing = named(missing);
    match state {
        State::PodsGone => format!(
            "these pods run with cryopod's RuntimeClasses and would be lost: {missing}. Delete them or move them to another \
             RuntimeClass, then try again; nothing has been changed"
        ),
        State::NodesClean => format!(
            "these nodes are not put back yet: {missing}. The logs of the DaemonSet's pods there say why; they go on with it"
        ),
        State::NodesReady => format!("not ready: {missing}. The log of the container `setup` there says why"),
        State::Termination => missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, labels: &serde_json::Value, ready: &str, handlers: &[&str]) -> Node {
        let handlers: Vec<_> = handlers.iter().map(|name| json!({ "name": name })).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "runtimeHandlers": handlers},
        }))
        .unwrap()
    }

    fn pod(name: &str, class: Option<&str>, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "x"},
            "spec": {"runtimeClassName": class, "containers": [], "nodeName": "n"},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn ours() -> Vec<String> {
        vec!["cryopod".into(), "cryopod-lxc".into()]
    }

    #[test]
    fn pods_of_our_classes_that_have_not_ended_are_in_the_way() {
        let pods = [
            pod("runs", Some("cryopod"), "Running"),
            pod("waits", Some("cryopod-lxc"), "Pending"),
            pod("ended", Some("cryopod"), "Succeeded"),
            pod("other", Some("kata"), "Running"),
            pod("plain", None, "Running"),
        ];
        assert_eq!(unmet(State::PodsGone, &ours(), &[], &pods), ["x/runs on n", "x/waits on n"]);
    }

    #[test]
    fn a_node_is_clean_without_any_label_of_ours() {
        let nodes = [
            node("half", &json!({"cryopod.dev/ready": "false"}), "True", &[]),
            node("left", &json!({"cryopod.dev/handler-cryopod": "true"}), "True", &[]),
            node("clean", &json!({"kubernetes.io/os": "linux"}), "True", &[]),
        ];
        assert_eq!(unmet(State::NodesClean, &ours(), &nodes, &[]), ["half", "left"]);
    }

    #[test]
    fn ready_is_labelled_ready_and_with_the_handlers_that_are_labelled() {
        let labels = json!({"cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true"});
        let bad = [
            node("begun", &json!({"cryopod.dev/ready": "false"}), "True", &["cryopod"]),
            node("down", &labels, "Unknown", &["cryopod"]),
            node("blind", &labels, "True", &["runc"]),
        ];
        let good = [node("good", &labels, "True", &["cryopod"]), node("not-ours", &json!({}), "False", &[])];
        assert_eq!(unmet(State::NodesReady, &ours(), &bad, &[]).len(), 3);
        assert!(unmet(State::NodesReady, &ours(), &good, &[]).is_empty());
        assert_eq!(unmet(State::NodesReady, &ours(), &good[1..], &[]).len(), 1, "none at all");
    }

    #[test]
    fn a_message_has_some_names_and_the_number_of_the_others() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert!(named(&names).ends_with("8, 9 and 2 more"));
        assert_eq!(named(&names[..1]), "0");
    }
}
