//! Containers as CRI makes them: namespaces of a pod by path, the pod's files and volumes by bind mount, seccomp; two
//! members frozen together; criu killed in the middle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryopod_checkpoint::target::{DiskSource, DumpOptions, Member, PodIdentity, Target, TcpPolicy};
use cryopod_runtime::backend::{Backend, CreateRequest, ExecRequest, RestoreRequest};
use cryopod_runtime::cgroup::Cgroup;
use cryopod_runtime::config::{Config, Sources, VolumeSection};
use cryopod_runtime::criu::orphans;
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::oci::{OciBackend, OciOptions};
use cryopod_runtime::pod_target::PodTarget;
use cryopod_runtime::{preflight, process};
use serde_json::{Value, json};

use crate::Outcome;
use crate::checks::{alive, check, image_dir, limits, took};
use crate::node::{Output, Place, eventually, pipes, run};

/// Keeps files open in every volume, one of them unlinked with another link left, and counts into all.
const WRITER: &str = "echo x > /a; ln /a /b; exec 3>>/count 4>>/data/log 5>>/cache/log 6>/dev/shm/x 7>>/a; rm /a; i=0; \
                      while :; do i=$((i+1)); for fd in 3 4 5 6 7; do echo $i >&$fd; done; echo out $i; sleep 0.05; done";

/// A process that holds the ipc and uts namespaces of a pod, as a pause container does.
struct Pause(Child);

impl Pause {
    fn start(hostname: &str) -> Outcome<Self> {
        let script = format!("hostname {hostname} && exec sleep 1000000");
        let child = Command::new("unshare").args(["--ipc", "--uts", "sh", "-c", &script]).spawn()?;
        let pause = Self(child);
        eventually("the pause process names its pod", || {
            run(&["nsenter", "-u", "-t", &pause.0.id().to_string(), "hostname"])
                .is_ok_and(|name| name.trim() == hostname)
        })?;
        Ok(pause)
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn empty_dir(place: &Place) -> PathBuf {
    place.bundle.join("volumes/kubernetes.io~empty-dir/cache")
}

/// A container of a pod; `from` is the snapshot name and the place of the one it is restored from.
fn container(pool: &str, id: &str, pause: &Pause, from: Option<(&str, &Place)>) -> Outcome<Place> {
    let volume = format!("{pool}/roundtrip-{}-{id}-volume", std::process::id());
    let old = Path::new("/run/roundtrip").join(id);
    for mount in ["volume", "shm"] {
        drop(run(&["umount", "-l", &old.join(mount).to_string_lossy()]));
    }
    let snapshot = from.map(|(name, place)| format!("{}@{name}", place.dataset));
    Place::with(pool, id, snapshot.as_deref(), |place, spec| {
        drop(run(&["zfs", "destroy", "-R", &volume]));
        match from {
            Some((name, old)) => run(&[
                "zfs",
                "clone",
                "-o",
                "mountpoint=legacy",
                &format!("{}-volume@{name}", old.dataset),
                &volume,
            ])?,
            None => run(&["zfs", "create", "-o", "mountpoint=legacy", &volume])?,
        };
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (data, shm, cache) = (place.bundle.join("volume"), place.bundle.join("shm"), empty_dir(place));
        for directory in [&data, &shm, &cache] {
            std::fs::create_dir_all(directory)?;
        }
        run(&["mount", "-t", "zfs", &volume, &text(data.clone())])?;
        run(&["mount", "-t", "tmpfs", "tmpfs", &text(shm.clone())])?;
        if let Some((_, old)) = from {
            // What `restore::place` does for volumes that are no datasets.
            run(&[
                "cp",
                "-a",
                &format!("{}/.", text(old.bundle.join("captured-cache"))),
                &text(cache.clone()),
            ])?;
            run(&["cp", "-a", &format!("{}/.", text(old.bundle.join("captured-shm"))), &text(shm.clone())])?;
        }
        let hosts = place.bundle.join("hosts");
        std::fs::write(&hosts, format!("127.0.0.1 {id}\n"))?;
        complete(spec, pause, [("/etc/hosts", hosts), ("/data", data), ("/dev/shm", shm), ("/cache", cache)]);
        Ok(())
    })
}

fn complete(spec: &mut Value, pause: &Pause, binds: [(&str, PathBuf); 4]) {
    spec["process"]["args"] = json!(["sh", "-c", WRITER]);
    spec["process"]["noNewPrivileges"] = json!(true);
    spec["process"]["oomScoreAdj"] = json!(900);
    spec["annotations"] = json!({"cryopod.dev/volumes": "capture"});
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["io_uring_setup"], "action": "SCMP_ACT_ERRNO"}]
    });
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        for namespace in namespaces {
            if let Some(kind @ ("ipc" | "uts")) = namespace["type"].as_str() {
                namespace["path"] = json!(pause.namespace(kind));
            }
        }
    }
    if let Some(object) = spec.as_object_mut() {
        object.remove("hostname");
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for (destination, source) in binds {
            mounts.push(json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]}));
        }
    }
}

fn start(backend: &OciBackend, place: &Place) -> Outcome<(u32, Output)> {
    let (stdio, output, _) = pipes()?;
    let pid = backend.create(CreateRequest { id: &place.id, bundle: &place.bundle, stdio }, &limits())?;
    backend.start(&place.id, &limits())?;
    eventually("the container counts", || output.last() > 3)?;
    Ok((pid, output))
}

fn same_namespace(pid: u32, kind: &str, path: &str) -> bool {
    let link = |path: &str| run(&["stat", "-L", "-c", "%d:%i", path]).ok();
    link(&format!("/proc/{pid}/ns/{kind}")) == link(path)
}

/// Everything with one runtime.
pub(crate) fn all(pool: &str, runtime: &str) -> Outcome {
    println!("== {runtime}, containers of a pod");
    let config = Config::load(&Sources::default())?;
    let options =
        OciOptions::from_config(&config, runtime, "roundtrip").ok_or("runtime is not configured")?;
    let backend = Arc::new(OciBackend::new(options));
    let ids = ["p1", "p2", "q1", "q2"].map(|name| format!("{runtime}-{name}"));
    for id in &ids {
        backend.delete(id, &limits())?;
    }
    let pause = Pause::start("old-pod")?;
    let places = [container(pool, &ids[0], &pause, None)?, container(pool, &ids[1], &pause, None)?];
    let (pid1, output1) = start(&backend, &places[0])?;
    let (pid2, output2) = start(&backend, &places[1])?;

    let running = [(&places[0], pid1), (&places[1], pid2)].map(|(p, pid)| Running {
        id: &p.id,
        bundle: &p.bundle,
        rootfs: None,
        pid,
    });
    let described = members::describe(&running, backend.as_ref(), runtime, &VolumeSection::default())?;
    for disk in described.first().map(|m| m.disks.as_slice()).unwrap_or_default() {
        println!("     {disk:?}");
    }
    let kinds: Vec<bool> =
        described.iter().flat_map(|m| &m.disks).map(|d| matches!(d.source, DiskSource::Zfs { .. })).collect();
    check(
        "root and volume are datasets, the rest is copied",
        kinds == [true, true, false, false, true, true, false, false],
    )?;
    let target = PodTarget::new(PodIdentity::default(), described, backend.clone());
    preflight::memory(target.members(), &backend.options().criu, &limits())?;

    let images = PathBuf::from(format!("/run/roundtrip/{runtime}-pod-images"));
    std::fs::remove_dir_all(&images).ok();
    killed(&target, &places[0], &images, &output1)?;

    run(&["nsenter", "-i", "-t", &pause.0.id().to_string(), "ipcmk", "-M", "4096"])?;
    let begin = Instant::now();
    target.freeze(&limits())?;
    let before = (output1.last(), output2.last());
    for (member, place) in target.members().iter().zip(&places) {
        dump(&target, member, place, &images)?;
    }
    check(
        "both stood still the whole time",
        (output1.last(), output2.last()) <= (before.0 + 1, before.1 + 1),
    )?;
    target.thaw()?;
    took("freeze window of two containers", begin);
    alive(&output1)?;
    alive(&output2)?;
    let objects = run(&["nsenter", "-i", "-t", &pause.0.id().to_string(), "ipcs", "-m"])?;
    check("the old pod has System V memory", objects.contains("4096"))?;
    let new = Pause::start("new-pod")?;
    let restored = [
        restore(pool, &backend, &ids[2], &places[0], &images, &new)?,
        restore(pool, &backend, &ids[3], &places[1], &images, &new)?,
    ];
    let again = run(&["nsenter", "-i", "-t", &new.0.id().to_string(), "ipcs", "-m"])?;
    check("the new pod has it once", again == objects).inspect_err(|_| eprintln!("{objects}{again}"))?;
    for (place, pid) in restored {
        backend.kill(&place.id, pid, 9, true, &limits())?;
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(pid)?), None)?;
        backend.delete(&place.id, &limits())?;
        remove(&place);
    }
    for (place, pid) in places.iter().zip([pid1, pid2]) {
        backend.kill(&place.id, pid, 9, true, &limits())?;
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(pid)?), None)?;
        backend.delete(&place.id, &limits())?;
        remove(place);
    }
    Ok(())
}

fn remove(place: &Place) {
    for mount in ["volume", "shm"] {
        drop(run(&["umount", "-l", &place.bundle.join(mount).to_string_lossy()]));
    }
    place.remove();
    drop(run(&["zfs", "destroy", "-R", &format!("{}-volume", place.dataset)]));
}

/// SIGKILL to criu while the hook works: everything must be as before.
fn killed(target: &PodTarget, place: &Place, images: &Path, output: &Output) -> Outcome {
    let member = target.members().first().ok_or("no member")?;
    for frozen in [true, false] {
        if frozen {
            target.freeze(&limits())?;
        }
        let dir = image_dir(images, &format!("killed-{frozen}"), None)?;
        let kill = || {
            let leftovers =
                run(&["sh", "-c", &format!("ls -a {}/ | grep -c link_remap", place.rootfs().display())]);
            println!("     link_remap files in the hook: {}", leftovers.unwrap_or_default().trim());
            for worker in orphans::find(&member.id).into_iter().filter(|worker| {
                process::stat(worker.process.pid).ok().flatten().is_some_and(|stat| stat.comm == "criu")
            }) {
                worker.process.signal(9).map_err(|error| error.to_string())?;
            }
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        };
        let error = target.dump(member, &dir, &DumpOptions::default(), &kill, &limits());
        println!("     {}", error.err().ok_or("a killed criu must fail the dump")?);
        check(
            "a killed criu leaves no link_remap",
            run(&["sh", "-c", &format!("ls {}/link_remap*", place.rootfs().display())]).is_err(),
        )?;
        let tables = run(&["ip", "netns", "exec", &place.netns, "nft", "list", "tables"])?;
        check("and no network lock", !tables.contains("CRIU"))?;
        check("and the freeze as it was", Cgroup::at(&member.cgroup).is_frozen()? == frozen)?;
        target.thaw()?;
        alive(output)?;
    }
    Ok(())
}

fn dump(target: &PodTarget, member: &Member, place: &Place, images: &Path) -> Outcome {
    let dir = image_dir(images, &member.id, None)?;
    let at_instant = || {
        let run = |words: &[&str]| run(words).map_err(|error| error.to_string());
        let text = |name: &str| place.bundle.join(name).to_string_lossy().into_owned();
        run(&["sync", "-f", &text("rootfs")])?;
        run(&["sync", "-f", &text("volume")])?;
        let volume = format!("{}-volume@ck", place.dataset);
        run(&["zfs", "snapshot", &format!("{}@ck", place.dataset), &volume])?;
        run(&["cp", "-a", &empty_dir(place).to_string_lossy(), &text("captured-cache")])?;
        run(&["cp", "-a", &text("shm"), &text("captured-shm")]).map(|_| ())
    };
    let begin = Instant::now();
    let stats = target.dump(member, &dir, &DumpOptions::default(), &at_instant, &limits())?;
    println!("     dump of {}: {stats:?}, {} ms", member.id, begin.elapsed().as_millis());
    Ok(())
}

fn restore(
    pool: &str,
    backend: &OciBackend,
    id: &str,
    from: &Place,
    images: &Path,
    pause: &Pause,
) -> Outcome<(Place, u32)> {
    let place = container(pool, id, pause, Some(("ck", from)))?;
    let captured = std::fs::read_to_string(place.rootfs().join("count"))?.lines().count();
    let work = place.bundle.join("work");
    let (stdio, output, _) = pipes()?;
    let images = images.join(&from.id);
    let request = CreateRequest { id, bundle: &place.bundle, stdio };
    let restore = RestoreRequest { images: &images, work: &work, tcp: TcpPolicy::Keep, frozen: false };
    let begin = Instant::now();
    let pid = backend.restore(request, &restore, &limits())?;
    took("restore", begin);
    eventually("it goes on", || output.last() > u64::try_from(captured).unwrap_or(u64::MAX) + 3)?;
    check("network namespace of the new pod", same_namespace(pid, "net", &place.netns_path()))?;
    check("ipc namespace of the new pod", same_namespace(pid, "ipc", &pause.namespace("ipc")))?;
    check("uts namespace of the new pod", same_namespace(pid, "uts", &pause.namespace("uts")))?;

    let (stdio, said, errors) = pipes()?;
    let process = json!({"args": ["sh", "-c", "hostname; cat /etc/hosts"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let exec = backend
        .exec(ExecRequest { id, exec_id: "e", process: &process, bundle: &place.bundle, stdio }, &limits())?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(exec)?), None)?;
    eventually("host name and hosts file are the new pod's", || {
        said.text().contains("new-pod") && said.text().contains(id)
    })
    .inspect_err(|_| eprintln!("exec said {:?} {:?}", said.text(), errors.text()))?;
    backend.pause(id, &limits())?;
    for file in
        ["rootfs/count", "rootfs/b", "volume/log", "volumes/kubernetes.io~empty-dir/cache/log", "shm/x"]
    {
        let text = std::fs::read_to_string(place.bundle.join(file))?;
        let numbers: Vec<u64> = text.lines().flat_map(str::parse).collect();
        let expected: Vec<u64> = (1..=u64::try_from(numbers.len())?).collect();
        check(&format!("{file} counts without a gap"), numbers == expected && numbers.len() > captured)?;
    }
    check(
        "no link_remap is left in the clone",
        run(&["sh", "-c", &format!("ls {}/link_remap*", place.rootfs().display())]).is_err(),
    )?;
    backend.resume(id, &limits())?;
    Ok((place, pid))
}
