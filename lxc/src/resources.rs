//! OCI resources, which speak of cgroup v1, as the files of cgroup v2.
//!
//! The conversions are those that crun and runc make (crun `src/libcrun/cgroup-utils.c`, runc `libcontainer/cgroups`), so
//! that a pod has the same limits whatever runs it.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};

use crate::refusal::Refusal;

/// A file of the container's cgroup and what is written into it, in the order in which it has to be written.
pub type Setting = (String, String);

/// Default period of `cpu.max`, microseconds.
const PERIOD: u64 = 100_000;

/// Everything but devices, which are no file in cgroup v2.
///
/// # Errors
/// When the spec asks for something that cgroup v2 does not have.
pub fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, Refusal> {
    let mut files = Files::default();
    if let Some(memory) = resources.memory() {
        files.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        files.cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        files.pids(*pids);
    }
    if let Some(io) = resources.block_io() {
        files.io(io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        files.hugetlb(limit);
    }
    if resources.network().as_ref().is_some_and(|network| network.class_id().is_some_and(|id| id > 0)) {
        return Err(Refusal::v1("linux.resources.network.classID"));
    }
    for (device, rdma) in sorted(resources.rdma().as_ref()) {
        files.rdma(device, rdma);
    }
    // The last word: what is written verbatim wins over what was converted.
    for (file, value) in sorted(resources.unified().as_ref()) {
        if file.contains('/') || file.starts_with("cgroup.") {
            return Err(Refusal::of(
                format!("linux.resources.unified[{file:?}]"),
                "is no limit of a controller",
            ));
        }
        for line in value.lines() {
            files.0.push((file.clone(), line.to_owned()));
        }
    }
    Ok(files.0)
}

fn sorted<T>(map: Option<&std::collections::HashMap<String, T>>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.into_iter().flatten().collect();
    entries.sort_by_key(|(name, _)| name.as_str());
    entries
}

/// What cgroup v2 calls no limit.
fn amount(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[derive(Default)]
struct Files(Vec<Setting>);

impl Files {
    fn put(&mut self, file: &str, value: &impl ToString) {
        self.0.push((file.to_owned(), value.to_string()));
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<(), Refusal> {
        let field = |name: &str| format!("linux.resources.memory.{name}");
        if memory.swappiness().is_some() {
            return Err(Refusal::v1(&field("swappiness")));
        }
        if memory.disable_oom_killer() == Some(true) {
            return Err(Refusal::v1(&field("disableOOMKiller")));
        }
        // -1, "no limit", is what there is.
        for (name, value) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
            if value.is_some_and(|value| value > 0) {
                return Err(Refusal::v1(&field(name)));
            }
        }
        // Swap before memory: less memory would first push pages into swap.
        if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
            match memory.limit().filter(|limit| *limit > 0) {
                // v1 counts memory and swap together.
                Some(limit) if swap >= limit => self.put("memory.swap.max", &(swap - limit)),
                Some(_) if swap > 0 => {
                    return Err(Refusal::of(field("swap"), "is less than linux.resources.memory.limit"));
                }
                None if swap > 0 => return Err(Refusal::of(field("swap"), "needs a limit of memory")),
                _ => self.put("memory.swap.max", &amount(swap)),
            }
        }
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            self.put("memory.max", &amount(limit));
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            self.put("memory.low", &amount(low));
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<(), Refusal> {
        for (name, given) in [
            ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
            ("realtimePeriod", cpu.realtime_period().is_some_and(|period| period != 0)),
        ] {
            if given {
                return Err(Refusal::v1(&format!("linux.resources.cpu.{name}")));
            }
        }
        // An idle group has no weight; it takes one again only after it is not idle any more.
        if let Some(idle) = cpu.idle() {
            self.put("cpu.idle", &idle);
        }
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
            self.put("cpu.weight", &weight(shares));
        }
        if cpu.quota().is_some_and(|quota| quota != 0) || cpu.period().is_some_and(|period| period != 0) {
            let quota =
                cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            let period = cpu.period().filter(|period| *period != 0).unwrap_or(PERIOD);
            self.put("cpu.max", &format!("{quota} {period}"));
        }
        if let Some(burst) = cpu.burst() {
            self.put("cpu.max.burst", &burst);
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                self.put(file, value);
            }
        }
        Ok(())
    }

    fn pids(&mut self, pids: LinuxPids) {
        match pids.limit() {
            0 => {}
            limit => self.put("pids.max", &amount(limit)),
        }
    }

    fn io(&mut self, io: &LinuxBlockIo) -> Result<(), Refusal> {
        if io.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(Refusal::v1("linux.resources.blockIO.leafWeight"));
        }
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            self.put("io.weight", &io_weight(weight));
        }
        for device in io.weight_device().iter().flatten() {
            if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
                let line = format!("{}:{} {}", device.major(), device.minor(), io_weight(weight));
                self.put("io.weight", &line);
            }
        }
        for (key, devices) in [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ] {
            for device in devices.iter().flatten() {
                self.put("io.max", &throttle(key, device));
            }
        }
        Ok(())
    }

    fn hugetlb(&mut self, limit: &LinuxHugepageLimit) {
        self.put(&format!("hugetlb.{}.max", limit.page_size()), &amount(limit.limit()));
    }

    fn rdma(&mut self, device: &str, rdma: &LinuxRdma) {
        let count = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let (handles, objects) = (count(rdma.hca_handles()), count(rdma.hca_objects()));
        self.put("rdma.max", &format!("{device} hca_handle={handles} hca_object={objects}"));
    }
}

fn throttle(key: &str, device: &LinuxThrottleDevice) -> String {
    let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

/// Shares, 2 to 262144 with 1024 as the default, as a weight, 1 to 10000 with 100 as the default: linear, as kubelet has it
/// for the pod's group above.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

/// 10 to 1000 as 1 to 10000.
fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(resources: serde_json::Value) -> Result<Vec<Setting>, Refusal> {
        settings(&serde_json::from_value(resources).unwrap())
    }

    fn lines(resources: serde_json::Value) -> Vec<String> {
        of(resources).unwrap().into_iter().map(|(file, value)| format!("{file} {value}")).collect()
    }

    #[test]
    fn what_kubelet_asks_for_a_pod() {
        let files = lines(json!({
            "memory": { "limit": 134_217_728, "swap": 134_217_728 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1" },
            "pids": { "limit": 100 },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }],
            "unified": { "memory.oom.group": "1", "memory.high": "120795955" }
        }));
        assert_eq!(
            files,
            [
                "memory.swap.max 0",
                "memory.max 134217728",
                "cpu.weight 20",
                "cpu.max 50000 100000",
                "cpuset.cpus 0-1",
                "pids.max 100",
                "hugetlb.2MB.max 0",
                "memory.high 120795955",
                "memory.oom.group 1",
            ]
        );
    }

    #[test]
    fn no_limit_is_a_limit_too() {
        let files = lines(json!({
            "memory": { "limit": -1, "swap": -1 }, "cpu": { "quota": -1 }, "pids": { "limit": -1 }
        }));
        assert_eq!(files, ["memory.swap.max max", "memory.max max", "cpu.max max 100000", "pids.max max"]);
        assert_eq!(lines(json!({ "memory": { "limit": 0 }, "cpu": { "shares": 0 } })), [""; 0]);
    }

    #[test]
    fn io_is_per_device() {
        let files = lines(json!({ "blockIO": {
            "weight": 1000, "weightDevice": [{ "major": 8, "minor": 0, "weight": 10 }],
            "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1_048_576 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 0 }]
        }}));
        assert_eq!(
            files,
            ["io.weight 10000", "io.weight 8:0 1", "io.max 8:0 rbps=1048576", "io.max 8:16 wiops=max"]
        );
    }

    #[test]
    fn weights_keep_their_ends() {
        assert_eq!([0, 2, 1024, 262_144, 1 << 40].map(weight), [1, 1, 39, 10_000, 10_000]);
    }

    #[test]
    fn what_cgroup_v2_has_not_got_is_refused_by_name() {
        for (resources, field) in [
            (json!({ "memory": { "swappiness": 10 } }), "linux.resources.memory.swappiness"),
            (json!({ "memory": { "kernelTCP": 1 } }), "linux.resources.memory.kernelTCP"),
            (json!({ "memory": { "swap": 5 } }), "linux.resources.memory.swap"),
            (json!({ "memory": { "limit": 9, "swap": 5 } }), "linux.resources.memory.swap"),
            (json!({ "cpu": { "realtimePeriod": 1 } }), "linux.resources.cpu.realtimePeriod"),
            (json!({ "blockIO": { "leafWeight": 10 } }), "linux.resources.blockIO.leafWeight"),
            (json!({ "network": { "classID": 1 } }), "linux.resources.network.classID"),
            (json!({ "unified": { "../x": "1" } }), "linux.resources.unified[\"../x\"]"),
            (json!({ "unified": { "cgroup.freeze": "1" } }), "linux.resources.unified[\"cgroup.freeze\"]"),
        ] {
            assert_eq!(of(resources).unwrap_err().field, field);
        }
    }
}
