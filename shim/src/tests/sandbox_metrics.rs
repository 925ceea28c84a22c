//! SandboxMetrics tells what the pod's cgroup used.

use std::fs;
use std::time::Duration;

use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::sandbox_api as api;
use cryopod_runtime::cgroup::Cgroup;
use protobuf::Message;
use ttrpc::context::with_duration;

use super::fake::shim;

use crate::sandbox::Sandbox;
use crate::sandbox::files::Files;
use crate::sandbox::plan::Plan;

#[tokio::test]
async fn memory_and_processor_time_are_those_of_the_pods_cgroup() {
    let shim = shim().await;
    let group = tempfile::tempdir().unwrap();
    let kernel_says = [
        ("cgroup.procs", ""),
        ("memory.current", "20971520\n"),
        ("memory.max", "max\n"),
        ("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"),
        ("pids.current", "3\n"),
    ];
    for (file, text) in kernel_says {
        fs::write(group.path().join(file), text).unwrap();
    }
    let plan = Plan { cgroup: Some(Cgroup::at(group.path())), ..Plan::default() };
    let sandbox = Sandbox::new("pod", "ns", shim.dir.path().to_owned(), plan, Files::none());
    shim.pod.set_sandbox(sandbox).unwrap();
    let request = api::SandboxMetricsRequest { sandbox_id: "pod".to_owned(), ..Default::default() };
    let answer = shim.sandbox.sandbox_metrics(with_duration(Duration::from_secs(5)), &request).await.unwrap();
    assert_eq!(answer.metrics.id, "pod");
    assert!(answer.metrics.timestamp.seconds > 0);
    // The name by which containerd finds the type.
    assert_eq!(answer.metrics.data.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = Metrics::parse_from_bytes(&answer.metrics.data.value).unwrap();
    assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (20_971_520, u64::MAX));
    assert_eq!(
        (metrics.cpu.usage_usec, metrics.cpu.user_usec, metrics.cpu.system_usec),
        (1_500_000, 1_000_000, 500_000)
    );
    assert_eq!(metrics.pids.current, 3);
}
