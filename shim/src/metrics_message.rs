//! cgroup counters as `io.containerd.cgroups.v2.Metrics`, the only statistics that containerd's CRI plugin reads.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups_v2::metrics as message;
use cryopod_runtime::stats::{Pressure, PressureLine, Stats};
use protobuf::MessageField;

/// The message for these counters.
pub fn from_stats(stats: &Stats) -> message::Metrics {
    let mut metrics = message::Metrics::new();
    metrics.cpu = MessageField::some(cpu(stats));
    metrics.memory = MessageField::some(memory(stats));
    metrics.memory_events = MessageField::some(memory_events(stats));
    let mut pids = message::PidsStat::new();
    pids.current = stats.pids.current;
    pids.limit = stats.pids.limit;
    metrics.pids = MessageField::some(pids);
    metrics.io = MessageField::some(io(stats));
    metrics.hugetlb = stats
        .hugetlb
        .iter()
        .map(|page| {
            let mut huge = message::HugeTlbStat::new();
            huge.pagesize.clone_from(&page.page_size);
            huge.current = page.current;
            huge.max = page.max;
            huge.failcnt = page.failcnt;
            huge
        })
        .collect();
    metrics.rdma = MessageField::some(rdma(stats));
    metrics
}

fn cpu(stats: &Stats) -> message::CPUStat {
    let mut cpu = message::CPUStat::new();
    cpu.usage_usec = stats.cpu.usage_usec;
    cpu.user_usec = stats.cpu.user_usec;
    cpu.system_usec = stats.cpu.system_usec;
    cpu.nr_periods = stats.cpu.nr_periods;
    cpu.nr_throttled = stats.cpu.nr_throttled;
    cpu.throttled_usec = stats.cpu.throttled_usec;
    cpu.nr_bursts = stats.cpu.nr_bursts;
    cpu.burst_usec = stats.cpu.burst_usec;
    cpu.psi = psi(stats.cpu.pressure.as_ref());
    cpu
}

fn memory(stats: &Stats) -> message::MemoryStat {
    let mut memory = message::MemoryStat::new();
    memory.usage = stats.memory.usage;
    memory.usage_limit = stats.memory.limit;
    memory.max_usage = stats.memory.peak;
    memory.swap_usage = stats.memory.swap_usage;
    memory.swap_limit = stats.memory.swap_limit;
    memory.swap_max_usage = stats.memory.swap_peak;
    memory.psi = psi(stats.memory.pressure.as_ref());
    fill(&mut memory, &stats.memory.stat);
    memory
}

/// Lines of `memory.stat` that the message has a field for; newer kernels have more.
fn fill(memory: &mut message::MemoryStat, stat: &BTreeMap<String, u64>) {
    for (name, value) in stat {
        let field = match name.as_str() {
            "anon" => &mut memory.anon,
            "file" => &mut memory.file,
            "kernel_stack" => &mut memory.kernel_stack,
            "slab" => &mut memory.slab,
            "sock" => &mut memory.sock,
            "shmem" => &mut memory.shmem,
            "file_mapped" => &mut memory.file_mapped,
            "file_dirty" => &mut memory.file_dirty,
            "file_writeback" => &mut memory.file_writeback,
            "anon_thp" => &mut memory.anon_thp,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "slab_reclaimable" => &mut memory.slab_reclaimable,
            "slab_unreclaimable" => &mut memory.slab_unreclaimable,
            "pgfault" => &mut memory.pgfault,
            "pgmajfault" => &mut memory.pgmajfault,
            // Split by kind since Linux 5.9; the message has one field each.
            "workingset_refault" | "workingset_refault_anon" | "workingset_refault_file" => {
                memory.workingset_refault += value;
                continue;
            }
            "workingset_activate" | "workingset_activate_anon" | "workingset_activate_file" => {
                memory.workingset_activate += value;
                continue;
            }
            "workingset_nodereclaim" => &mut memory.workingset_nodereclaim,
            "pgrefill" => &mut memory.pgrefill,
            "pgscan" => &mut memory.pgscan,
            "pgsteal" => &mut memory.pgsteal,
            "pgactivate" => &mut memory.pgactivate,
            "pgdeactivate" => &mut memory.pgdeactivate,
            "pglazyfree" => &mut memory.pglazyfree,
            "pglazyfreed" => &mut memory.pglazyfreed,
            "thp_fault_alloc" => &mut memory.thp_fault_alloc,
            "thp_collapse_alloc" => &mut memory.thp_collapse_alloc,
            _ => continue,
        };
        *field = *value;
    }
}

fn memory_events(stats: &Stats) -> message::MemoryEvents {
    let mut events = message::MemoryEvents::new();
    events.low = stats.memory.events.low;
    events.high = stats.memory.events.high;
    events.max = stats.memory.events.max;
    events.oom = stats.memory.events.oom;
    events.oom_kill = stats.memory.events.oom_kill;
    events.oom_group_kill = stats.memory.events.oom_group_kill;
    events
}

fn io(stats: &Stats) -> message::IOStat {
    let mut io = message::IOStat::new();
    io.psi = psi(stats.io.pressure.as_ref());
    io.usage = stats
        .io
        .devices
        .iter()
        .map(|device| {
            let mut entry = message::IOEntry::new();
            entry.major = device.major;
            entry.minor = device.minor;
            entry.rbytes = device.rbytes;
            entry.wbytes = device.wbytes;
            entry.rios = device.rios;
            entry.wios = device.wios;
            entry
        })
        .collect();
    io
}

fn rdma(stats: &Stats) -> message::RdmaStat {
    let entry = |device: &str, handles: u64, objects: u64| {
        let mut entry = message::RdmaEntry::new();
        entry.device = device.to_owned();
        // The message has 32 bits; "max" is shown as the largest number.
        entry.hca_handles = u32::try_from(handles).unwrap_or(u32::MAX);
        entry.hca_objects = u32::try_from(objects).unwrap_or(u32::MAX);
        entry
    };
    let mut rdma = message::RdmaStat::new();
    rdma.current = stats.rdma.iter().map(|r| entry(&r.device, r.hca_handles, r.hca_objects)).collect();
    rdma.limit =
        stats.rdma.iter().map(|r| entry(&r.device, r.hca_handles_limit, r.hca_objects_limit)).collect();
    rdma
}

fn psi(pressure: Option<&Pressure>) -> MessageField<message::PSIStats> {
    let line = |line: &PressureLine| {
        let mut data = message::PSIData::new();
        data.avg10 = line.avg10;
        data.avg60 = line.avg60;
        data.avg300 = line.avg300;
        data.total = line.total;
        data
    };
    let Some(pressure) = pressure else { return MessageField::none() };
    let mut stats = message::PSIStats::new();
    stats.some = MessageField::some(line(&pressure.some));
    stats.full = MessageField::some(line(&pressure.full));
    MessageField::some(stats)
}

#[cfg(test)]
mod tests {
    use cryopod_runtime::stats::{HugeTlb, IoDevice};

    use super::*;

    #[test]
    fn every_figure_lands_in_its_own_field() {
        let mut stats = Stats::default();
        stats.cpu.usage_usec = 1;
        stats.memory.usage = 2;
        stats.memory.limit = 3;
        stats.pids.current = 4;
        stats.memory.events.oom_kill = 5;
        stats.memory.stat = [
            ("anon", 6),
            ("inactive_file", 7),
            ("workingset_refault_anon", 8),
            ("workingset_refault_file", 9),
            ("new_in_linux_9", 1),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let metrics = from_stats(&stats);
        assert_eq!(metrics.cpu.usage_usec, 1);
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (2, 3));
        assert_eq!((metrics.pids.current, metrics.memory_events.oom_kill), (4, 5));
        assert_eq!((metrics.memory.anon, metrics.memory.inactive_file), (6, 7));
        assert_eq!(metrics.memory.workingset_refault, 17);
    }

    fn pressure(first: u32) -> Pressure {
        let line = |from: u32| PressureLine {
            avg10: f64::from(from),
            avg60: f64::from(from + 1),
            avg300: f64::from(from + 2),
            total: u64::from(from + 3),
        };
        Pressure { some: line(first), full: line(first + 4) }
    }

    /// The eight figures in the order of `pressure`.
    fn shown(psi: &message::PSIStats) -> Vec<f64> {
        let line = |data: &message::PSIData| [data.avg10, data.avg60, data.avg300, data.total as f64];
        [line(&psi.some), line(&psi.full)].concat()
    }

    fn from(first: u32) -> Vec<f64> {
        (first..first + 8).map(f64::from).collect()
    }

    #[test]
    fn devices_pages_swap_and_pressure_land_in_their_own_fields() {
        let mut stats = Stats::default();
        let device = |major| IoDevice { major, minor: 2, rbytes: 3, wbytes: 4, rios: 5, wios: 6 };
        stats.io.devices = vec![device(1), device(8)];
        let page = HugeTlb { page_size: "2MB".to_owned(), current: 9, max: 10, failcnt: 11 };
        stats.hugetlb = vec![page];
        (stats.memory.swap_usage, stats.memory.swap_limit, stats.memory.swap_peak) = (12, 13, 14);
        stats.memory.peak = 15;
        stats.cpu.pressure = Some(pressure(20));
        stats.memory.pressure = Some(pressure(30));
        stats.io.pressure = Some(pressure(40));
        let metrics = from_stats(&stats);
        let [first, second] = metrics.io.usage.as_slice() else { panic!("{:?}", metrics.io.usage) };
        assert_eq!((first.major, first.minor, second.major), (1, 2, 8));
        assert_eq!((first.rbytes, first.wbytes, first.rios, first.wios), (3, 4, 5, 6));
        let [huge] = metrics.hugetlb.as_slice() else { panic!("{:?}", metrics.hugetlb) };
        assert_eq!((huge.pagesize.as_str(), huge.current, huge.max, huge.failcnt), ("2MB", 9, 10, 11));
        let memory = &metrics.memory;
        assert_eq!((memory.swap_usage, memory.swap_limit, memory.swap_max_usage), (12, 13, 14));
        assert_eq!(memory.max_usage, 15);
        assert_eq!(shown(&metrics.cpu.psi), from(20));
        assert_eq!(shown(&memory.psi), from(30));
        assert_eq!(shown(&metrics.io.psi), from(40));
        assert!(from_stats(&Stats::default()).io.psi.is_none(), "a kernel without PSI has no figures");
    }
}
