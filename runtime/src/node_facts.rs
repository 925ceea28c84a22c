//! What a memory image depends on, read from this node: kernel, CPU, CRIU.

use std::collections::BTreeSet;
use std::path::Path;

use cryopod_checkpoint::facts::NodeFacts;
use cryopod_command::Limits;

use crate::criu::version;

/// The facts of this node. What cannot be read stays empty; the comparison at restore then says so.
pub fn read(criu: &Path, limits: &Limits) -> NodeFacts {
    let (hostname, kernel, arch) = match nix::sys::utsname::uname() {
        Ok(uname) => {
            let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
            (text(uname.nodename()), text(uname.release()), text(uname.machine()))
        }
        Err(_) => Default::default(),
    };
    let (cpu_vendor, cpu_flags) = parse_cpu(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    let criu = version::of(criu, limits).ok().map(|version| version.to_string());
    NodeFacts { hostname, kernel, arch, cpu_vendor, cpu_flags, criu }
}

/// Vendor, and the flags that every CPU has: a task may run on any of them.
fn parse_cpu(text: &str) -> (String, BTreeSet<String>) {
    let values = |names: [&str; 2]| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .filter(move |(name, _)| names.contains(&name.trim()))
            .map(|(_, value)| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let vendor = values(["vendor_id", "CPU implementer"]).into_iter().next().unwrap_or_default();
    let flags = values(["flags", "Features"])
        .iter()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>())
        .reduce(|common, flags| common.intersection(&flags).cloned().collect());
    (vendor, flags.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_count_when_every_cpu_has_them() {
        let text = "processor : 0\nvendor_id\t: GenuineIntel\nflags\t\t: sse avx avx512f\n\n\
                    processor : 1\nvendor_id\t: GenuineIntel\nflags\t\t: sse avx\n";
        let (vendor, flags) = parse_cpu(text);
        assert_eq!(vendor, "GenuineIntel");
        assert_eq!(flags.into_iter().collect::<Vec<_>>(), ["avx", "sse"]);
    }

    #[test]
    fn arm_names_its_features_differently() {
        let (vendor, flags) = parse_cpu("Features\t: fp asimd\nCPU implementer\t: 0x41\n");
        assert_eq!((vendor.as_str(), flags.len()), ("0x41", 2));
        assert_eq!(parse_cpu(""), (String::new(), BTreeSet::new()));
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let facts = read(Path::new("/nonexistent/criu"), &Limits::none());
        assert!(!facts.kernel.is_empty() && !facts.arch.is_empty());
        assert_eq!(facts.criu, None);
    }
}
