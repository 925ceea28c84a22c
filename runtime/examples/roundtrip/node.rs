//! Datasets, bundles and network namespaces for the checks; everything is below names that hold `roundtrip`.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryopod_runtime::backend::Stdio;
use serde_json::{Value, json};

use crate::Outcome;

/// Counts in memory, in a file that it keeps open, and on stdout; TERM makes it say goodbye.
const COUNTER: &str = "trap 'echo bye; exit 7' TERM; exec 3>>/count; i=0; \
                       while :; do i=$((i+1)); echo $i >&3; echo out $i; sleep 0.05; done";

/// Whether cgroups come from systemd: environment ROUNDTRIP_SYSTEMD.
fn systemd() -> bool {
    std::env::var_os("ROUNDTRIP_SYSTEMD").is_some()
}

/// Runs a command and returns its stdout.
pub(crate) fn run(words: &[&str]) -> Outcome<String> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the container wrote to a pipe so far.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<String>>);

impl Output {
    fn collect(mut reader: std::io::PipeReader) -> Self {
        let output = Self::default();
        let sink = output.clone();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.push(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
            }
        });
        output
    }

    pub(crate) fn push(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(part);
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last number that the counter printed.
    pub(crate) fn last(&self) -> u64 {
        let text = self.text();
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        whole.lines().rev().find_map(|line| line.strip_prefix("out ")?.parse().ok()).unwrap_or(0)
    }
}

/// Three pipes for a container, and what comes out of two of them.
pub(crate) fn pipes() -> Outcome<(Stdio, Output, Output)> {
    let (stdin, held) = std::io::pipe()?;
    // The container's stdin must not end while the check runs.
    std::mem::forget(held);
    let (output, stdout) = std::io::pipe()?;
    let (errors, stderr) = std::io::pipe()?;
    let stdio = Stdio::Pipes {
        stdin: Some(OwnedFd::from(stdin)),
        stdout: Some(OwnedFd::from(stdout)),
        stderr: Some(OwnedFd::from(stderr)),
    };
    Ok((stdio, Output::collect(output), Output::collect(errors)))
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        if Instant::now() > end {
            return Err(format!("{what}: not within a minute").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One container's surroundings: dataset, bundle, network namespace.
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) dataset: String,
    pub(crate) netns: String,
}

impl Place {
    /// A place with an empty dataset, or a clone of `snapshot`.
    pub(crate) fn new(pool: &str, id: &str, snapshot: Option<&str>) -> Outcome<Self> {
        Self::with(pool, id, snapshot, |_, _| Ok(()))
    }

    /// As [`Self::new`], with a spec that `change` has completed.
    pub(crate) fn with(
        pool: &str,
        id: &str,
        snapshot: Option<&str>,
        change: impl FnOnce(&Self, &mut Value) -> Outcome,
    ) -> Outcome<Self> {
        let place = Self {
            id: id.to_owned(),
            bundle: Path::new("/run/roundtrip").join(id),
            // Of its own for each run: other mount namespaces may keep those of an earlier one busy.
            dataset: format!("{pool}/roundtrip-{}-{id}", std::process::id()),
            netns: format!("roundtrip-{id}"),
        };
        place.remove();
        let rootfs = place.rootfs();
        std::fs::create_dir_all(&rootfs)?;
        match snapshot {
            Some(snapshot) => run(&["zfs", "clone", "-o", "mountpoint=legacy", snapshot, &place.dataset])?,
            None => run(&["zfs", "create", "-o", "mountpoint=legacy", &place.dataset])?,
        };
        run(&["mount", "-t", "zfs", &place.dataset, &rootfs.to_string_lossy()])?;
        if snapshot.is_none() {
            busybox(&rootfs)?;
        }
        run(&["ip", "netns", "add", &place.netns])?;
        run(&["ip", "-n", &place.netns, "link", "set", "lo", "up"])?;
        let mut spec = place.spec();
        change(&place, &mut spec)?;
        std::fs::write(place.bundle.join("config.json"), spec.to_string())?;
        Ok(place)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    pub(crate) fn netns_path(&self) -> String {
        format!("/run/netns/{}", self.netns)
    }

    pub(crate) fn cgroup(&self) -> String {
        if systemd() {
            format!("/roundtrip.slice/rt-{}.scope", self.id)
        } else {
            format!("/roundtrip/{}", self.id)
        }
    }

    fn spec(&self) -> Value {
        let caps = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["sh", "-c", COUNTER],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}
            },
            "root": {"path": "rootfs"},
            "hostname": self.id,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
            ],
            "linux": {
                "cgroupsPath": if systemd() { format!("roundtrip.slice:rt:{}", self.id) } else { self.cgroup() },
                "resources": {"memory": {"limit": 134_217_728}, "pids": {"limit": 50}},
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
                    {"type": "network", "path": self.netns_path()}
                ],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/sys"]
            }
        })
    }

    /// Removes what is there; what is not there is no failure.
    pub(crate) fn remove(&self) {
        drop(run(&["umount", "-l", &self.rootfs().to_string_lossy()]));
        drop(run(&["ip", "netns", "delete", &self.netns]));
        // The mount namespace of a container that has just been killed holds its root for a moment.
        for _ in 0..50 {
            match run(&["zfs", "destroy", "-R", &self.dataset]) {
                Err(error) if error.to_string().contains("busy") => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                _ => break,
            }
        }
        std::fs::remove_dir_all(&self.bundle).ok();
    }
}

fn busybox(rootfs: &Path) -> Outcome {
    for directory in
        ["bin", "proc", "sys", "dev", "tmp", "etc", "data", "cache", "lib64", "lib/x86_64-linux-gnu"]
    {
        std::fs::create_dir_all(rootfs.join(directory))?;
    }
    std::fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox"))?;
    for applet in ["sh", "sleep", "cat", "echo", "true", "ps", "kill", "hostname"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    // Debian's busybox may be linked dynamically.
    let libraries = Command::new("ldd").arg("/usr/bin/busybox").output()?;
    for word in
        String::from_utf8_lossy(&libraries.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let target = rootfs.join(word.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().ok_or("no directory")?)?;
        std::fs::copy(word, target)?;
    }
    Ok(())
}
