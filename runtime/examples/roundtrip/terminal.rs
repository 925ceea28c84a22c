//! A container with a terminal: create, dump, and restore onto a new one.

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryopod_checkpoint::target::{DumpOptions, PodIdentity, Target, TcpPolicy};
use cryopod_runtime::backend::{Backend, CreateRequest, RestoreRequest, Stdio};
use cryopod_runtime::config::{Config, Sources, VolumeSection};
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::oci::{OciBackend, OciOptions};
use cryopod_runtime::pod_target::PodTarget;
use cryopod_runtime::preflight;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

use crate::Outcome;
use crate::checks::{alive, check, image_dir, limits};
use crate::node::{Output, Place, eventually, run};

/// Listens at `socket` and collects what the terminal says whose master arrives there.
fn console(socket: &Path) -> Outcome<Output> {
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket)?;
    let output = Output::default();
    let sink = output.clone();
    std::thread::spawn(move || -> Option<()> {
        let (stream, _) = listener.accept().ok()?;
        let mut file = std::fs::File::from(receive(stream.as_raw_fd())?);
        let mut buffer = [0u8; 4096];
        // The master reports EIO when the last process has closed the terminal.
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            sink.push(&String::from_utf8_lossy(buffer.get(..count)?).replace('\r', ""));
        }
        Some(())
    });
    Ok(output)
}

#[allow(unsafe_code)]
fn receive(stream: i32) -> Option<OwnedFd> {
    let mut byte = [0u8; 64];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(stream, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
    let fd = message.cmsgs().ok()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    })?;
    // SAFETY: the kernel has just made this descriptor for us by SCM_RIGHTS.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Everything with one runtime.
pub(crate) fn all(pool: &str, runtime: &str) -> Outcome {
    println!("== {runtime}, terminal");
    let config = Config::load(&Sources::default())?;
    let options =
        OciOptions::from_config(&config, runtime, "roundtrip").ok_or("runtime is not configured")?;
    let backend = Arc::new(OciBackend::new(options));
    let ids = ["t1", "t2"].map(|name| format!("{runtime}-{name}"));
    for id in &ids {
        backend.delete(id, &limits())?;
    }
    let terminal = |_: &Place, spec: &mut serde_json::Value| {
        spec["process"]["terminal"] = json!(true);
        Ok(())
    };
    let place = Place::with(pool, &ids[0], None, terminal)?;
    let socket = place.bundle.join("console");
    let output = console(&socket)?;
    let stdio = Stdio::Terminal { console_socket: socket };
    let pid = backend.create(CreateRequest { id: &place.id, bundle: &place.bundle, stdio }, &limits())?;
    backend.start(&place.id, &limits())?;
    eventually("the terminal shows the counter", || output.last() > 3)?;

    let running = [Running { id: &place.id, bundle: &place.bundle, rootfs: None, pid }];
    let described = members::describe(&running, backend.as_ref(), runtime, &VolumeSection::default())?;
    let target = PodTarget::new(PodIdentity::default(), described, backend.clone());
    preflight::memory(target.members(), &backend.options().criu, &limits())?;
    let images = PathBuf::from(format!("/run/roundtrip/{runtime}-terminal-images"));
    std::fs::remove_dir_all(&images).ok();
    let dir = image_dir(&images, "1", None)?;
    let snapshot = format!("{}@ck", place.dataset);
    let at_instant = || run(&["zfs", "snapshot", &snapshot]).map(|_| ()).map_err(|error| error.to_string());
    target.freeze(&limits())?;
    let member = target.members().first().ok_or("no member")?;
    let dumped = target.dump(member, &dir, &DumpOptions::default(), &at_instant, &limits());
    target.thaw()?;
    dumped?;
    alive(&output)?;
    check("a container with a terminal is dumped", true)?;

    let new = Place::with(pool, &ids[1], Some(&snapshot), terminal)?;
    let socket = new.bundle.join("console");
    let restored = console(&socket)?;
    let work = new.bundle.join("work");
    let request =
        CreateRequest { id: &new.id, bundle: &new.bundle, stdio: Stdio::Terminal { console_socket: socket } };
    let restore = RestoreRequest { images: &dir.dir, work: &work, tcp: TcpPolicy::Keep, frozen: false };
    let again = backend.restore(request, &restore, &limits())?;
    eventually("the new terminal shows the counter", || restored.last() > 3)?;
    check("and goes on where it was", restored.text().lines().next().is_some_and(|line| line != "out 1"))?;
    for (place, pid) in [(&place, pid), (&new, again)] {
        backend.kill(&place.id, pid, 9, true, &limits())?;
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(pid)?), None)?;
        backend.delete(&place.id, &limits())?;
    }
    new.remove();
    place.remove();
    Ok(())
}
