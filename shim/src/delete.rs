//! `delete`: removes what a shim left that is dead or was given up by containerd.
//!
//! Called with the bundle of one task (or of a sandbox), 5 s in all. Idempotent, needs no shim and no configuration:
//! everything stands in the bundle's `cryopod.json`, and where the shim listened in its discovery file. Only the answer goes to stdout; what could not be cleaned up is
//! a warning on stderr, which containerd logs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::shim::shim::DeleteResponse;
use cryopod_command::Limits;
use cryopod_runtime::config::Sources;
use protobuf::Message;

use crate::args::Args;
use crate::bundle::State;
use crate::capture::{DoorError, Node, release};
use crate::events::timestamp;
use crate::exits::{Exit, start_time};
use crate::members::{self, Member};
use crate::sandbox::files::Files;
use crate::{backends, discovery, mounts, socket, sys};

/// containerd waits 5 s (`io.containerd.timeout.shim.cleanup`); unmounting and answering come after this.
const RUNTIME_WITHIN: Duration = Duration::from_secs(3);

/// The pool answers within a fraction of this; what is not done by then is left to recovery.
const STORE_WITHIN: Duration = Duration::from_secs(3);

/// How long a process that was killed may take to disappear.
const PROCESS_WITHIN: Duration = Duration::from_secs(1);

/// How long a shim that containerd gave up may take to end by itself.
const SHIM_WITHIN: Duration = Duration::from_secs(1);

/// `delete` cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// No id.
    #[error("no id: containerd gives it as -id")]
    NoId,
    /// Neither -bundle nor a working directory.
    #[error("find the bundle: {0}")]
    NoBundle(io::Error),
    /// The answer cannot be encoded or written.
    #[error("answer containerd on stdout: {0}")]
    Stdout(io::Error),
}

/// Cleans up and answers on stdout.
///
/// # Errors
/// See [`DeleteError`]; leftovers are warnings, since containerd removes the bundle either way.
pub fn delete(args: &Args) -> Result<(), DeleteError> {
    if args.id.is_empty() {
        return Err(DeleteError::NoId);
    }
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => beside_current(&args.id).map_err(DeleteError::NoBundle)?,
    };
    let shim = Shim {
        files: Path::new(discovery::DIR),
        id: &args.id,
        namespace: &args.namespace,
        socket: socket::socket_path(None, &args.address, &args.namespace, &args.id),
    };
    let pid = clean(&bundle, &shim, &mut |warning| {
        // stderr of `delete` is read by containerd and logged.
        writeln!(io::stderr(), "{warning}").ok();
    });
    let exit = Exit::unknown();
    let mut response = DeleteResponse::new();
    response.pid = pid;
    response.exit_status = exit.status;
    response.exited_at = Some(timestamp(SystemTime::now())).into();
    let bytes = response.write_to_bytes().map_err(|e| DeleteError::Stdout(io::Error::other(e)))?;
    io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()).map_err(DeleteError::Stdout)
}

/// Without -bundle the working directory is a bundle of the same namespace.
fn beside_current(id: &str) -> io::Result<PathBuf> {
    let current = std::env::current_dir()?;
    Ok(current.parent().map(|dir| dir.join(id)).unwrap_or(current))
}

/// Where the shim of a pod stood, if the bundle is that of a pod.
struct Shim<'a> {
    /// The directory of discovery files.
    files: &'a Path,
    id: &'a str,
    namespace: &'a str,
    /// For one that could not write its discovery file: the usual place.
    socket: PathBuf,
}

impl Shim<'_> {
    /// Nobody else removes what a killed shim listened on.
    fn forget(&self) {
        discovery::forget_dead(self.files, self.id, self.namespace);
        socket::forget_dead(&self.socket);
    }
}

/// Removes everything of a bundle, and with a pod its shim and all its containers; the PID its init had.
fn clean(bundle: &Path, shim: &Shim<'_>, warn: &mut dyn FnMut(String)) -> u32 {
    let state = match State::read(bundle) {
        Ok(state) => state,
        Err(error) => {
            warn(format!("{error}; only the root file system is unmounted"));
            None
        }
    };
    let is_pod = state.as_ref().is_some_and(|state| state.id == state.group);
    let mut all = Vec::new();
    if is_pod {
        all = members::all(bundle, warn);
    }
    if let Some(state) = state.as_ref().filter(|_| is_pod) {
        end_process(state.shim_pid, state.shim_started, libc::SIGTERM, SHIM_WITHIN);
        end_process(state.shim_pid, state.shim_started, libc::SIGKILL, SHIM_WITHIN);
    }
    // Without a state it died before it made anything, or the bundle is that of a container, whose id names no shim.
    if is_pod || state.is_none() {
        shim.forget();
    }
    let pid = state.as_ref().map_or(0, |state| state.pid);
    match state {
        Some(state) => all.push(Member { bundle: bundle.to_owned(), state }),
        None => unmount(bundle).unwrap_or_else(|error| warn(error.to_string())),
    }
    // Containers first lose their processes, all of them, whatever time the rest takes.
    for Member { state, .. } in &all {
        end_process(state.pid, state.pid_started, libc::SIGKILL, Duration::ZERO);
    }
    // Runtimes are slow, and all of this has one deadline.
    let warnings: Vec<String> = std::thread::scope(|scope| {
        let each: Vec<_> = all.iter().map(|member| scope.spawn(|| remove(member))).collect();
        each.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    warnings.into_iter().for_each(&mut *warn);
    for Member { state, .. } in all.iter().filter(|member| member.state.captured || member.state.placed) {
        if let Err(error) = release(state) {
            warn(format!("{error}; the next recovery goes on with it"));
        }
    }
    pid
}

/// Takes a container from its runtime and unmounts its root; what did not work.
fn remove(member: &Member) -> Vec<String> {
    let Member { bundle, state } = member;
    let mut warnings = Vec::new();
    if let Some(note) = &state.runtime {
        let backend = backends::from_note(note);
        if let Err(error) = backend.delete(&state.id, &Limits::within(RUNTIME_WITHIN)) {
            warnings.push(error.to_string());
        }
    }
    end_process(state.pid, state.pid_started, libc::SIGKILL, PROCESS_WITHIN);
    if state.runtime.is_none() {
        Files::clean(&state.id, bundle);
    }
    if let Err(error) = unmount(bundle) {
        warnings.push(error.to_string());
    }
    warnings
}

fn unmount(bundle: &Path) -> Result<(), mounts::MountError> {
    mounts::unmount_all(&bundle.join("rootfs"))
}

/// What a capture or restore of the dead shim left: a swapped dataset gets its name back, a dataset that checkpoints
/// still need moves into the store, a root that the store made goes away.
fn release(state: &State) -> Result<(), DoorError> {
    let limits = Limits::within(STORE_WITHIN);
    let sources =
        Sources { file: state.config_file.clone(), body: state.config_body.clone(), ..Sources::default() };
    let node = Node::open(&sources, &limits)?;
    // First what containerd asks for in a moment; it finishes what was begun on this dataset by itself.
    let done = (|| {
        if state.captured && !state.dataset.is_empty() {
            release::dataset(&node, &state.dataset.parse().map_err(DoorError::StoreRoot)?, &limits)?;
        }
        if state.placed {
            release::own_root(&node, &state.namespace, &state.id, &limits)?;
        }
        Ok(())
    })();
    node.recover(&limits);
    done
}

/// Signals a process that may have ended long ago, and waits until it is gone.
fn end_process(pid: u32, started: u64, signal: i32, patience: Duration) {
    if pid == 0 || start_time(pid) != Some(started) {
        return;
    }
    let Ok(pidfd) = sys::pidfd_open(pid) else { return };
    // Between opening and here the number could have changed hands; now it cannot any more.
    if start_time(pid) != Some(started) || sys::pidfd_send_signal(&pidfd, signal).is_err() {
        return;
    }
    let until = Instant::now() + patience;
    while start_time(pid) == Some(started) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A shim `pod` whose discovery file is below `dir` and whose usual socket is `dir/s`.
    fn shim(dir: &Path) -> Shim<'_> {
        Shim { files: dir, id: "pod", namespace: "n", socket: dir.join("s") }
    }

    fn discovered(dir: &Path, socket: &Path) -> PathBuf {
        let path = dir.join("pod@n.json");
        let shim = serde_json::json!({
            "version": 1, "pid": 1, "socket": socket, "namespace": "n", "bundle": "/b",
            "pod": {"id": "pod", "name": "", "namespace": "", "uid": ""},
        });
        std::fs::write(&path, shim.to_string()).unwrap();
        path
    }

    #[test]
    fn socket_and_discovery_file_of_a_killed_shim_go_and_those_of_a_living_one_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (usual, other) = (dir.path().join("s"), dir.path().join("elsewhere"));
        let file = discovered(dir.path(), &other);
        let living = [&usual, &other].map(|path| UnixListener::bind(path).unwrap());
        let there = || [&usual, &other, &file].map(|path| path.exists());
        clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}"));
        assert_eq!(there(), [true; 3], "of a shim that answers");
        drop(living);
        // The end of one container of a pod is not the end of the pod's shim.
        State::new("c", "n", "pod").write(dir.path()).unwrap();
        clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}"));
        assert_eq!(there(), [true; 3], "of a pod that lives on");
        State { shim_started: 1, ..State::new("pod", "n", "pod") }.write(dir.path()).unwrap();
        clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}"));
        assert_eq!(there(), [false; 3]);
    }

    #[test]
    fn a_process_that_is_left_is_killed_and_one_that_reused_its_number_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut state = State { pid: child.id(), pid_started: 1, ..State::new("c", "n", "pod") };
        state.write(dir.path()).unwrap();
        assert_eq!(clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}")), child.id());
        assert!(child.try_wait().unwrap().is_none(), "another process with that number must live");

        state.pid_started = start_time(child.id()).unwrap();
        state.write(dir.path()).unwrap();
        // A zombie keeps its number, so the wait inside needs somebody who reaps.
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}"));
        assert!(!reaper.join().unwrap().success());
    }

    #[test]
    fn a_pod_takes_its_containers_with_it_whose_bundles_are_gone() {
        let home = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        // This shim is no other process's: its start time fits nobody.
        let pod = State { shim_started: 1, ..State::new("pod", "n", "pod") };
        pod.write(home.path()).unwrap();
        let state = State { pid: child.id(), pid_started: started, ..State::new("c", "n", "pod") };
        members::note(home.path(), Path::new("/nonexistent/c"), &state).unwrap();
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        clean(home.path(), &shim(home.path()), &mut |warning| panic!("{warning}"));
        assert!(!reaper.join().unwrap().success());
    }

    #[test]
    fn without_a_note_and_twice_in_a_row_it_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            assert_eq!(clean(dir.path(), &shim(dir.path()), &mut |warning| panic!("{warning}")), 0);
        }
    }

    #[test]
    fn a_broken_note_is_a_warning_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cryopod.json"), "{").unwrap();
        let mut warnings = Vec::new();
        clean(dir.path(), &shim(dir.path()), &mut |warning| warnings.push(warning));
        assert!(warnings[0].contains("cryopod.json is not understood"), "{warnings:?}");
    }
}
