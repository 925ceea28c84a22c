//! The checks, in the life of one container.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::target::{DumpOptions, ImageDir, Member, PodIdentity, Repair, Target, TcpPolicy};
use cryopod_command::Limits;
use cryopod_runtime::backend::{Backend, CreateRequest, ExecRequest, RestoreRequest};
use cryopod_runtime::cgroup::Cgroup;
use cryopod_runtime::config::{Config, Sources, VolumeSection};
use cryopod_runtime::criu::orphans;
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::oci::{OciBackend, OciOptions};
use cryopod_runtime::pod_target::PodTarget;
use cryopod_runtime::repair::OciRepair;
use cryopod_runtime::{node_facts, preflight, process, stats};
use serde_json::json;

use crate::Outcome;
use crate::node::{Output, Place, eventually, pipes, run};

pub(crate) fn limits() -> Limits {
    Limits::within(Duration::from_secs(180))
}

pub(crate) fn check(what: &str, holds: bool) -> Outcome {
    if !holds {
        return Err(format!("FAILED: {what}").into());
    }
    println!("ok   {what}");
    Ok(())
}

pub(crate) fn took(what: &str, since: Instant) {
    println!("     {what}: {} ms", since.elapsed().as_millis());
}

/// Everything with one runtime.
pub(crate) fn all(pool: &str, runtime: &str) -> Outcome {
    nix::sys::prctl::set_child_subreaper(true)?;
    let config = Config::load(&Sources::default())?;
    let options =
        OciOptions::from_config(&config, runtime, "roundtrip").ok_or("runtime is not configured")?;
    let criu = options.criu.clone();
    let backend = Arc::new(OciBackend::new(options));
    let version = backend.version(&limits())?;
    println!("     {version}, {:?}", node_facts::read(&criu, &limits()).criu);
    check("features are reported", backend.features(&limits())?.is_some())?;

    // A run that failed leaves its container.
    for id in ["a", "b"] {
        backend.delete(&format!("{runtime}-{id}"), &limits())?;
    }
    let place = Place::new(pool, &format!("{runtime}-a"), None)?;
    let (stdio, output, errors) = pipes()?;
    let request = CreateRequest { id: &place.id, bundle: &place.bundle, stdio };
    let begin = Instant::now();
    let pid = backend.create(request, &limits())?;
    took("create", begin);
    check("created, nothing runs yet", output.text().is_empty() && process::stat(pid)?.is_some())?;
    let begin = Instant::now();
    backend.start(&place.id, &limits())?;
    took("start", begin);
    eventually("the counter counts", || output.last() > 3)?;

    life(&backend, &place, pid, &output)?;
    let containers = [Running { id: &place.id, bundle: &place.bundle, rootfs: None, pid }];
    let described = members::describe(&containers, backend.as_ref(), &version, &VolumeSection::default())?;
    let target = PodTarget::new(PodIdentity::default(), described, backend.clone());
    let member = target.members().first().ok_or("no member")?.clone();
    println!("     rss {} KiB, disks {:?}", member.rss_bytes >> 10, member.disks);
    preflight::memory(target.members(), &criu, &limits())?;
    check("preflight finds nothing", true)?;

    let images = PathBuf::from(format!("/run/roundtrip/{runtime}-images"));
    std::fs::remove_dir_all(&images).ok();
    failures(&target, &member, &images, &output)?;
    let snapshot = capture(&target, &member, &place, &images, &output)?;
    check("stderr stayed empty", errors.text().is_empty()).inspect_err(|_| eprintln!("{}", errors.text()))?;
    restore(pool, &backend, &snapshot, &images, &place)?;
    repair(&member, &place)?;

    backend.kill(&place.id, pid, 15, false, &limits())?;
    eventually("TERM is handled", || output.text().contains("bye"))?;
    eventually("the process ends", || process::stat(pid).is_ok_and(|s| s.is_none_or(|s| s.is_dead())))?;
    let gone = backend.kill(&place.id, pid, 15, false, &limits());
    check("a signal to the dead is not found", gone.is_err_and(|e| e.kind() == Kind::NotFound))?;
    backend.delete(&place.id, &limits())?;
    backend.delete(&place.id, &limits())?;
    check(
        "delete twice, nothing left",
        !Path::new("/sys/fs/cgroup").join(place.cgroup().trim_start_matches('/')).exists(),
    )?;
    place.remove();
    Ok(())
}

fn life(backend: &OciBackend, place: &Place, pid: u32, output: &Output) -> Outcome {
    let (stdio, said, _) = pipes()?;
    let process = json!({"args": ["sh", "-c", "echo exec $0; hostname"], "cwd": "/", "env": ["PATH=/bin"],
                         "user": {"uid": 0, "gid": 0}});
    let request =
        ExecRequest { id: &place.id, exec_id: "e1", process: &process, bundle: &place.bundle, stdio };
    let begin = Instant::now();
    let exec = backend.exec(request, &limits())?;
    took("exec", begin);
    eventually("exec writes to its pipe", || said.text().contains(&place.id))?;
    check(
        "exec is a child of ours",
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(exec)?), None).is_ok(),
    )?;

    let cgroup = Cgroup::at(backend.cgroup(&place.id, pid)?);
    check("cgroup is as asked for", cgroup.clone().of_container().relative() == place.cgroup())?;
    backend.update(&place.id, &json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 40}}), &limits())?;
    let used = stats::read(&cgroup)?;
    check("update took effect, stats are read", used.memory.limit == 64 << 20 && used.pids.limit == 40)?;
    check("stats have numbers", used.cpu.usage_usec > 0 && used.memory.usage > 0 && used.pids.current > 0)?;

    // Another backend instance knows nothing but the runtime's own state.
    let other = OciBackend::new(backend.options().clone());
    let begin = Instant::now();
    other.pause(&place.id, &limits())?;
    took("pause", begin);
    let before = output.last();
    std::thread::sleep(Duration::from_millis(500));
    check("paused: it does not count", output.last() <= before + 1)?;
    other.resume(&place.id, &limits())?;
    eventually("resumed: it counts", || output.last() > before + 2)?;
    Ok(())
}

/// One image directory below `base`.
pub(crate) fn image_dir(base: &Path, name: &str, parent: Option<&str>) -> Outcome<ImageDir> {
    let dir = base.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(ImageDir { dir, parent: parent.map(PathBuf::from) })
}

pub(crate) fn alive(output: &Output) -> Outcome {
    let before = output.last();
    eventually("the workload goes on", || output.last() > before + 2)
}

fn failures(target: &PodTarget, member: &Member, images: &Path, output: &Output) -> Outcome {
    let options = DumpOptions::default();
    target.freeze(&limits())?;
    let dir = image_dir(images, "failed-hook", None)?;
    let fails = || Err("snapshot failed on purpose".to_owned());
    let error =
        target.dump(member, &dir, &options, &fails, &limits()).err().ok_or("a failing hook must fail")?;
    println!("     {error}");
    check("a failing hook rolls back with its words", error.to_string().contains("on purpose"))?;
    check("and the freeze stays", Cgroup::at(&member.cgroup).is_frozen()?)?;
    target.thaw()?;
    alive(output)?;

    target.freeze(&limits())?;
    let dir = image_dir(images, "deadline", None)?;
    let slow = || {
        std::thread::sleep(Duration::from_secs(8));
        Ok(())
    };
    let begin = Instant::now();
    let short = Limits::within(Duration::from_secs(4));
    let error = target.dump(member, &dir, &options, &slow, &short).err().ok_or("a deadline must fail")?;
    took("ended at its deadline", begin);
    check("a deadline is reported as such", error.kind == Kind::DeadlineExceeded)?;
    no_criu(&member.id)?;
    check("and the freeze stays", Cgroup::at(&member.cgroup).is_frozen()?)?;
    target.thaw()?;
    alive(output)
}

fn capture(
    target: &PodTarget,
    member: &Member,
    place: &Place,
    images: &Path,
    output: &Output,
) -> Outcome<String> {
    let begin = Instant::now();
    let round = target.pre_dump(member, &image_dir(images, "1", None)?, &limits())?;
    println!("     pre-dump: {round:?}, {} ms", begin.elapsed().as_millis());
    let snapshot = format!("{}@ck", place.dataset);
    let at_instant = || {
        let run = |words: &[&str]| run(words).map_err(|error| error.to_string());
        run(&["sync", "-f", &place.rootfs().to_string_lossy()])?;
        run(&["zfs", "snapshot", &snapshot]).map(|_| ())
    };
    let freeze = Instant::now();
    target.freeze(&limits())?;
    took("freeze", freeze);
    let dump = Instant::now();
    let dir = image_dir(images, "final", Some("../1"))?;
    let stats = target.dump(member, &dir, &DumpOptions::default(), &at_instant, &limits())?;
    println!("     dump: {stats:?}, {} ms", dump.elapsed().as_millis());
    check("frozen time and pages are known", stats.frozen_us > 0 && stats.pages_written > 0)?;
    check("still frozen after the dump", Cgroup::at(&member.cgroup).is_frozen()?)?;
    target.thaw()?;
    took("whole freeze window", freeze);
    alive(output)?;
    Ok(snapshot)
}

fn restore(pool: &str, backend: &OciBackend, snapshot: &str, images: &Path, from: &Place) -> Outcome {
    let id = from.id.replace("-a", "-b");
    let place = Place::new(pool, &id, Some(snapshot))?;
    let text = std::fs::read_to_string(place.rootfs().join("count"))?;
    let captured: u64 = text.lines().last().ok_or("empty count")?.parse()?;
    let work = place.bundle.join("work");
    let tcp = TcpPolicy::Keep;

    let empty = image_dir(images, "empty", None)?;
    let (stdio, _, _) = pipes()?;
    let request = CreateRequest { id: &id, bundle: &place.bundle, stdio };
    let broken = RestoreRequest { images: &empty.dir, work: &work, tcp, frozen: false };
    let error = backend.restore(request, &broken, &limits()).err().ok_or("empty images must fail")?;
    println!("     {error}");
    nothing_left(backend, &place)?;

    let damaged = images.join("damaged");
    run(&["cp", "-a", &images.join("final").to_string_lossy(), &damaged.to_string_lossy()])?;
    let core = run(&["sh", "-c", &format!("ls {}/core-*.img | head -1", damaged.display())])?;
    std::fs::write(core.trim(), b"nonsense")?;
    let (stdio, _, _) = pipes()?;
    let request = CreateRequest { id: &id, bundle: &place.bundle, stdio };
    let broken = RestoreRequest { images: &damaged, work: &work, tcp, frozen: false };
    let error = backend.restore(request, &broken, &limits()).err().ok_or("damaged images must fail")?;
    println!("     {error}");
    nothing_left(backend, &place)?;

    let (stdio, output, _) = pipes()?;
    let request = CreateRequest { id: &id, bundle: &place.bundle, stdio };
    let final_images = images.join("final");
    let restore = RestoreRequest { images: &final_images, work: &work, tcp, frozen: false };
    let begin = Instant::now();
    let pid = backend.restore(request, &restore, &limits())?;
    took("restore", begin);
    eventually("the restored counter writes to its new pipe", || output.last() > captured)?;
    let first: u64 =
        output.text().lines().find_map(|line| line.strip_prefix("out ")?.parse().ok()).ok_or("no output")?;
    println!("     captured at {captured}, first restored output {first}");
    check("memory goes on where the file is", first == captured + 1 || first == captured)?;
    let numbers: Vec<u64> =
        std::fs::read_to_string(place.rootfs().join("count"))?.lines().flat_map(str::parse).collect();
    let expected: Vec<u64> = (1..=u64::try_from(numbers.len())?).collect();
    check("the file counts without a gap", numbers == expected)?;
    check("cgroup of the new request", Cgroup::of_process(pid)?.of_container().relative() == place.cgroup())?;
    check("limits of the new request", stats::read(&Cgroup::of_process(pid)?)?.memory.limit == 128 << 20)?;
    check("a child of ours", process::stat(pid)?.is_some_and(|stat| stat.ppid == std::process::id()))?;

    let (stdio, said, _) = pipes()?;
    let process = json!({"args": ["sh", "-c", "cat /proc/self/cgroup; hostname"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let exec = backend.exec(
        ExecRequest { id: &id, exec_id: "e2", process: &process, bundle: &place.bundle, stdio },
        &limits(),
    )?;
    eventually("exec works in the restored container, host name is the new one", || {
        said.text().contains(&place.id)
    })?;
    // A PID namespace ends only when every process of it was reaped, exec sessions too.
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(exec)?), None)?;

    backend.kill(&id, pid, 9, true, &limits())?;
    eventually("it ends", || process::stat(pid).is_ok_and(|s| s.is_none_or(|s| s.is_dead())))?;
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(i32::try_from(pid)?), None)?;
    println!("     {status:?}");
    backend.delete(&id, &limits())?;
    nothing_left(backend, &place)?;
    place.remove();
    Ok(())
}

fn nothing_left(backend: &OciBackend, place: &Place) -> Outcome {
    let cgroup = Path::new("/sys/fs/cgroup").join(place.cgroup().trim_start_matches('/'));
    check("no cgroup is left", !cgroup.exists())?;
    check("no state is left", !backend.options().root.join(&place.id).exists())?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    check("no mount is left", !mounts.contains("criu-root"))?;
    let tables = run(&["ip", "netns", "exec", &place.netns, "nft", "list", "tables"])?;
    check("no network lock is left", !tables.contains("CRIU"))?;
    no_criu(&place.id)
}

/// Others may use the node at the same time, so only ours count.
fn no_criu(id: &str) -> Outcome {
    let children = run(&["pgrep", "-x", "-P", &std::process::id().to_string(), "criu"]);
    let found = orphans::find(id);
    check("no criu is left", found.is_empty() && children.is_err())
        .inspect_err(|_| eprintln!("{found:?} {children:?}"))
}

/// What a killed criu leaves, made by hand.
fn repair(member: &Member, place: &Place) -> Outcome {
    run(&["ip", "netns", "exec", &place.netns, "nft", "add", "table", "inet", "CRIU-4711"])?;
    Cgroup::at(&member.cgroup).freeze(&limits())?;
    for _ in 0..2 {
        OciRepair.repair(member, true, Duration::from_secs(30))?;
    }
    let tables = run(&["ip", "netns", "exec", &place.netns, "nft", "list", "tables"])?;
    check("repair removes the network lock", !tables.contains("CRIU"))?;
    check("and thaws what we froze", !Cgroup::at(&member.cgroup).is_frozen()?)
}
