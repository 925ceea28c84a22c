//! Further processes as `cryopod exec` makes them, through its client.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use cryopod_command::Limits;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use ttrpc::context::with_duration;

use super::fake::{Shim, shim};
use crate::container::Container;
use crate::control::api;
use crate::control::client::exec::{Exec, Input};
use crate::control::client::{Client, ClientError};
use crate::io::StdioPaths;

/// Container `c`, which sleeps.
async fn container() -> (Shim, Arc<Container>) {
    let shim = shim().await;
    let container = shim.running("c").await;
    (shim, container)
}

/// The client blocks and has a runtime of its own, so it gets a thread.
async fn client<T: Send + 'static>(shim: &Shim, work: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let socket = shim.dir.path().join("s");
    tokio::task::spawn_blocking(move || work(Client::connect(&socket).unwrap())).await.unwrap()
}

fn exec<'a>(id: &'a str, process: &'a Value, detached: bool) -> Exec<'a> {
    Exec { container: "c", id, process, stdio: StdioPaths::default(), detached }
}

fn soon() -> Limits {
    Limits::within(Duration::from_secs(10))
}

async fn forgotten(container: &Container) {
    for _ in 0..500 {
        if container.summary().execs == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an exec is still registered");
}

#[tokio::test]
async fn a_detached_process_is_forgotten_at_its_end_and_not_before() {
    let (shim, container) = container().await;
    let run = |script: &'static str| {
        client(&shim, move |client| client.exec(&exec("e", &json!({"args": [script]}), true), &soon()))
    };
    for _ in 0..3 {
        run("exit 0").await.unwrap();
        forgotten(&container).await;
    }
    run("sleep 0.3").await.unwrap();
    let info =
        shim.control.info(with_duration(Duration::from_secs(5)), &api::InfoRequest::new()).await.unwrap();
    assert_eq!(info.containers[0].execs, 1);
    forgotten(&container).await;
    run("fail").await.unwrap_err();
    forgotten(&container).await;
}

#[tokio::test]
async fn a_process_whose_start_nobody_waits_for_any_more_is_killed_and_forgotten() {
    let (shim, container) = container().await;
    let error = client(&shim, |client| {
        let process = json!({"args": ["exec sleep 60"], "slow": 1500});
        client.exec(&exec("e", &process, false), &Limits::within(Duration::from_millis(500))).unwrap_err()
    });
    assert!(matches!(error.await, ClientError::Unanswered(_)));
    assert_eq!(container.summary().execs, 0, "nobody else would come for it");
    let seen = shim.seen.wait_for(5).await;
    assert_eq!(seen.last().unwrap(), "/tasks/exit e 137", "{seen:?}");
}

#[tokio::test]
async fn an_abandoned_process_is_killed_and_forgotten() {
    let (shim, container) = container().await;
    client(&shim, |client| {
        client.exec(&exec("e", &json!({"args": ["exec sleep 60"]}), false), &soon()).unwrap();
        client.abandon("c", "e").unwrap();
        client.abandon("c", "e").unwrap();
    })
    .await;
    assert_eq!(container.summary().execs, 0);
}

#[tokio::test]
async fn a_process_whose_reader_has_gone_ends_whatever_it_makes_of_the_signal() {
    let (shim, _container) = container().await;
    let status = |id: &'static str, script: &'static str| {
        client(&shim, move |client| {
            client.exec(&exec(id, &json!({"args": [script]}), false), &soon()).unwrap();
            // The shell sets its traps first.
            std::thread::sleep(Duration::from_millis(200));
            let (sender, inputs) = unbounded_channel();
            sender.send(Input::Closed).unwrap();
            client.attend("c", id, inputs).unwrap()
        })
    };
    assert_eq!(status("e1", "exec sleep 60").await, 141);
    assert_eq!(status("e2", "trap 'exit 3' PIPE; while :; do sleep 0.05; done").await, 3);
    assert_eq!(status("e3", "trap '' PIPE; exec sleep 60").await, 137);
}

#[tokio::test]
async fn a_fifo_is_at_its_end_once_all_output_was_read_before_the_process_is_forgotten() {
    let (shim, _container) = container().await;
    let path = shim.dir.path().join("stdout");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let stdio = StdioPaths { stdout: path.display().to_string(), ..StdioPaths::default() };
    let (status, read) = client(&shim, move |client| {
        let process = json!({"args": ["head -c 150000 /dev/zero"]});
        client.exec(&Exec { stdio, ..exec("e", &process, false) }, &soon()).unwrap();
        let mut reader = reader;
        // Nobody reads for a while; then all of it is there, and the end.
        std::thread::sleep(Duration::from_millis(300));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        (client.attend("c", "e", unbounded_channel().1).unwrap(), bytes.len())
    })
    .await;
    assert_eq!((status, read), (0, 150_000));
}
