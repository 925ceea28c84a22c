//! What watches a test cluster, as processes of this host: metrics-server, which `kubectl top` asks, and a Prometheus that
//! scrapes the agents.
//!
//! ```text
//! kubectl top ─▶ kube-apiserver ─▶ metrics-server ─▶ 10.77.0.<n>:10250 kubelet
//! the suite kube ─▶ Prometheus ─▶ 10.77.0.<n>:9464 agent
//! ```
//! Only for whom asks for it (`cargo xtask cluster monitor`, the suite `kube`): most tests need neither.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Error, at, plane};
use crate::node::Node;
use crate::progress::Step;

/// They answer within seconds; this is for a busy host.
const READY: Duration = Duration::from_secs(120);
const METRICS_SERVER: &str = "metrics-server";
const PROMETHEUS: &str = "prometheus";
/// The aggregated API of metrics-server.
const API: &str = "v1beta1.metrics.k8s.io";
/// Of the agent, by the chart's default.
pub(super) const AGENT_PORT: u16 = 9464;

/// What is written down of both.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Ports {
    metrics_server: u16,
    prometheus: u16,
}

/// Starts what does not run. `programs` has kubectl, `metrics_server` the program of that name.
pub(super) fn start(dir: &Path, programs: &Path, metrics_server: &Path, nodes: &[Node]) -> Result<(), Error> {
    let step = Step::begin("starting metrics-server and Prometheus".to_owned(), Some("15 seconds"));
    let ports = ports(dir)?;
    let config = dir.join("prometheus.json");
    let targets: Vec<(&str, String)> = nodes.iter().map(|node| (node.name(), node.address())).collect();
    fs::write(&config, scrape(&targets).to_string()).map_err(at("write", &config))?;
    plane::launch(dir, metrics_server, METRICS_SERVER, &metrics_server_arguments(dir, ports))?;
    plane::launch(dir, programs, PROMETHEUS, &prometheus_arguments(dir, &config, ports))?;
    register(dir, programs, ports)?;
    let available = ["wait", "--for=condition=Available", "--timeout=5s", &format!("apiservice/{API}")];
    until(dir, METRICS_SERVER, &step, || kubectl(dir, programs).args(available).output())?;
    until(dir, PROMETHEUS, &step, || {
        Command::new("curl").args(["-sSf", &format!("{}/-/ready", url(ports))]).output()
    })?;
    step.done();
    Ok(())
}

/// Ends both, if they run.
pub(super) fn stop(dir: &Path) {
    for part in [PROMETHEUS, METRICS_SERVER] {
        plane::end(dir, part);
    }
}

/// Where Prometheus answers, if it runs.
pub(super) fn prometheus(dir: &Path) -> Option<String> {
    plane::running(dir, PROMETHEUS)?;
    Some(url(ports(dir).ok()?))
}

fn url(ports: Ports) -> String {
    format!("http://127.0.0.1:{}", ports.prometheus)
}

fn ports(dir: &Path) -> Result<Ports, Error> {
    let path = dir.join("monitoring.json");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(ports) = serde_json::from_str(&text)
    {
        return Ok(ports);
    }
    let [metrics_server, prometheus] = plane::free_ports().map_err(at("find a free port for", &path))?;
    let ports = Ports { metrics_server, prometheus };
    fs::write(&path, serde_json::to_string(&ports).unwrap_or_default()).map_err(at("write", &path))?;
    Ok(ports)
}

fn metrics_server_arguments(dir: &Path, ports: Ports) -> Vec<String> {
    let admin = dir.join("admin.conf").display().to_string();
    vec![
        format!("--kubeconfig={admin}"),
        format!("--authentication-kubeconfig={admin}"),
        format!("--authorization-kubeconfig={admin}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.metrics_server),
        format!("--cert-dir={}", dir.join("metrics-server").display()),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--kubelet-insecure-tls".to_owned(),
        // The shortest that goes with the 10 s that it waits for a kubelet.
        "--metric-resolution=15s".to_owned(),
    ]
}

fn prometheus_arguments(dir: &Path, config: &Path, ports: Ports) -> Vec<String> {
    vec![
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
        format!("--web.listen-address=127.0.0.1:{}", ports.prometheus),
    ]
}

/// The configuration of Prometheus, which is YAML, and so may be JSON; as docs/reference/metrics.md describes it.
fn scrape(targets: &[(&str, String)]) -> serde_json::Value {
    let one = |(name, address): &(&str, String)| json!({ "targets": [format!("{address}:{AGENT_PORT}")], "labels": { "node": name } });
    json!({
        "global": { "scrape_interval": "5s" },
        "scrape_configs": [{
            "job_name": "cryopod",
            "honor_labels": true,
            "static_configs": targets.iter().map(one).collect::<Vec<_>>(),
        }],
    })
}

/// Tells the API server where metrics-server is: by name, since a Service's endpoint may not be of the loopback.
fn register(dir: &Path, programs: &Path, ports: Ports) -> Result<(), Error> {
    let place = json!({ "name": METRICS_SERVER, "namespace": "kube-system" });
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": place,
            "spec": { "type": "ExternalName", "externalName": "localhost" },
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": API },
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": true,
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": { "name": METRICS_SERVER, "namespace": "kube-system", "port": ports.metrics_server },
            },
        },
    ]});
    let failed = |source| Error::Start { program: "kubectl", source };
    let mut apply = kubectl(dir, programs);
    apply.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = apply.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(objects.to_string().as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Register { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

fn kubectl(dir: &Path, programs: &Path) -> Command {
    let mut command = Command::new(programs.join("kubectl"));
    command.arg("--kubeconfig").arg(dir.join("admin.conf"));
    command
}

/// Asks until the answer is good; not longer than the part runs.
fn until(
    dir: &Path,
    part: &'static str,
    step: &Step,
    mut ask: impl FnMut() -> std::io::Result<std::process::Output>,
) -> Result<(), Error> {
    let end = Instant::now() + READY;
    loop {
        let output = ask().map_err(|source| Error::Start { program: part, source })?;
        if output.status.success() {
            return Ok(());
        }
        let log = plane::log(dir, part);
        if plane::running(dir, part).is_none() {
            return Err(Error::Ended { program: part, said: plane::tail(&log), log });
        }
        if Instant::now() > end {
            let answer = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Silent { program: part, seconds: READY.as_secs(), answer, log });
        }
        step.detail(&format!("waiting for {part}"));
        thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_scraped_under_its_name() {
        let config = scrape(&[("one", "10.77.0.1".into()), ("two", "10.77.0.2".into())]);
        let targets = &config["scrape_configs"][0]["static_configs"];
        assert_eq!(targets[1], json!({ "targets": ["10.77.0.2:9464"], "labels": { "node": "two" } }));
        // Or Prometheus renames the namespace and the pod of a series.
        assert_eq!(config["scrape_configs"][0]["honor_labels"], true);
    }
}
