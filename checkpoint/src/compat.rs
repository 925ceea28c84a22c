//! Whether a memory image can live on this node: CPU, kernel, CRIU and backend against the manifest.
//!
//! A process that was compiled or resolved (glibc ifuncs) for an instruction the new CPU lacks dies of SIGILL some
//! time after the restore, so the difference is found before anything is touched, and named. A disk-only
//! checkpoint is started afresh and needs the architecture alone.

use std::collections::BTreeSet;
use std::fmt;

use crate::facts::NodeFacts;
use crate::manifest::{CapturedMode, Manifest};

/// One reason why the checkpoint does not fit here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Another machine architecture.
    Arch {
        /// At capture.
        captured: String,
        /// On this node.
        here: String,
    },
    /// Another CPU vendor: memory images hold vendor-specific state (xsave layout).
    CpuVendor {
        /// At capture.
        captured: String,
        /// On this node.
        here: String,
    },
    /// Instructions that this CPU lacks.
    CpuFlags {
        /// Flags of the capturing CPU that are missing here.
        missing: Vec<String>,
    },
    /// The kernel is older than the one at capture.
    Kernel {
        /// At capture.
        captured: String,
        /// On this node.
        here: String,
    },
    /// CRIU is not installed here.
    CriuMissing {
        /// At capture.
        captured: String,
    },
    /// CRIU is older than the one at capture.
    Criu {
        /// At capture.
        captured: String,
        /// On this node.
        here: String,
    },
    /// A container ran under another backend or runtime, whose images name external resources differently.
    Backend {
        /// Member of the checkpoint.
        member: String,
        /// At capture, e.g. `oci/runc`.
        captured: String,
        /// To be used now.
        here: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arch { captured, here } => write!(f, "captured on {captured}, this node is {here}"),
            Self::CpuVendor { captured, here } => {
                write!(f, "captured on a CPU of {captured}, this one is of {here}")
            }
            Self::CpuFlags { missing } => write!(f, "this CPU lacks {}", missing.join(", ")),
            Self::Kernel { captured, here } => {
                write!(f, "captured under kernel {captured}, this node runs the older {here}")
            }
            Self::CriuMissing { captured } => {
                write!(f, "captured with CRIU {captured}, which is not installed here")
            }
            Self::Criu { captured, here } => {
                write!(f, "captured with CRIU {captured}, here is the older {here}")
            }
            Self::Backend { member, captured, here } => {
                write!(f, "container {member} ran under {captured}, it is to be restored under {here}")
            }
        }
    }
}

/// Compares a checkpoint with the node it is to be restored on; `backend` is the name of the backend that would
/// restore it (`oci/crun`), None where that is not known yet. All differences are returned, not the first.
pub fn check(manifest: &Manifest, here: &NodeFacts, backend: Option<&str>) -> Result<(), Vec<Difference>> {
    let captured = &manifest.node;
    let mut found = Vec::new();
    if captured.arch != here.arch {
        found.push(Difference::Arch { captured: captured.arch.clone(), here: here.arch.clone() });
    }
    if manifest.mode == CapturedMode::Full {
        memory(captured, here, &mut found);
        if let Some(backend) = backend {
            for record in &manifest.members {
                let ran = runtime_name(&record.member.runtime);
                if ran != runtime_name(backend) {
                    found.push(Difference::Backend {
                        member: record.member.name.clone(),
                        captured: ran.to_owned(),
                        here: runtime_name(backend).to_owned(),
                    });
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn memory(captured: &NodeFacts, here: &NodeFacts, found: &mut Vec<Difference>) {
    if captured.cpu_vendor != here.cpu_vendor {
        found.push(Difference::CpuVendor {
            captured: captured.cpu_vendor.clone(),
            here: here.cpu_vendor.clone(),
        });
    }
    let wanted = visible(&captured.arch, &captured.cpu_flags);
    let missing: Vec<String> =
        wanted.iter().filter(|flag| !here.cpu_flags.contains(**flag)).map(|flag| (*flag).clone()).collect();
    if !missing.is_empty() {
        found.push(Difference::CpuFlags { missing });
    }
    // Major and minor: stable updates in either direction are fine for CRIU, an older series is not.
    if version(&here.kernel, 2) < version(&captured.kernel, 2) {
        found.push(Difference::Kernel { captured: captured.kernel.clone(), here: here.kernel.clone() });
    }
    match (&captured.criu, &here.criu) {
        (None, _) => {}
        (Some(captured), None) => found.push(Difference::CriuMissing { captured: captured.clone() }),
        (Some(captured), Some(here)) if version(here, 3) < version(captured, 3) => {
            found.push(Difference::Criu { captured: captured.clone(), here: here.clone() });
        }
        (Some(_), Some(_)) => {}
    }
}

/// `oci/crun 1.21` is `oci/crun`: versions of one runtime read each other's images.
fn runtime_name(runtime: &str) -> &str {
    runtime.split_whitespace().next().unwrap_or_default()
}

/// Flags a program can have chosen its code by. On x86 /proc/cpuinfo also lists mitigations, virtualization and
/// power features, which differ between equal CPUs under different kernels and mean nothing to a process.
fn visible<'a>(arch: &str, flags: &'a BTreeSet<String>) -> Vec<&'a String> {
    const PREFIXES: &[&str] = &[
        "3dnow",
        "abm",
        "adx",
        "aes",
        "amx",
        "apx",
        "avx",
        "bmi",
        "cldemote",
        "clflush",
        "clwb",
        "clzero",
        "cmov",
        "cx16",
        "cx8",
        "enqcmd",
        "erms",
        "f16c",
        "fma",
        "fsgsbase",
        "fsrm",
        "fxsr",
        "gfni",
        "hle",
        "keylocker",
        "la57",
        "lahf_lm",
        "lzcnt",
        "mmx",
        "movbe",
        "movdir",
        "ospke",
        "pclmul",
        "pku",
        "pni",
        "popcnt",
        "prefetchw",
        "ptwrite",
        "rdpid",
        "rdrand",
        "rdseed",
        "rdtscp",
        "rtm",
        "serialize",
        "sha",
        "sm3",
        "sm4",
        "sse",
        "ssse3",
        "tbm",
        "user_shstk",
        "vaes",
        "vpclmul",
        "waitpkg",
        "xgetbv1",
        "xop",
        "xsave",
    ];
    let x86 = matches!(arch, "x86_64" | "i686" | "i386");
    flags.iter().filter(|flag| !x86 || PREFIXES.iter().any(|prefix| flag.starts_with(prefix))).collect()
}

/// The first `parts` numbers of a version like `6.12.107-pve`; missing ones are 0.
fn version(text: &str, parts: usize) -> Vec<u64> {
    let mut numbers: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .take(parts)
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect();
    numbers.resize(parts, 0);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples;

    fn node(flags: &str) -> NodeFacts {
        NodeFacts {
            hostname: "a".into(),
            kernel: "6.12.107-cloud".into(),
            arch: "x86_64".into(),
            cpu_vendor: "GenuineIntel".into(),
            cpu_flags: flags.split(' ').map(str::to_owned).collect(),
            criu: Some("4.1.1".into()),
        }
    }

    fn checkpoint() -> Manifest {
        Manifest { node: node("sse4_2 avx2 aes ibrs constant_tsc"), ..samples::full() }
    }

    #[test]
    fn the_same_node_fits() {
        assert_eq!(check(&checkpoint(), &checkpoint().node, Some("oci/crun 1.22")), Ok(()));
    }

    #[test]
    fn mitigations_and_power_flags_do_not_matter() {
        assert_eq!(check(&checkpoint(), &node("sse4_2 avx2 aes retpoline"), None), Ok(()));
    }

    #[test]
    fn a_missing_instruction_set_is_named() {
        let differences = check(&checkpoint(), &node("sse4_2"), None).unwrap_err();
        assert_eq!(differences, [Difference::CpuFlags { missing: vec!["aes".into(), "avx2".into()] }]);
        assert_eq!(differences[0].to_string(), "this CPU lacks aes, avx2");
    }

    #[test]
    fn every_difference_is_reported_at_once() {
        let here = NodeFacts {
            kernel: "6.8.12-pve".into(),
            cpu_vendor: "AuthenticAMD".into(),
            criu: Some("4.1".into()),
            ..node("sse4_2 avx2 aes")
        };
        let differences = check(&checkpoint(), &here, Some("lxc/5")).unwrap_err();
        assert_eq!(differences.len(), 5, "{differences:?}");
        let here = NodeFacts { criu: None, ..node("sse4_2 avx2 aes") };
        assert_eq!(
            check(&checkpoint(), &here, None).unwrap_err(),
            [Difference::CriuMissing { captured: "4.1.1".into() }]
        );
    }

    #[test]
    fn a_newer_kernel_and_a_newer_criu_fit() {
        let here = NodeFacts {
            kernel: "6.17.2".into(),
            criu: Some("4.10".into()),
            ..node("sse4_2 avx2 aes avx512f")
        };
        assert_eq!(check(&checkpoint(), &here, None), Ok(()));
    }

    #[test]
    fn a_disk_only_checkpoint_needs_the_architecture_alone() {
        let disk = Manifest { mode: CapturedMode::Disk, ..checkpoint() };
        let here = NodeFacts { kernel: "5.4".into(), criu: None, ..node("") };
        assert_eq!(check(&disk, &here, Some("lxc")), Ok(()));
        let here = NodeFacts { arch: "aarch64".into(), ..here };
        assert!(matches!(check(&disk, &here, None).unwrap_err()[..], [Difference::Arch { .. }]));
    }
}
