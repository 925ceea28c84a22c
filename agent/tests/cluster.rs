//! The agent as a process against a real API server: how long a restart takes with 1,000 checkpoints on its node, what it asks
//! of the API server for that, and what a schedule of 1,000 pods does.
//!
//! `cargo xtask cluster scale` starts etcd and an API server for it, and prints the figures for docs/specification.md. There is no
//! kubelet: nodes and pods are objects alone, which is all that the agent sees of them here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/plan.rs"]
mod plan;
#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/requests.rs"]
mod requests;

use std::time::{Duration, Instant};

use cryopod_agent::api::{CheckpointSchedule, PodCheckpoint};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use objects::{NAMESPACE, OTHERS, OWN};
use process::{Agent, Node};
use requests::Requests;

/// File by which the API server is reached.
const KUBECONFIG: &str = "CRYOPOD_SCALE_KUBECONFIG";
const RUNS: usize = 5;
/// Promised in docs/specification.md.
const RESTART: Duration = Duration::from_secs(5);
/// Pods of the schedule, and how many of them at a time.
const PODS: usize = 1000;
const AT_A_TIME: usize = 10;
/// Firings of the schedule that are measured.
const WAVES: usize = 5;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "needs an API server: cargo xtask cluster scale"]
fn a_thousand_checkpoints_and_a_thousand_pods() {
    let file = std::env::var(KUBECONFIG).unwrap_or_else(|_| panic!("{KUBECONFIG} is not set"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Kubeconfig::read_from(&file).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let node = Node::with_store(&file, &objects::names(OWN));
        objects::prepare(&client).await;
        objects::checkpoints(&client).await;
        restarts(&client, &node).await;
        schedule(&client, &node).await;
    });
}

async fn restarts(client: &Client, node: &Node) {
    let (mut times, mut own, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    let mut asked = Requests::default();
    for _ in 0..RUNS {
        // So that it leads at once, which is the most that an agent can have to do when it starts.
        objects::forget_leader(client).await;
        let before = Requests::seen(client).await;
        let began = Instant::now();
        let mut agent = Agent::start(node);
        let seconds = agent.says("looked at all checkpoints of this node", "seconds=");
        times.push(began.elapsed());
        own.push(seconds);
        let objects = agent.last("objects=");
        assert!((objects - OWN as f64).abs() < 0.5, "{objects} objects");
        // What it does beside, as the leader, ends as well.
        tokio::time::sleep(Duration::from_secs(3)).await;
        resident.push((agent.memory("VmRSS"), agent.memory("VmHWM")));
        asked = Requests::seen(client).await.since(&before);
        drop(agent);
        assert_eq!(asked.writes(), 0, "nothing has changed, so nothing is written: {asked}");
    }
    resident.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
    let (rss, peak) = resident[resident.len() / 2];
    println!("restart with {OWN} checkpoints of the node and {OTHERS} of others, {RUNS} runs:");
    println!("  process start to all looked at: median {:?}, all {times:?}", median(times.clone()));
    println!("  of it by the agent's own clock: {own:?} s");
    println!("  resident 3 s later: {:.1} MiB, at most {:.1} MiB", rss / 1024.0, peak / 1024.0);
    println!("  requests, leading: {asked}");
    assert!(median(times) < RESTART);
}

async fn schedule(client: &Client, node: &Node) {
    objects::pods(client, PODS).await;
    objects::forget_leader(client).await;
    let agent = Agent::start(node);
    let schedules: Api<CheckpointSchedule> = Api::namespaced(client.clone(), NAMESPACE);
    let settled = objects::schedule(client, AT_A_TIME).await;
    assert!(settled, "the agent does not take the schedule");
    let before = Requests::seen(client).await;
    let run = Patch::Merge(json!({ "spec": { "runNow": "now" } }));
    let (mut times, mut began) = (Vec::new(), Instant::now());
    schedules.patch("night", &PatchParams::default(), &run).await.unwrap();
    let mut first = None;
    for wave in 1..=WAVES {
        let made = objects::made(client, wave * AT_A_TIME).await;
        times.push(began.elapsed());
        let waiting = objects::waiting(client, PODS - wave * AT_A_TIME).await;
        assert!(waiting, "the status does not say who waits");
        if first.is_none() {
            tokio::time::sleep(Duration::from_secs(2)).await;
            first = Some(Requests::seen(client).await.since(&before));
        }
        began = Instant::now();
        objects::complete(client, &made).await;
    }
    let first = first.unwrap();
    println!("a schedule of {PODS} pods, {AT_A_TIME} at a time, {WAVES} firings:");
    println!(
        "  from the trigger to the objects: first {:?}, median {:?}, all {times:?}",
        times[0],
        median(times.clone())
    );
    println!("  requests of the first: {first}");
    println!("  resident then: {:.1} MiB", agent.memory("VmRSS") / 1024.0);
    drop(agent);
    assert_eq!(first.of("POST", "podcheckpoints"), AT_A_TIME as u64, "{first}");
    let all: Api<PodCheckpoint> = Api::namespaced(client.clone(), NAMESPACE);
    all.delete_collection(&DeleteParams::default(), &ListParams::default().labels("cryopod.dev/schedule"))
        .await
        .ok();
}
