//! What is on the node besides its files: datasets, mounts, cgroups, firewall tables, processes, sockets and journal
//! entries. Taken before and after a test, the difference is what the test (or cryopod) left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::suite::Failure;
use crate::{cryopod, shell};

/// containerd removes snapshots of deleted containers in its own time.
const PATIENCE: Duration = Duration::from_secs(45);

/// One line per thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeSet<String>);

impl Footprint {
    /// What is there now.
    pub fn take() -> Result<Self, Failure> {
        let mut things = BTreeSet::new();
        let mut add = |kind: &str, lines: String| {
            things.extend(lines.lines().map(|line| format!("{kind} {}", line.trim())));
        };
        let datasets = shell::ok("zfs list -H -o name,userrefs -t all")?;
        let datasets = || datasets.lines().filter_map(|line| line.split_once('\t'));
        add("dataset", datasets().map(|(name, _)| format!("{name}\n")).collect());
        let held: Vec<&str> =
            datasets().filter(|(_, refs)| !["-", "0"].contains(refs)).map(|(name, _)| name).collect();
        if !held.is_empty() {
            add("hold", shell::ok(&format!("zfs holds -H {} | cut -f1,2", held.join(" ")))?);
        }
        add("mount", shell::ok("cut -d' ' -f5 /proc/self/mountinfo")?);
        add(
            "cgroup",
            shell::ok("find /sys/fs/cgroup -type d -not -path '*.service*' -not -path '*.scope*'")?,
        );
        add("frozen", shell::ok("grep -lsx 1 $(find /sys/fs/cgroup -name cgroup.freeze) || true")?);
        add(
            "firewall",
            shell::ok(
                "nft list tables 2>/dev/null | grep CRIU || true; iptables -S 2>/dev/null | grep CRIU || true",
            )?,
        );
        // In the namespaces of living pods as well: a lock that stays there cuts the pod off.
        add(
            "firewall",
            shell::ok(
                "for n in $(ip netns list | cut -d' ' -f1); do ip netns exec $n nft list tables | sed -n \"s|.*CRIU.*|& in $n|p\"; done",
            )?,
        );
        add("process", shell::ok(PROCESSES)?);
        add(
            "state",
            shell::ok(
                "find /run/cryopod /var/lib/cryopod/journal -not -name '*.lock' -not -type d 2>/dev/null || true",
            )?,
        );
        add("container", shell::ok("find /var/lib/lxc -mindepth 1 -maxdepth 1 -type d")?);
        // Of shims, and named after their pods: a socket that a test did not find and left is one without a shim.
        add("socket", shell::ok("mkdir -p /run/containerd/s && find /run/containerd/s -type s")?);
        add("network", shell::ok("ip netns list | cut -d' ' -f1")?);
        Ok(Self(things))
    }

    /// One from before this process, see [`Footprint::lines`].
    pub fn of_lines(lines: Vec<String>) -> Self {
        Self(lines.into_iter().collect())
    }

    /// To be written down.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// What is there in `now` and was not before.
    fn beyond(&self, now: &Self) -> Vec<String> {
        now.0.difference(&self.0).filter(|thing| !is_kept(thing)).cloned().collect()
    }

    /// Nothing new may be left; waits for what goes by itself or by one recovery, as the agent does it now and then.
    pub fn unchanged(&self) -> Result<(), Failure> {
        self.settled().map(drop)
    }

    /// The same; what is there then.
    fn settled(&self) -> Result<Self, Failure> {
        let start = std::time::Instant::now();
        loop {
            let now = Self::take()?;
            let left = self.beyond(&now);
            if left.is_empty() {
                return Ok(now);
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("left behind: {}", left.join(", ")));
            }
            std::thread::sleep(Duration::from_secs(1));
            // Its collector runs after a deletion and not again before the next one, also when it failed.
            if start.elapsed() > PATIENCE / 3 {
                shell::sh("ctr -n k8s.io content prune references")?;
            }
            for config in ["/etc/cryopod/config.toml", "/etc/cryopod/dir.toml"] {
                cryopod::ok(&["--config", config, "recover"])?;
            }
        }
    }
}

/// Ours and the programs that we start, without the process that asks.
const PROCESSES: &str = "ps -eo comm=,args= | grep -E '^(containerd-shim|cryopod |cryopod-hook|cryopod-lxc|cryopod-launch|cryopod-init|criu|crun|runc|zfs|zpool)' \
                         | grep -v cryopod-e2e | sed 's/  */ /g' || true";

/// The store's own places, which are made once and stay.
fn is_kept(thing: &str) -> bool {
    // CRIU's logs of the last failures, which the error names; their number is bounded.
    if thing.starts_with("state /run/cryopod/criu/failed/") {
        return true;
    }
    // kubelet makes it at its start and leaves it; here the first pod does.
    if thing == "cgroup /sys/fs/cgroup/kubepods" {
        return true;
    }
    let Some(name) = thing.strip_prefix("dataset ").or_else(|| thing.strip_prefix("mount ")) else {
        return false;
    };
    let last = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
    let part = ["cryopod", "bases", "checkpoints", "containers", "adopted", "trash", "templates", "layers"];
    // Bases are a cache by design: the next checkpoint of a pod with that image is sent against them.
    part.contains(&last.as_ref()) || name.contains("/bases/")
}

/// What the last test that left nothing ended with: where the next one begins.
static LAST: Mutex<Option<Footprint>> = Mutex::new(None);

/// Runs `body` and then looks what is left. Tests run one after the other.
pub fn checked(body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let last = LAST.lock().map_err(|e| e.to_string())?.take();
    let before = last.map_or_else(Footprint::take, Ok)?;
    body()?;
    let after = before.settled()?;
    *LAST.lock().map_err(|e| e.to_string())? = Some(after);
    Ok(())
}
