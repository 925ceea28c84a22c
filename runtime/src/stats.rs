//! What a cgroup used: the kernel's files as plain numbers, for `Stats`, metrics and the agent.
//!
//! A file of a controller that is off, or of a newer kernel, leaves its part empty; a cgroup that has gone is an error.
//! Field names and units are the kernel's (Documentation/admin-guide/cgroup-v2.rst); `max` reads as `u64::MAX`.

mod parse;

use std::collections::BTreeMap;

use crate::cgroup::{Cgroup, CgroupError};

/// `max` in a limit file.
pub const UNLIMITED: u64 = u64::MAX;

/// Everything at one moment (file by file).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub io: Io,
    /// Huge pages by page size.
    pub hugetlb: Vec<HugeTlb>,
    /// RDMA devices.
    pub rdma: Vec<Rdma>,
}

/// `cpu.stat` and `cpu.pressure`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Both modes, µs.
    pub usage_usec: u64,
    /// User mode, µs.
    pub user_usec: u64,
    /// Kernel mode, µs.
    pub system_usec: u64,
    /// Bandwidth periods.
    pub nr_periods: u64,
    /// Periods in which it was throttled.
    pub nr_throttled: u64,
    /// Time throttled, µs.
    pub throttled_usec: u64,
    /// Periods with a burst.
    pub nr_bursts: u64,
    /// Time in bursts, µs.
    pub burst_usec: u64,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// `memory.*`, bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// `memory.current`.
    pub usage: u64,
    /// `memory.max`.
    pub limit: u64,
    /// `memory.peak`.
    pub peak: u64,
    /// `memory.swap.current`.
    pub swap_usage: u64,
    /// `memory.swap.max`.
    pub swap_limit: u64,
    /// `memory.swap.peak`.
    pub swap_peak: u64,
    /// `memory.stat`: counters in bytes or events, by the kernel's names.
    pub stat: BTreeMap<String, u64>,
    /// `memory.events`.
    pub events: MemoryEvents,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// `memory.events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaimed though below `memory.low`.
    pub low: u64,
    /// Above `memory.high`.
    pub high: u64,
    /// At `memory.max`.
    pub max: u64,
    /// Allocation about to fail.
    pub oom: u64,
    /// Processes killed by the OOM killer.
    pub oom_kill: u64,
    /// Times the whole group was killed.
    pub oom_group_kill: u64,
}

/// `pids.*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// Tasks now.
    pub current: u64,
    /// Limit.
    pub limit: u64,
}

/// `io.stat` and `io.pressure`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Io {
    /// By device.
    pub devices: Vec<IoDevice>,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// One device of `io.stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoDevice {
    /// Device number, major.
    pub major: u64,
    /// Device number, minor.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// One page size of `hugetlb.<size>.*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugeTlb {
    /// `2MB`, `1GB`, …
    pub page_size: String,
    /// Bytes now.
    pub current: u64,
    /// Limit in bytes.
    pub max: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
}

/// One device of `rdma.current` and `rdma.max`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    /// Device name.
    pub device: String,
    /// HCA handles now.
    pub hca_handles: u64,
    /// HCA objects now.
    pub hca_objects: u64,
    /// Limit of HCA handles.
    pub hca_handles_limit: u64,
    /// Limit of HCA objects.
    pub hca_objects_limit: u64,
}

/// `*.pressure` (PSI).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some task stalled.
    pub some: PressureLine,
    /// All tasks stalled.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Stalled in all, µs.
    pub total: u64,
}

/// Reads everything of a container's cgroup.
pub fn read(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    let cgroup = &cgroup.clone().of_container();
    if !cgroup.exists() {
        return Err(CgroupError::Gone { path: cgroup.path().to_owned() });
    }
    let text = |name: &str| cgroup.read(name).ok();
    let number = |name: &str| text(name).and_then(|text| parse::limit(&text));
    let pressure = |name: &str| text(name).and_then(|text| parse::pressure(&text));
    let stat = text("memory.stat").map(|text| parse::keyed(&text)).unwrap_or_default();
    Ok(Stats {
        cpu: Cpu {
            pressure: pressure("cpu.pressure"),
            ..text("cpu.stat").map(|text| parse::cpu(&text)).unwrap_or_default()
        },
        memory: Memory {
            usage: number("memory.current").unwrap_or(0),
            limit: number("memory.max").unwrap_or(UNLIMITED),
            peak: number("memory.peak").unwrap_or(0),
            swap_usage: number("memory.swap.current").unwrap_or(0),
            swap_limit: number("memory.swap.max").unwrap_or(UNLIMITED),
            swap_peak: number("memory.swap.peak").unwrap_or(0),
            stat,
            events: memory_events(cgroup).unwrap_or_default(),
            pressure: pressure("memory.pressure"),
        },
        pids: Pids {
            current: number("pids.current").unwrap_or(0),
            limit: number("pids.max").unwrap_or(UNLIMITED),
        },
        io: Io {
            devices: text("io.stat").map(|text| parse::io(&text)).unwrap_or_default(),
            pressure: pressure("io.pressure"),
        },
        hugetlb: huge_pages(cgroup),
        rdma: parse::rdma(&text("rdma.current").unwrap_or_default(), &text("rdma.max").unwrap_or_default()),
    })
}

/// `memory.events` of a cgroup, its children included.
pub fn memory_events(cgroup: &Cgroup) -> Result<MemoryEvents, CgroupError> {
    Ok(parse::memory_events(&cgroup.read("memory.events")?))
}

fn huge_pages(cgroup: &Cgroup) -> Vec<HugeTlb> {
    let Ok(entries) = std::fs::read_dir(cgroup.path()) else { return Vec::new() };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
            (!size.ends_with(".rsvd")).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    let number = |size: &str, what: &str| {
        cgroup.read(&format!("hugetlb.{size}.{what}")).ok().and_then(|text| parse::limit(&text))
    };
    sizes
        .into_iter()
        .map(|size| HugeTlb {
            current: number(&size, "current").unwrap_or(0),
            max: number(&size, "max").unwrap_or(UNLIMITED),
            failcnt: cgroup
                .read(&format!("hugetlb.{size}.events"))
                .map(|text| parse::keyed(&text).get("max").copied().unwrap_or(0))
                .unwrap_or(0),
            page_size: size,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_with_few_controllers_gives_what_it_has() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in [
            ("cgroup.procs", "1\n"),
            ("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 3\n"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("file");
        }
        let stats = read(&Cgroup::at(dir.path())).expect("readable");
        assert_eq!((stats.cpu.usage_usec, stats.memory.usage, stats.memory.limit), (10, 4096, UNLIMITED));
        assert_eq!(stats.memory.events.oom_kill, 1);
        assert_eq!(stats.hugetlb.len(), 1);
        assert_eq!(stats.hugetlb.first().map(|h| h.failcnt), Some(3));
        assert_eq!(stats.io, Io::default());
    }

    #[test]
    fn a_cgroup_that_has_gone_is_an_error() {
        assert!(matches!(read(&Cgroup::at("/nonexistent")), Err(CgroupError::Gone { .. })));
    }
}
