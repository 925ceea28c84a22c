//! Delete answers before CRI gives it up, whatever hangs.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use containerd_shim_protos::shim::shim as api;
use nix::sys::stat::Mode;
use serde_json::json;
use ttrpc::Code;
use ttrpc::context::with_duration;

use super::fake::{Shim, shim};

/// CRI's own deadline; an answer that comes later is none.
const CRI: Duration = Duration::from_secs(10);

impl Shim {
    /// A container that ran to its end.
    async fn ended(&self, id: &str, script: &str, stdout: &str) {
        let soon = with_duration(CRI);
        let bundle = self.bundle(id, script, &json!({}));
        let stdout = stdout.to_owned();
        let create = api::CreateTaskRequest { id: id.to_owned(), bundle, stdout, ..Default::default() };
        self.task.create(soon.clone(), &create).await.unwrap();
        let start = api::StartRequest { id: id.to_owned(), ..Default::default() };
        self.task.start(soon.clone(), &start).await.unwrap();
        let wait = api::WaitRequest { id: id.to_owned(), ..Default::default() };
        self.task.wait(soon, &wait).await.unwrap();
    }

    async fn remove(&self, id: &str) -> Result<(), (Code, String)> {
        let request = api::DeleteRequest { id: id.to_owned(), ..Default::default() };
        match self.task.delete(with_duration(CRI), &request).await {
            Ok(_) => Ok(()),
            Err(ttrpc::Error::RpcStatus(status)) => Err((status.code(), status.message().to_owned())),
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

#[tokio::test]
async fn a_delete_beside_a_held_lock_a_held_stream_and_a_hanging_runtime_is_answered_in_time() {
    let shim = shim().await;
    let fifo = shim.dir.path().join("out");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    // What it leaves behind keeps its standard output open.
    shim.ended("c", "sleep 15 & exit 0", fifo.to_str().unwrap()).await;
    let hang = Path::new(&shim.dir.path().join("c")).join("hang");
    std::fs::write(&hang, "").unwrap();
    let container = shim.pod.container("c").unwrap();
    let (held, holding) = tokio::sync::oneshot::channel();
    let holder = tokio::spawn(async move {
        let _turn = container.turn_for_test("update").await;
        held.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
    });
    holding.await.unwrap();
    let began = Instant::now();
    let (_, message) = shim.remove("c").await.unwrap_err();
    let took = began.elapsed();
    assert!(message.contains("delete in time"), "{message}");
    assert!(took > Duration::from_secs(3) && took < Duration::from_millis(9500), "{took:?}");
    holder.await.unwrap();

    std::fs::remove_file(&hang).unwrap();
    let began = Instant::now();
    shim.remove("c").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "the stream was given up: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_delete_during_a_checkpoint_says_so_and_works_afterwards() {
    let shim = shim().await;
    shim.ended("c", "exit 0", "").await;
    let container = shim.pod.container("c").unwrap();
    let turn = container.turn_for_test("checkpoint").await;
    let began = Instant::now();
    let (code, message) = shim.remove("c").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(code, Code::UNAVAILABLE, "{message}");
    assert!(message.contains("its checkpoint is under way"), "{message}");
    drop(turn);
    shim.remove("c").await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_of_the_pod_holds_nobody_who_has_ended() {
    let shim = shim().await;
    shim.ended("c", "exit 0", "").await;
    let container = shim.pod.container("c").unwrap();
    let hold = container.hold().await;
    assert!(hold.is_none());
    shim.remove("c").await.unwrap();
}
