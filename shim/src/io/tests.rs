use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cryopod_checkpoint::kind::Kind;
use cryopod_runtime::backend::Stdio;

use super::*;
use crate::exits::Registry;
use crate::rpc::Failure as _;

const OWNER: Owner<'_> = Owner { id: "c", namespace: "n", uid: 0, gid: 0 };
const SOON: Duration = Duration::from_secs(5);

fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn reader(path: &Path) -> std::fs::File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// Reads until `count` bytes are there, without blocking the one thread that also copies.
async fn read_exactly(file: &mut std::fs::File, count: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut piece = [0; 65536];
    while seen.len() < count {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => seen.extend_from_slice(&piece[..n]),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    seen
}

/// Everything open, as for a process that is made afterwards.
async fn prepare(
    paths: &StdioPaths,
    owner: Owner<'_>,
    registry: &Registry,
) -> Result<(Stdio, Prepared), IoError> {
    let (stdio, opening) = begin(paths, owner, registry).await?;
    Ok((stdio, opening.finish().await?))
}

#[tokio::test]
async fn the_process_is_made_while_its_fifos_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let (stdio, opening) = begin(&out(&path), OWNER, &Registry::default()).await.unwrap();
    // containerd comes late: only once the process has said something.
    let work = async {
        child(stdio).stdout.unwrap().write_all(b"early").unwrap();
        Ok::<_, IoError>(reader(&path))
    };
    let (mut reader, prepared) = opening.finish_during(work).await.unwrap();
    let io = prepared.unwrap().connect().await.unwrap();
    assert_eq!(read_exactly(&mut reader, 5).await, b"early");
    assert!(io.drain(SOON).await);
}

#[tokio::test]
async fn a_process_that_cannot_be_made_waits_for_no_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let (_stdio, opening) = begin(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let start = Instant::now();
    let failed = opening.finish_during(async { Err::<(), _>("no such program") }).await;
    assert!(matches!(failed, Err("no such program")));
    assert!(start.elapsed() < Duration::from_secs(1));
}

struct Child {
    stdin: Option<std::fs::File>,
    stdout: Option<std::fs::File>,
}

fn child(stdio: Stdio) -> Child {
    let Stdio::Pipes { stdin, stdout, .. } = stdio else { panic!("pipes expected") };
    Child { stdin: stdin.map(Into::into), stdout: stdout.map(Into::into) }
}

fn out(path: &Path) -> StdioPaths {
    StdioPaths { stdout: path.display().to_string(), ..StdioPaths::default() }
}

#[tokio::test]
async fn output_reaches_the_fifo_and_ends_with_the_workload() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let mut seen = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio);
    let io = prepared.connect().await.unwrap();
    workload.stdout.take().unwrap().write_all(b"hello\n").unwrap();
    assert!(io.drain(SOON).await);
    assert_eq!(read_exactly(&mut seen, 6).await, b"hello\n");
    assert_eq!(seen.read(&mut [0; 1]).unwrap(), 0, "the fifo has ended");
}

#[tokio::test]
async fn more_than_all_buffers_together_arrives_whole_at_a_slow_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let mut seen = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdout.unwrap();
    let io = prepared.connect().await.unwrap();
    let sent: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || workload.write_all(&copy).unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(read_exactly(&mut seen, sent.len()).await == sent);
    writer.join().unwrap();
    assert!(io.drain(SOON).await);
}

#[tokio::test]
async fn a_reader_that_goes_away_and_comes_back_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let first = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdout.unwrap();
    let io = prepared.connect().await.unwrap();
    drop(first);
    workload.write_all(b"written while containerd was away").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut second = reader(&path);
    assert_eq!(read_exactly(&mut second, 33).await, b"written while containerd was away");
    drop(workload);
    assert!(io.drain(SOON).await);
}

#[tokio::test]
async fn the_last_words_of_a_workload_wait_for_a_reader_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let first = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdout.unwrap();
    let io = prepared.connect().await.unwrap();
    drop(first);
    workload.write_all(b"last words").unwrap();
    drop(workload);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut second = reader(&path);
    assert_eq!(read_exactly(&mut second, 10).await, b"last words");
    assert!(io.drain(SOON).await);
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "the fifo has ended");
}

#[tokio::test]
async fn what_nobody_reads_holds_a_delete_up_for_a_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let first = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdout.unwrap();
    let io = prepared.connect().await.unwrap();
    drop(first);
    workload.write_all(b"for nobody").unwrap();
    drop(workload);
    let began = Instant::now();
    assert!(io.drain(Duration::from_secs(7)).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn close_io_ends_the_input_after_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let paths = StdioPaths { stdin: path.display().to_string(), ..StdioPaths::default() };
    let (stdio, prepared) = prepare(&paths, OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdin.unwrap();
    let io = prepared.connect().await.unwrap();
    io.open_input().unwrap();
    let mut client = OpenOptions::new().write(true).open(&path).unwrap();
    client.write_all(b"line\n").unwrap();
    drop(client);
    // A client that detaches is not the end.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut client = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    client.write_all(b"more\n").unwrap();
    drop(client);
    io.close_stdin();
    let seen = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        workload.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(tokio::time::timeout(SOON, seen).await.unwrap().unwrap(), "line\nmore\n");
}

#[tokio::test]
async fn input_that_was_closed_before_the_start_ends_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let paths = StdioPaths { stdin: path.display().to_string(), ..StdioPaths::default() };
    let (stdio, prepared) = prepare(&paths, OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdin.unwrap();
    let io = prepared.connect().await.unwrap();
    let early = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    assert_eq!(early.unwrap_err().raw_os_error(), Some(libc::ENXIO), "nobody can write before the start");
    io.close_stdin();
    io.open_input().unwrap();
    let seen = tokio::task::spawn_blocking(move || workload.read(&mut [0; 8]).unwrap());
    assert_eq!(tokio::time::timeout(SOON, seen).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/log");
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    std::fs::write(&path, "before\n").unwrap();
    let paths = StdioPaths { stdout: format!("file://{}", path.display()), ..StdioPaths::default() };
    let (stdio, prepared) = prepare(&paths, OWNER, &Registry::default()).await.unwrap();
    let mut workload = child(stdio).stdout.unwrap();
    let io = prepared.connect().await.unwrap();
    workload.write_all(b"after\n").unwrap();
    drop(workload);
    assert!(io.drain(SOON).await);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn a_file_that_takes_nothing_holds_up_no_other_task() {
    // The "terminal" is a pipe, and the "file" a pipe that nobody reads: writing to it blocks, as on a pool that hangs.
    let (master, mut slave) = std::io::pipe().unwrap();
    let (_unread, file) = std::io::pipe().unwrap();
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || slave.write_all(&[7; 400_000]).ok());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let from = copy::Source::Terminal(master.into());
            let copying = copy::output(from, Opened::File(file.into()), Leaving::default()).unwrap();
            // Long enough for the pipe to be full.
            tokio::time::sleep(Duration::from_millis(300)).await;
            tell.send(copying.is_finished()).unwrap();
            copying.abort();
        });
    });
    assert_eq!(heard.recv_timeout(SOON), Ok(false), "the event loop stands still");
}

#[tokio::test]
async fn a_terminals_copy_into_a_file_ends_when_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let file = std::fs::File::create(&path).unwrap();
    let (master, mut slave) = std::io::pipe().unwrap();
    let from = copy::Source::Terminal(master.into());
    let copying = copy::output(from, Opened::File(file.into()), Leaving::default()).unwrap();
    slave.write_all(b"seen").unwrap();
    let written = || std::fs::read(&path).unwrap() == b"seen";
    let wait = async || {
        while !written() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait()).await.unwrap();
    copying.abort();
    // Its end was the only reader.
    let mut closed = async || {
        while slave.write_all(b"x").is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, closed()).await.expect("the master is still open");
}

#[tokio::test]
async fn a_logger_reads_the_pipes_itself() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (program, seen) = (dir.path().join("logger"), dir.path().join("seen"));
    let script = format!(
        "#!/bin/sh\nexec 5>&-\n{{ echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $*\"; cat <&3; }} >{}\n",
        seen.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?tag=x", program.display());
    let paths = StdioPaths { stdout: uri.clone(), stderr: uri, ..StdioPaths::default() };
    let (stdio, prepared) = prepare(&paths, OWNER, &Registry::default()).await.unwrap();
    let Stdio::Pipes { stdout, stderr, .. } = stdio else { panic!("pipes expected") };
    let io = prepared.connect().await.unwrap();
    std::fs::File::from(stdout.unwrap()).write_all(b"logged\n").unwrap();
    drop(stderr);
    assert!(io.drain(SOON).await);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "n/c tag x\nlogged\n");
}

#[tokio::test]
async fn draining_gives_up_on_a_stream_that_somebody_keeps_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let _seen = reader(&path);
    let (stdio, prepared) = prepare(&out(&path), OWNER, &Registry::default()).await.unwrap();
    let _held = child(stdio);
    let io = prepared.connect().await.unwrap();
    assert!(!io.drain(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_missing_fifo_is_named() {
    let error = prepare(&out(Path::new("/nonexistent/out")), OWNER, &Registry::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("open /nonexistent/out for the stdout"), "{error}");
    assert_eq!(error.kind(), Kind::NotFound);
}
