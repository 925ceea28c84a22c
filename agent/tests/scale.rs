//! One agent and as many pods as a node has by kubelet's default (110): a scrape asks a shim each. The shims here are
//! sockets of this process that answer as shims do, with what one of a two-container pod says.
//!
//! `cargo test --release -p cryopod-agent --test scale -- --nocapture` prints the figures for docs/specification.md. The
//! bounds that the test itself holds are several times wider, since test machines are busy.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryopod_agent::metrics::scrape::Scraper;
use cryopod_shim::control::api;
use cryopod_shim::control::stubs::{Control, create_control};
use ttrpc::r#async::{Server, TtrpcContext};

const PODS: usize = 110;
const ROUNDS: u32 = 20;

/// Where the process that stands in for the shims has its sockets.
const LOAD: &str = "CRYOPOD_SCALE_LOAD";

struct Standing(String);

#[async_trait::async_trait]
impl Control for Standing {
    async fn metrics(&self, _: &TtrpcContext, _: api::MetricsRequest) -> ttrpc::Result<api::MetricsResponse> {
        let mut response = api::MetricsResponse::new();
        response.text.clone_from(&self.0);
        Ok(response)
    }
}

/// What a shim of a pod with two containers says.
fn said(pod: usize) -> String {
    let labels = format!("pod=\"web-{pod}\",namespace=\"default\",sandbox=\"{pod:064x}\"");
    let mut text = String::new();
    for (name, kind) in [
        ("cryopod_pod_info", "gauge"),
        ("cryopod_shim_resident_bytes", "gauge"),
        ("cryopod_shim_events_sent_total", "counter"),
        ("cryopod_shim_events_dropped_total", "counter"),
        ("cryopod_shim_events_waiting", "gauge"),
    ] {
        let more = if name == "cryopod_pod_info" { ",backend=\"crun\"" } else { "" };
        text.push_str(&format!("# HELP {name} Help.\n# TYPE {name} {kind}\n{name}{{{labels}{more}}} 1\n"));
    }
    for name in ["running", "cpu_seconds_total", "memory_bytes", "oom_kills_total"] {
        text.push_str(&format!(
            "# HELP cryopod_container_{name} Help.\n# TYPE cryopod_container_{name} gauge\n"
        ));
        for container in ["app", "sidecar"] {
            text.push_str(&format!(
                "cryopod_container_{name}{{{labels},container=\"{container}\"}} 123456.75\n"
            ));
        }
    }
    text
}

/// A shim's socket and its file.
async fn shim(dir: &Path, pod: usize) -> Server {
    let socket = dir.join(format!("{pod}.sock"));
    let service = create_control(Arc::new(Standing(said(pod))));
    let mut server =
        Server::new().bind(&format!("unix://{}", socket.display())).unwrap().register_service(service);
    server.start().await.unwrap();
    let file = format!(
        r#"{{"version":1,"pid":1,"socket":"{}","namespace":"k8s.io","bundle":"/b","pod":{{"id":"{pod:064x}","name":"web-{pod}","namespace":"default","uid":"u{pod}"}}}}"#,
        socket.display()
    );
    std::fs::write(dir.join(format!("{pod:064x}@k8s.io.json")), file).unwrap();
    server
}

/// The process that stands in for the shims: this program again, with a variable that says where.
#[test]
fn load() {
    let Some(dir) = std::env::var_os(LOAD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut servers = Vec::new();
        for pod in 0..PODS {
            servers.push(shim(Path::new(&dir), pod).await);
        }
        std::fs::write(Path::new(&dir).join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

/// Ends the other process with the test.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Processor time of all threads of this process, in seconds.
fn cpu() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

#[test]
fn a_scrape_of_a_full_node_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program);
    child.args(["--exact", "load", "--nocapture"]).env(LOAD, dir.path()).stdout(Stdio::null());
    let _load = Load(child.spawn().unwrap());
    let began = Instant::now();
    while !dir.path().join("ready").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the load does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scraper = Scraper::of(dir.path());
    let first = runtime.block_on(scraper.scrape());
    assert_eq!((first.backends.get("crun"), first.failures), (Some(&(PODS as u64)), 0));
    let (mut times, before) = (Vec::new(), cpu());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let scraped = runtime.block_on(scraper.scrape());
        times.push(began.elapsed());
        assert_eq!(scraped.text.lines().filter(|line| !line.starts_with('#')).count(), PODS * 13);
    }
    let each = (cpu() - before) / f64::from(ROUNDS);
    times.sort();
    let median = times[times.len() / 2];
    let bytes = first.text.len();
    println!(
        "{PODS} pods: scrape {median:?} (median of {ROUNDS}), {:.1} ms of a processor each, which is {:.2} % at an interval of 15 s; {bytes} bytes",
        each * 1e3,
        each / 15.0 * 100.0
    );
    assert!(median < Duration::from_millis(500), "{median:?}");
    assert!(each < 0.45, "{each} s of a processor");
}
