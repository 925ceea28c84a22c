//! `cryopod-agent await`: waits for a state of the whole cluster. For the hooks and tests of the chart.
//!
//! What is asked is a function of what the cluster has ([`unmet`]); an end that comes too late names what was still missing.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::setup::cluster::{client, view};
use crate::setup::{Error, HANDLER, READY, is_handler};

const POLL: Duration = Duration::from_secs(2);
/// How many names a message has.
const NAMED: usize = 10;

/// Waits until the cluster is as is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to wait for.
    #[arg(value_enum)]
    state: State,
    /// Handlers that are meant, with commas; pods of any other handler of ours count as well.
    #[arg(long, value_delimiter = ',', default_value = "cryopod,cryopod-lxc", value_name = "NAME")]
    handlers: Vec<String>,
    /// For `nodes-ready`: labels of the agents' pods, one of which has to be Ready on each of the nodes.
    #[arg(long, value_name = "SELECTOR")]
    agents: Option<String>,
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
    /// No pod of our handlers, by whatever RuntimeClass, is left that has not ended.
    PodsGone,
    /// No node has a label of setup.
    NodesClean,
    /// Each node that setup has begun with is ready for pods, and each handler is offered by one.
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

/// What of the cluster a question is about.
#[derive(Debug, Default)]
struct Seen {
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    classes: Vec<RuntimeClass>,
}

async fn look(client: &Client, options: &Options) -> Result<Vec<String>, Error> {
    let failed = |error: kube::Error| Error::NoCluster(error.to_string());
    let everything = ListParams::default();
    let mut seen = Seen::default();
    if options.state == State::PodsGone {
        seen.pods = Api::<Pod>::all(client.clone()).list(&everything).await.map_err(failed)?.items;
        seen.classes =
            Api::<RuntimeClass>::all(client.clone()).list(&everything).await.map_err(failed)?.items;
    } else {
        seen.nodes = Api::<Node>::all(client.clone()).list(&everything).await.map_err(failed)?.items;
    }
    if let Some(selector) = options.agents.as_ref().filter(|_| options.state == State::NodesReady) {
        let agents = everything.labels(selector);
        seen.pods = Api::<Pod>::all(client.clone()).list(&agents).await.map_err(failed)?.items;
    }
    Ok(unmet(options, &seen))
}

/// What is not yet as asked; nothing if all is.
fn unmet(options: &Options, seen: &Seen) -> Vec<String> {
    match options.state {
        State::Termination => Vec::new(),
        State::PodsGone => {
            let classes = classes(&options.handlers, &seen.classes);
            seen.pods.iter().filter(|pod| runs(pod, &classes)).map(pod_name).collect()
        }
        State::NodesClean => {
            let labelled = seen.nodes.iter().filter(|node| !view(node).labels.is_empty());
            labelled.map(|node| node.metadata.name.clone().unwrap_or_default()).collect()
        }
        State::NodesReady => nodes_ready(options, seen),
    }
}

fn nodes_ready(options: &Options, seen: &Seen) -> Vec<String> {
    let ours: Vec<&Node> = seen.nodes.iter().filter(|node| view(node).labels.contains_key(READY)).collect();
    if ours.is_empty() {
        return vec![format!("no node has the label {READY}")];
    }
    let mut missing: Vec<String> =
        ours.iter().filter_map(|node| not_ready(node, &options.handlers)).collect();
    // Each node leaves out what cannot work there, which is fine as long as one does not.
    let offered = |handler: &String| {
        let label = format!("{HANDLER}{handler}");
        ours.iter().any(|node| view(node).labels.contains_key(&label))
    };
    missing.extend(
        options
            .handlers
            .iter()
            .filter(|handler| !offered(handler))
            .map(|handler| format!("{handler}: no node offers it")),
    );
    if options.agents.is_some() {
        let names = ours.iter().filter_map(|node| node.metadata.name.as_deref());
        let without = names.filter(|name| !seen.pods.iter().any(|pod| is_ready_on(pod, name)));
        missing.extend(without.map(|name| format!("{name}: no agent is ready there")));
    }
    missing
}

fn is_ready_on(pod: &Pod, node: &str) -> bool {
    let there = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    there && conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// RuntimeClasses of our handlers: those of the release, which may be gone already, those of an earlier one, and those that
/// somebody has made under another name.
fn classes(handlers: &[String], there: &[RuntimeClass]) -> BTreeSet<String> {
    let ours = there.iter().filter(|class| is_handler(&class.handler));
    let named = ours.filter_map(|class| class.metadata.name.clone());
    handlers.iter().cloned().chain(named).collect()
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

fn runs(pod: &Pod, classes: &BTreeSet<String>) -> bool {
    let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_ref());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    class.is_some_and(|class| classes.contains(class)) && !matches!(phase, Some("Succeeded" | "Failed"))
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
             RuntimeClass, then try again; nothing has been changed, but that helm calls the release `uninstalling`, which \
             `helm rollback` to its last revision takes back"
        ),
        State::NodesClean => format!(
            "these nodes are not put back yet: {missing}. The logs of the DaemonSet's pods there say why; they go on with it"
        ),
        State::NodesReady => format!(
            "not ready: {missing}. The logs of the containers `setup` and `agent` of the agent's pods there say why; a handler that \
             no node can offer has to be left out of runtimeClasses, or its pods wait for ever"
        ),
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

    fn asked(state: State) -> Options {
        let handlers = vec!["cryopod".into(), "cryopod-lxc".into()];
        Options { state, handlers, agents: None, timeout_seconds: 0, kubeconfig: None }
    }

    fn class(name: &str, handler: &str) -> RuntimeClass {
        serde_json::from_value(json!({"metadata": {"name": name}, "handler": handler})).unwrap()
    }

    #[test]
    fn pods_of_our_handlers_that_have_not_ended_are_in_the_way() {
        let pods = vec![
            pod("runs", Some("cryopod"), "Running"),
            pod("waits", Some("cryopod-lxc"), "Pending"),
            pod("ended", Some("cryopod"), "Succeeded"),
            pod("dropped", Some("cryopod-old"), "Running"),
            pod("renamed", Some("freezable"), "Running"),
            pod("other", Some("kata"), "Running"),
            pod("plain", None, "Running"),
        ];
        let classes =
            vec![class("cryopod-old", "cryopod-old"), class("freezable", "cryopod"), class("kata", "kata")];
        let seen = Seen { pods, classes, ..Seen::default() };
        assert_eq!(
            unmet(&asked(State::PodsGone), &seen),
            ["x/runs on n", "x/waits on n", "x/dropped on n", "x/renamed on n"]
        );
    }

    #[test]
    fn a_node_is_clean_without_any_label_of_ours() {
        let nodes = vec![
            node("half", &json!({"cryopod.dev/ready": "false"}), "True", &[]),
            node("left", &json!({"cryopod.dev/handler-cryopod": "true"}), "True", &[]),
            node("clean", &json!({"kubernetes.io/os": "linux"}), "True", &[]),
        ];
        assert_eq!(unmet(&asked(State::NodesClean), &Seen { nodes, ..Seen::default() }), ["half", "left"]);
    }

    #[test]
    fn ready_is_labelled_ready_and_with_the_handlers_that_are_labelled() {
        let labels = json!({"cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true"});
        let both = json!({
            "cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true", "cryopod.dev/handler-cryopod-lxc": "true",
        });
        let good = || {
            vec![
                node("good", &labels, "True", &["cryopod"]),
                node("with-lxc", &both, "True", &["cryopod", "cryopod-lxc"]),
                node("not-ours", &json!({}), "False", &[]),
            ]
        };
        let ask = |nodes| unmet(&asked(State::NodesReady), &Seen { nodes, ..Seen::default() });
        assert!(ask(good()).is_empty());
        for (bad, why) in [
            (
                node("begun", &json!({"cryopod.dev/ready": "false"}), "True", &["cryopod"]),
                "setup has not ended",
            ),
            (node("down", &labels, "Unknown", &["cryopod"]), "not Ready"),
            (node("blind", &labels, "True", &["runc"]), "does not see cryopod"),
        ] {
            let missing = ask([good(), vec![bad]].concat());
            assert!(missing.len() == 1 && missing[0].contains(why), "{missing:?}");
        }
        assert_eq!(ask(vec![good().remove(2)]).len(), 1, "none at all");
        let missing = ask(vec![good().remove(0)]);
        assert!(missing.len() == 1 && missing[0].starts_with("cryopod-lxc: no node"), "{missing:?}");
    }

    #[test]
    fn a_node_without_an_agent_is_not_ready_where_agents_are_asked_for() {
        let labels = json!({"cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true"});
        let agent = |ready: &str| {
            serde_json::from_value::<Pod>(json!({
                "metadata": {"name": "a"}, "spec": {"containers": [], "nodeName": "one"},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let mut options = asked(State::NodesReady);
        options.handlers.truncate(1);
        options.agents = Some("app.kubernetes.io/component=agent".into());
        let ask = |ready, names: &[&str]| {
            let nodes = names.iter().map(|name| node(name, &labels, "True", &["cryopod"])).collect();
            unmet(&options, &Seen { nodes, pods: vec![agent(ready)], ..Seen::default() })
        };
        assert!(ask("True", &["one"]).is_empty());
        assert_eq!(ask("False", &["one"]), ["one: no agent is ready there"]);
        assert_eq!(ask("True", &["one", "two"]), ["two: no agent is ready there"]);
    }

    #[test]
    fn a_message_has_some_names_and_the_number_of_the_others() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert!(named(&names).ends_with("8, 9 and 2 more"));
        assert_eq!(named(&names[..1]), "0");
    }
}
