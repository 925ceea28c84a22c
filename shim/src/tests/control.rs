//! Control through its socket: the emergency thaw and the counters.

use std::fs;
use std::time::Duration;

use ttrpc::context::{Context, with_duration};

use super::fake::shim;
use crate::control::api;

fn soon() -> Context {
    with_duration(Duration::from_secs(5))
}

#[tokio::test]
async fn an_emergency_thaw_passes_over_what_is_gone_and_what_fails() {
    let shim = shim().await;
    let frozen = [("cgroup.freeze", "1\n"), ("cgroup.procs", "")];
    let [gone, broken, last] = ["a", "b", "c"].map(|id| shim.cgroup(id, &frozen));
    for id in ["a", "b", "c"] {
        shim.running(id).await;
    }
    fs::remove_dir_all(&gone).unwrap();
    fs::remove_file(broken.join("cgroup.freeze")).unwrap();
    fs::create_dir(broken.join("cgroup.freeze")).unwrap();

    let error = shim.control.thaw(soon(), &api::ThawRequest::new()).await.unwrap_err();
    assert!(error.to_string().contains("cgroup-b"), "{error}");
    let now = || fs::read_to_string(last.join("cgroup.freeze")).unwrap();
    assert_eq!(now().get(..1), Some("0"), "the last one is still frozen");

    fs::remove_dir_all(&broken).unwrap();
    fs::write(last.join("cgroup.freeze"), "1\n").unwrap();
    let answer = shim.control.thaw(soon(), &api::ThawRequest::new()).await.unwrap();
    assert_eq!(answer.thawed, ["c"]);
    assert_eq!(now().get(..1), Some("0"));
}

#[tokio::test]
async fn containers_are_told_in_the_order_in_which_they_were_made() {
    let shim = shim().await;
    for id in ["b", "c", "a"] {
        shim.cgroup(id, &[("cgroup.procs", "")]);
        shim.running(id).await;
    }
    let containers = shim.control.info(soon(), &api::InfoRequest::new()).await.unwrap().containers;
    let ids: Vec<_> = containers.iter().map(|container| container.id.as_str()).collect();
    assert_eq!(ids, ["b", "c", "a"]);
}

#[tokio::test]
async fn metrics_name_the_pod_and_its_containers() {
    let shim = shim().await;
    shim.cgroup(
        "a",
        &[
            ("cgroup.procs", ""),
            ("memory.current", "20971520\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom_kill 3\n"),
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"),
            ("pids.current", "3\n"),
        ],
    );
    shim.running("a").await;
    let text = shim.control.metrics(soon(), &api::MetricsRequest::new()).await.unwrap().text;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit_once(' '))
            .map(|(labels, value)| (labels.to_owned(), value.to_owned()))
    };
    let (labels, resident) = value("cryopod_shim_resident_bytes").unwrap();
    assert!(labels.contains("sandbox=\"pod\"") && resident.parse::<u64>().unwrap() > 0, "{text}");
    for (name, expected) in [
        ("cryopod_container_running", "1"),
        ("cryopod_container_cpu_seconds_total", "1.5"),
        ("cryopod_container_memory_bytes", "20971520"),
        ("cryopod_container_oom_kills_total", "3"),
    ] {
        let (labels, shown) = value(name).unwrap();
        assert!(labels.contains("container=\"a\"") && shown == expected, "{name}: {text}");
    }
}
