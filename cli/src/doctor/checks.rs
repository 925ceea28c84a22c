//! Judges facts: one line for each thing that must work, with what to do where it does not.
//!
//! Pure. `Fail` means that something of cryopod's main job is impossible here; `Warn` that it works, but worse, or
//! that a part is missing which only some need.

use super::facts::{Containerd, ContainerdConfig, Criu, Facts, Runtime, Store, Zfs};
use crate::output::units;
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It works.
    Ok,
    /// It works worse than it could, or is not known.
    Warn,
    /// It does not work.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name of the check.
    pub(crate) check: &'static str,
    /// How bad.
    pub(crate) level: Level,
    /// What was seen.
    pub(crate) text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// CRIU below this breaks on current kernels: 4.1.1 repairs the restore of mount namespaces.
const CRIU_FLOOR: (u32, u32, u32) = (4, 1, 1);
/// containerd below this accepts no shim of version 3.
const CONTAINERD_FLOOR: (u32, u32, u32) = (2, 0, 0);
/// Kernel with PAGEMAP_SCAN (6.7), by which CRIU finds changed memory; below it works by older means.
const KERNEL_GOOD: (u32, u32, u32) = (6, 7, 0);
/// cgroup.kill and a freezer that can be relied on.
const KERNEL_FLOOR: (u32, u32, u32) = (5, 15, 0);
/// Less is filled by one checkpoint of an ordinary pod.
const FREE_LOW: u64 = 1 << 30;

fn ok(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, text: text.into(), advice: None }
}

fn warn(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warn, text: text.into(), advice: Some(advice.into()) }
}

fn fail(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, level: Level::Fail, text: text.into(), advice: Some(advice.into()) }
}

/// Every check, in the order in which one depends on another.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![rights(facts), kernel(facts), cgroup(facts), config(facts)];
    findings.extend(runtimes(facts));
    findings.extend(criu(&facts.criu));
    findings.extend(zfs(&facts.zfs));
    findings.extend(store(facts));
    findings.extend(containerd(&facts.containerd, &facts.zfs));
    findings.push(cni(facts));
    findings.extend(journal(facts));
    findings.push(leftovers(facts));
    findings
}

/// The worst level of all.
pub(crate) fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

fn rights(facts: &Facts) -> Finding {
    if facts.root {
        ok("rights", "root")
    } else {
        warn("rights", "not root: much cannot be looked at", "run `cryopod doctor` as root")
    }
}

fn kernel(facts: &Facts) -> Finding {
    let release = &facts.kernel;
    match version(release) {
        Some(found) if found >= KERNEL_GOOD => ok("kernel", release),
        Some(found) if found >= KERNEL_FLOOR => warn(
            "kernel",
            format!("{release}: memory changes are found the slow way"),
            "6.7 or newer is better",
        ),
        Some(_) => fail("kernel", format!("{release} is too old"), "a kernel of 5.15 or newer is needed"),
        None => warn(
            "kernel",
            format!("'{release}' is no kernel release that can be compared"),
            "check it yourself",
        ),
    }
}

fn cgroup(facts: &Facts) -> Finding {
    let Some(controllers) = &facts.cgroup else {
        let advice = "boot with systemd.unified_cgroup_hierarchy=1: freezing needs the unified hierarchy";
        return fail("cgroup", "no cgroup v2 at /sys/fs/cgroup", advice);
    };
    let missing: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|name| !controllers.iter().any(|c| c == name)).collect();
    if missing.is_empty() {
        ok("cgroup", format!("v2: {}", controllers.join(" ")))
    } else {
        let text = format!("v2 without {}", missing.join(", "));
        warn("cgroup", text, "enable the controllers; limits on these are not enforced")
    }
}

fn config(facts: &Facts) -> Finding {
    match &facts.config_error {
        None => ok("config", "read without complaint"),
        Some(error) => fail("config", error, "correct it; `cryopod config check` looks again"),
    }
}

fn runtimes(facts: &Facts) -> Vec<Finding> {
    facts.runtimes.iter().map(|runtime| one_runtime(runtime, &facts.default_runtime)).collect()
}

fn one_runtime(runtime: &Runtime, default: &str) -> Finding {
    let is_default = runtime.name == default;
    let role = if is_default { "the default" } else { "not the default" };
    match &runtime.version {
        Ok(version) if runtime.checkpoint => ok(
            "runtime",
            format!("{}: {version}, {role}; pods with hostUsers: false without memory", runtime.name),
        ),
        Ok(version) => warn(
            "runtime",
            format!("{}: {version}, {role}, cannot dump memory", runtime.name),
            "checkpoints of its containers are disk only; install a crun built with CRIU, or runc",
        ),
        Err(error) if is_default => fail(
            "runtime",
            format!("{}: {error}", runtime.name),
            format!("install {} or set runtime.default in the configuration", runtime.name),
        ),
        // Half of it is there: somebody wants it.
        Err(error) if error.contains("without libseccomp") => warn(
            "runtime",
            format!("{}: {error}", runtime.name),
            "LXC pods with a system call filter (RuntimeDefault) do not start until it is installed",
        ),
        Err(_) => ok("runtime", format!("{}: not installed, {role}", runtime.name)),
    }
}

fn criu(criu: &Criu) -> Vec<Finding> {
    let floor = format!("{}.{}.{}", CRIU_FLOOR.0, CRIU_FLOOR.1, CRIU_FLOOR.2);
    let first = match &criu.version {
        Some(Ok(found)) => match version(found) {
            Some(number) if number >= CRIU_FLOOR => ok("criu", found),
            _ => fail(
                "criu",
                format!("{found} is too old"),
                format!("{floor} or newer; until then: disk only"),
            ),
        },
        Some(Err(error)) => fail(
            "criu",
            error,
            format!("install CRIU {floor} or newer; until then checkpoints are disk only"),
        ),
        None => warn("criu", "not looked for", "see the checks above"),
    };
    let check = criu.check.as_ref().map(|check| match check {
        Ok(()) => ok("criu check", "this kernel has what CRIU needs"),
        Err(error) => fail("criu check", error, "`criu check --all` says more; the kernel lacks a feature"),
    });
    std::iter::once(first).chain(check).collect()
}

fn zfs(zfs: &Zfs) -> Vec<Finding> {
    let without = "without ZFS the directory store copies disks while frozen";
    let tools = match &zfs.tools {
        Some(Ok(tools)) => tools,
        Some(Err(error)) => return vec![warn("zfs", error, format!("install zfsutils-linux; {without}"))],
        None => return vec![warn("zfs", "not looked for", "see the checks above")],
    };
    let Some(module) = &zfs.module else {
        return vec![warn(
            "zfs",
            format!("tools {tools}, module not loaded"),
            format!("`modprobe zfs`; {without}"),
        )];
    };
    let mut findings = vec![ok("zfs", format!("module {module}, tools {tools}"))];
    if zfs.pools.is_empty() {
        findings.push(warn("zfs pools", "no pool is imported", format!("`zpool import`; {without}")));
    }
    for (pool, health) in &zfs.pools {
        findings.push(match health.as_str() {
            "ONLINE" => ok("zfs pools", format!("{pool} is ONLINE")),
            "DEGRADED" => warn("zfs pools", format!("{pool} is DEGRADED"), format!("`zpool status {pool}`")),
            other => fail("zfs pools", format!("{pool} is {other}"), format!("`zpool status {pool}`")),
        });
    }
    findings
}

fn store(facts: &Facts) -> Vec<Finding> {
    match &facts.store {
        None => Vec::new(),
        Some(Err(error)) => vec![fail("store", error, "see [store] in `cryopod config dump`")],
        Some(Ok(store)) => {
            vec![ok("store", format!("{} at {}: {}", store.kind, store.place, store.why)), space(store)]
        }
    }
}

fn space(store: &Store) -> Finding {
    match store.free {
        Some(free) if free >= FREE_LOW => ok("space", format!("{} free", units::bytes(free))),
        Some(free) => warn(
            "space",
            format!("only {} free at {}", units::bytes(free), store.place),
            "`cryopod checkpoints prune --keep-last 3 --dry-run` shows what could go",
        ),
        None => warn("space", format!("free space of {} is not known", store.place), "look at it yourself"),
    }
}

fn containerd(containerd: &Containerd, zfs: &Zfs) -> Vec<Finding> {
    let found = match &containerd.version {
        Some(Ok(found)) => found,
        _ => return vec![ok("containerd", "not installed: standalone containers only")],
    };
    let mut findings = vec![match version(found) {
        Some(number) if number >= CONTAINERD_FLOOR => ok("containerd", found),
        _ => fail(
            "containerd",
            format!("{found} is too old"),
            "2.0 or newer speaks the shim protocol that we serve",
        ),
    }];
    findings.push(match &containerd.shim {
        Some(path) => ok("shim", path.display().to_string()),
        None => fail(
            "shim",
            "containerd-shim-cryopod-v2 is not in PATH",
            "install it where containerd looks: a directory of its PATH",
        ),
    });
    match &containerd.config {
        Some(Ok(config)) => findings.extend(handlers(config, zfs)),
        Some(Err(error)) => {
            findings.push(warn("handler", error, "`containerd config dump` as root shows its configuration"));
        }
        None => {}
    }
    findings
}

fn handlers(config: &ContainerdConfig, zfs: &Zfs) -> Vec<Finding> {
    if config.handlers.is_empty() {
        let advice = "add a runtime with runtime_type = \"io.containerd.cryopod.v2\" (drop-in in /etc/containerd/conf.d)";
        return vec![fail("handler", "no runtime handler of containerd uses the shim", advice)];
    }
    let mut findings = Vec::new();
    for handler in &config.handlers {
        let name = &handler.name;
        let snapshotter = handler.snapshotter.as_deref().unwrap_or(&config.snapshotter);
        findings.push(if !handler.annotations {
            warn(
                "handler",
                format!("{name} keeps pod annotations from the shim"),
                format!(
                    "pod_annotations = [\"cryopod.dev/*\"] in the runtime {name}, or restore-from is not seen"
                ),
            )
        } else if snapshotter != "zfs" && !zfs.pools.is_empty() {
            warn(
                "handler",
                format!(
                    "{name} uses the snapshotter {snapshotter}: root file systems are copied while frozen"
                ),
                format!("snapshotter = \"zfs\" in the runtime {name}"),
            )
        } else {
            ok("handler", format!("{name}, snapshotter {snapshotter}"))
        });
    }
    if config.enable_criu == Some(false) {
        findings.push(warn(
            "cri checkpoint",
            "enable_criu is off: kubelet's and crictl's checkpoint are refused by containerd",
            "enable_criu = true in [plugins.\"io.containerd.cri.v1.runtime\"]; `cryopod checkpoint` works without",
        ));
    }
    findings
}

fn cni(facts: &Facts) -> Finding {
    if !matches!(facts.containerd.version, Some(Ok(_))) {
        return ok("cni", "not needed without containerd");
    }
    match (facts.cni.plugins, facts.cni.networks) {
        (0, _) => {
            warn("cni", "no plugins in /opt/cni/bin or /usr/lib/cni", "pods with their own network need them")
        }
        (_, 0) => warn("cni", "no network in /etc/cni/net.d", "the cluster's network add-on writes one"),
        (plugins, _) => ok("cni", format!("{plugins} plugins, a network is configured")),
    }
}

fn journal(facts: &Facts) -> Option<Finding> {
    Some(match facts.unfinished.as_ref()? {
        Ok(unfinished) if unfinished.is_empty() => ok("journal", "nothing unfinished"),
        Ok(unfinished) => warn(
            "journal",
            format!("{} operations were cut short: {}", unfinished.len(), unfinished.join(", ")),
            "`cryopod recover` finishes or undoes them",
        ),
        Err(error) => fail("journal", error, "checkpoints need /var/lib/cryopod/journal"),
    })
}

fn leftovers(facts: &Facts) -> Finding {
    if facts.leftovers.is_empty() {
        ok("leftovers", "none")
    } else {
        warn(
            "leftovers",
            facts.leftovers.join("; "),
            "`cryopod recover` and `cryopod delete --force` remove them",
        )
    }
}

/// The first `a.b` or `a.b.c` in a text; what is missing is 0.
pub(super) fn version(text: &str) -> Option<(u32, u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
    })
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
