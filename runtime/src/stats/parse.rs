//! The kernel's text formats: flat keyed, nested keyed, single values, pressure. Unknown keys are passed over, since
//! kernels add them; a number that does not parse counts as absent.

use std::collections::BTreeMap;

use super::{Cpu, IoDevice, MemoryEvents, Pressure, PressureLine, Rdma, UNLIMITED};

/// `123` or `max`.
pub(super) fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(UNLIMITED),
        number => number.parse().ok(),
    }
}

/// Lines of `key value`.
pub(super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

pub(super) fn cpu(text: &str) -> Cpu {
    let keys = keyed(text);
    let get = |key: &str| keys.get(key).copied().unwrap_or(0);
    Cpu {
        usage_usec: get("usage_usec"),
        user_usec: get("user_usec"),
        system_usec: get("system_usec"),
        nr_periods: get("nr_periods"),
        nr_throttled: get("nr_throttled"),
        throttled_usec: get("throttled_usec"),
        nr_bursts: get("nr_bursts"),
        burst_usec: get("burst_usec"),
        pressure: None,
    }
}

pub(super) fn memory_events(text: &str) -> MemoryEvents {
    let keys = keyed(text);
    let get = |key: &str| keys.get(key).copied().unwrap_or(0);
    MemoryEvents {
        low: get("low"),
        high: get("high"),
        max: get("max"),
        oom: get("oom"),
        oom_kill: get("oom_kill"),
        oom_group_kill: get("oom_group_kill"),
    }
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`; a device without traffic may have no keys.
pub(super) fn io(text: &str) -> Vec<IoDevice> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let keys = pairs(words);
            let get = |key: &str| keys.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
            Some(IoDevice {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                rbytes: get("rbytes"),
                wbytes: get("wbytes"),
                rios: get("rios"),
                wios: get("wios"),
            })
        })
        .collect()
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; `cpu.pressure` of old kernels has no `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let keys = pairs(rest.split_ascii_whitespace());
        let percent = |key: &str| keys.get(key).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        Some(PressureLine {
            avg10: percent("avg10"),
            avg60: percent("avg60"),
            avg300: percent("avg300"),
            total: keys.get("total").and_then(|value| value.parse().ok()).unwrap_or(0),
        })
    };
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

/// Lines of `mlx5_0 hca_handle=2 hca_object=2000`.
pub(super) fn rdma(current: &str, max: &str) -> Vec<Rdma> {
    let parse = |text: &str| -> BTreeMap<String, (u64, u64)> {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let device = words.next()?.to_owned();
                let keys = pairs(words);
                let get = |key: &str| keys.get(key).and_then(|value| limit(value)).unwrap_or(0);
                Some((device, (get("hca_handle"), get("hca_object"))))
            })
            .collect()
    };
    let limits = parse(max);
    parse(current)
        .into_iter()
        .map(|(device, (handles, objects))| {
            let (hca_handles_limit, hca_objects_limit) =
                limits.get(&device).copied().unwrap_or((UNLIMITED, UNLIMITED));
            Rdma { device, hca_handles: handles, hca_objects: objects, hca_handles_limit, hca_objects_limit }
        })
        .collect()
}

fn pairs<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    words.filter_map(|word| word.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_max() {
        for (text, value) in [("0\n", Some(0)), ("max\n", Some(UNLIMITED)), ("", None), ("-1\n", None)] {
            assert_eq!(limit(text), value, "{text:?}");
        }
    }

    #[test]
    fn io_lines_of_every_kernel_parse() {
        let text = "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:0 \n8:0\nnonsense\n";
        let devices = io(text);
        assert_eq!(devices.len(), 3);
        assert_eq!(
            devices.first(),
            Some(&IoDevice { major: 8, minor: 16, rbytes: 10, wbytes: 20, rios: 1, wios: 2 })
        );
    }

    #[test]
    fn pressure_has_both_lines_or_one() {
        let both = pressure("some avg10=1.50 avg60=0.20 avg300=0.01 total=99\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n")
            .expect("valid");
        assert_eq!((both.some.avg10, both.some.total, both.full.total), (1.5, 99, 7));
        let one = pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").expect("valid");
        assert_eq!(one.full, PressureLine::default());
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn rdma_limits_belong_to_their_device() {
        let devices = rdma("mlx4_0 hca_handle=2 hca_object=20\n", "mlx4_0 hca_handle=max hca_object=100\n");
        let first = devices.first().expect("one");
        assert_eq!(
            (first.hca_objects, first.hca_handles_limit, first.hca_objects_limit),
            (20, UNLIMITED, 100)
        );
    }

    #[test]
    fn cpu_and_events_take_the_keys_they_know() {
        let stat =
            cpu("usage_usec 5\nuser_usec 3\nsystem_usec 2\ncore_sched.force_idle_usec 0\nnr_throttled 1\n");
        assert_eq!((stat.usage_usec, stat.nr_throttled, stat.nr_bursts), (5, 1, 0));
        assert_eq!(
            memory_events("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n").oom_group_kill,
            5
        );
    }
}
