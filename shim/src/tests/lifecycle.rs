use std::time::{Duration, Instant};

use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::types::task::Status;
use protobuf::well_known_types::any::Any;
use ttrpc::Code;
use ttrpc::context::{Context, with_duration};

use super::fake::{Shim, containerd, shim};

fn soon() -> Context {
    with_duration(Duration::from_secs(10))
}

fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("an error status was expected, not {other:?}"),
    }
}

impl Shim {
    async fn create(&self, id: &str, script: &str) -> ttrpc::Result<u32> {
        self.create_with(id, script, serde_json::json!({})).await
    }
    async fn create_with(
        &self,
        id: &str,
        script: &str,
        annotations: serde_json::Value,
    ) -> ttrpc::Result<u32> {
        let request = api::CreateTaskRequest {
            id: id.to_owned(),
            bundle: self.bundle(id, script, &annotations),
            ..Default::default()
        };
        self.task.create(soon(), &request).await.map(|response| response.pid)
    }
    async fn start(&self, id: &str, exec: &str) -> ttrpc::Result<u32> {
        let request = api::StartRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..Default::default() };
        self.task.start(soon(), &request).await.map(|response| response.pid)
    }
    async fn status(&self, id: &str, exec: &str) -> ttrpc::Result<Status> {
        let request = api::StateRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..Default::default() };
        self.task.state(soon(), &request).await.map(|response| response.status.enum_value().unwrap())
    }
    async fn wait(&self, id: &str, exec: &str) -> ttrpc::Result<u32> {
        let request = api::WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..Default::default() };
        self.task.wait(soon(), &request).await.map(|response| response.exit_status)
    }
    async fn kill(&self, id: &str, exec: &str, signal: u32) -> ttrpc::Result<()> {
        let request =
            api::KillRequest { id: id.to_owned(), exec_id: exec.to_owned(), signal, ..Default::default() };
        self.task.kill(soon(), &request).await.map(drop)
    }
    async fn delete(&self, id: &str, exec: &str) -> ttrpc::Result<u32> {
        let request =
            api::DeleteRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..Default::default() };
        self.task.delete(soon(), &request).await.map(|response| response.exit_status)
    }
    async fn exec(&self, id: &str, exec: &str, script: &str) -> ttrpc::Result<()> {
        let mut spec = Any::new();
        spec.value = serde_json::json!({"args": [script]}).to_string().into_bytes();
        let request = api::ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            spec: Some(spec).into(),
            ..Default::default()
        };
        self.task.exec(soon(), &request).await.map(drop)
    }
}

#[tokio::test]
async fn a_container_lives_from_create_to_delete() {
    let shim = shim().await;
    let pid = shim.create("c", "exit 7").await.unwrap();
    assert!(pid > 0);
    assert_eq!(shim.status("c", "").await.unwrap(), Status::CREATED);
    let waiting = shim.task.clone();
    let early = tokio::spawn(async move {
        let request = api::WaitRequest { id: "c".to_owned(), ..Default::default() };
        waiting.wait(soon(), &request).await.unwrap().exit_status
    });
    assert_eq!(shim.start("c", "").await.unwrap(), pid);
    assert_eq!(early.await.unwrap(), 7, "a Wait from before Start is answered");
    assert_eq!(shim.status("c", "").await.unwrap(), Status::STOPPED);
    assert_eq!(shim.wait("c", "").await.unwrap(), 7, "a late Wait is answered at once");
    assert_eq!(code(shim.kill("c", "", 9).await), Code::NOT_FOUND, "CRI ignores only this code");
    assert_eq!(shim.delete("c", "").await.unwrap(), 7);
    assert_eq!(code(shim.delete("c", "").await), Code::NOT_FOUND);
    assert_eq!(code(shim.status("c", "").await), Code::NOT_FOUND);
    let seen = shim.seen.wait_for(4).await;
    assert_eq!(seen, ["/tasks/create", "/tasks/start", "/tasks/exit c 7", "/tasks/delete"]);
}

#[tokio::test]
async fn an_exit_before_start_returned_is_published_after_the_start() {
    let shim = shim().await;
    for round in 0..5 {
        let id = format!("c{round}");
        shim.create(&id, "exit 0").await.unwrap();
        shim.start(&id, "").await.unwrap();
        shim.wait(&id, "").await.unwrap();
    }
    let seen = shim.seen.wait_for(15).await;
    for round in 0..5 {
        let exit = seen.iter().position(|line| *line == format!("/tasks/exit c{round} 0")).unwrap();
        assert_eq!(seen[exit - 1], "/tasks/start", "{seen:?}");
    }
}

#[tokio::test]
async fn execs_run_and_end_before_their_container() {
    let shim = shim().await;
    shim.create("c", "sleep 60").await.unwrap();
    shim.start("c", "").await.unwrap();
    shim.exec("c", "e1", "exit 3").await.unwrap();
    assert_eq!(code(shim.exec("c", "e1", "x").await), Code::ALREADY_EXISTS);
    assert_eq!(shim.status("c", "e1").await.unwrap(), Status::CREATED);
    assert!(shim.start("c", "e1").await.unwrap() > 0);
    assert_eq!(shim.wait("c", "e1").await.unwrap(), 3);
    assert_eq!(shim.delete("c", "e1").await.unwrap(), 3);
    assert_eq!(code(shim.wait("c", "e1").await), Code::NOT_FOUND);

    shim.exec("c", "e2", "sleep 0.3; exit 4").await.unwrap();
    shim.start("c", "e2").await.unwrap();
    shim.kill("c", "", 9).await.unwrap();
    assert_eq!(shim.wait("c", "").await.unwrap(), 137);
    let seen = shim.seen.wait_for(9).await;
    let exits: Vec<&str> =
        seen.iter().filter(|line| line.starts_with("/tasks/exit")).map(String::as_str).collect();
    assert_eq!(exits, ["/tasks/exit e1 3", "/tasks/exit e2 4", "/tasks/exit c 137"]);
    assert_eq!(code(shim.exec("c", "e3", "x").await), Code::FAILED_PRECONDITION);
}

#[tokio::test]
async fn an_exec_that_cannot_start_can_be_waited_for_and_deleted() {
    let shim = shim().await;
    shim.create("c", "sleep 60").await.unwrap();
    shim.start("c", "").await.unwrap();
    shim.exec("c", "e", "fail").await.unwrap();
    assert_eq!(code(shim.start("c", "e").await), Code::NOT_FOUND);
    shim.wait("c", "e").await.unwrap();
    shim.delete("c", "e").await.unwrap();
    shim.kill("c", "", 9).await.unwrap();
    shim.wait("c", "").await.unwrap();
}

#[tokio::test]
async fn a_slow_create_delays_nobody_else() {
    let shim = shim().await;
    shim.create("fast", "sleep 60").await.unwrap();
    let slow = shim.task.clone();
    let bundle = shim.bundle("slow", "exit 0", &serde_json::json!({"slow": "1500"}));
    let slow = tokio::spawn(async move {
        let request = api::CreateTaskRequest { id: "slow".to_owned(), bundle, ..Default::default() };
        slow.create(soon(), &request).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    shim.status("fast", "").await.unwrap();
    shim.start("fast", "").await.unwrap();
    shim.kill("fast", "", 9).await.unwrap();
    assert_eq!(shim.wait("fast", "").await.unwrap(), 137);
    assert!(begin.elapsed() < Duration::from_millis(1000), "{:?}", begin.elapsed());
    assert!(!slow.is_finished());
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_create_leaves_nothing_and_the_id_free() {
    let shim = shim().await;
    let failed = shim.create_with("c", "exit 0", serde_json::json!({"fail": "yes"})).await;
    assert_eq!(code(failed), Code::NOT_FOUND);
    assert_eq!(code(shim.status("c", "").await), Code::NOT_FOUND);
    shim.create("c", "exit 0").await.unwrap();
    assert_eq!(code(shim.create("c", "exit 0").await), Code::ALREADY_EXISTS);
}

#[tokio::test]
async fn a_created_container_can_be_killed_and_deleted() {
    let shim = shim().await;
    shim.create("c", "exit 0").await.unwrap();
    shim.kill("c", "", 9).await.unwrap();
    assert_eq!(shim.wait("c", "").await.unwrap(), 137);
    assert_eq!(shim.delete("c", "").await.unwrap(), 137);
    assert_eq!(shim.seen.wait_for(3).await, ["/tasks/create", "/tasks/exit c 137", "/tasks/delete"]);
}

#[tokio::test]
async fn what_does_not_fit_the_state_is_a_failed_precondition() {
    let shim = shim().await;
    shim.create("c", "sleep 60").await.unwrap();
    let pause = api::PauseRequest { id: "c".to_owned(), ..Default::default() };
    let resume = api::ResumeRequest { id: "c".to_owned(), ..Default::default() };
    assert_eq!(code(shim.task.pause(soon(), &pause).await), Code::FAILED_PRECONDITION);
    shim.start("c", "").await.unwrap();
    assert_eq!(code(shim.start("c", "").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.delete("c", "").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.task.resume(soon(), &resume).await), Code::FAILED_PRECONDITION);
    shim.task.pause(soon(), &pause).await.unwrap();
    assert_eq!(shim.status("c", "").await.unwrap(), Status::PAUSED);
    assert_eq!(code(shim.exec("c", "e", "x").await), Code::FAILED_PRECONDITION);
    shim.task.resume(soon(), &resume).await.unwrap();
    assert_eq!(shim.status("c", "").await.unwrap(), Status::RUNNING);
    shim.kill("c", "", 9).await.unwrap();
    shim.wait("c", "").await.unwrap();
}

#[tokio::test]
async fn connect_knows_even_what_is_unknown_and_pids_are_never_empty() {
    let shim = shim().await;
    let connect = |id: &str| api::ConnectRequest { id: id.to_owned(), ..Default::default() };
    let unknown = shim.task.connect(soon(), &connect("nobody")).await.unwrap();
    assert_eq!((unknown.shim_pid, unknown.task_pid), (std::process::id(), 0));
    let pid = shim.create("c", "sleep 60").await.unwrap();
    assert_eq!(shim.task.connect(soon(), &connect("c")).await.unwrap().task_pid, pid);
    let pids = api::PidsRequest { id: "c".to_owned(), ..Default::default() };
    assert_eq!(shim.task.pids(soon(), &pids).await.unwrap().processes[0].pid, pid);
    shim.kill("c", "", 9).await.unwrap();
    shim.wait("c", "").await.unwrap();
    // containerd would take an empty answer for a leak, and the exit code would be lost in its restart.
    assert_eq!(shim.task.pids(soon(), &pids).await.unwrap().processes[0].pid, pid);
    shim.delete("c", "").await.unwrap();
    assert_eq!(code(shim.task.pids(soon(), &pids).await), Code::NOT_FOUND);
}

#[tokio::test]
async fn the_shim_ends_only_when_it_is_empty() {
    let shim = shim().await;
    shim.create("c", "exit 0").await.unwrap();
    shim.task.shutdown(soon(), &api::ShutdownRequest::default()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(100), shim.pod.ended());
    assert!(ended.await.is_err(), "a container is left");
    shim.kill("c", "", 9).await.unwrap();
    shim.wait("c", "").await.unwrap();
    shim.delete("c", "").await.unwrap();
    shim.task.shutdown(soon(), &api::ShutdownRequest::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), shim.pod.ended()).await.unwrap();
    assert_eq!(code(shim.create("late", "exit 0").await), Code::UNAVAILABLE);
}

#[tokio::test]
async fn events_wait_for_a_containerd_that_restarts_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("containerd.ttrpc");
    let publisher = crate::events::Publisher::new("ns", &path.display().to_string());
    let mut slots = publisher.reserve(100).await.unwrap();
    let publish = |slots: &mut crate::events::Slots, number: u32| {
        let exit = containerd_shim_protos::events::task::TaskExit {
            id: number.to_string(),
            exit_status: 0,
            ..Default::default()
        };
        slots.publish(&crate::events::Event::Exit(exit));
    };
    (0..10).for_each(|number| publish(&mut slots, number));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (mut first, seen) = containerd(&path).await;
    assert_eq!(seen.wait_for(10).await.len(), 10);
    first.shutdown().await.unwrap();
    drop(first);
    (10..20).for_each(|number| publish(&mut slots, number));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_second, again) = containerd(&path).await;
    assert!(publisher.flush(Duration::from_secs(5)).await);
    let mut all = seen.topics();
    all.extend(again.topics());
    all.dedup();
    let expected: Vec<String> = (0..20).map(|number| format!("/tasks/exit {number} 0")).collect();
    assert_eq!(all, expected);
}
