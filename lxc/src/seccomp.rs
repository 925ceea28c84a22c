//! OCI system call filters, as a program for the kernel. libseccomp builds it, as for every OCI runtime: it knows the
//! numbers of all architectures.

use std::io::{self, Read, Seek};
use std::os::fd::AsFd;

use cryopod_init::plan;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};

use crate::refusal::Refusal;
use crate::sys::seccomp::{Comparison, Filter, Seccomp};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not with LXC.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// libseccomp does not do it.
    #[error("build the system call filter, {step}: {source}")]
    Library {
        /// At what.
        step: String,
        /// What it said.
        source: io::Error,
    },
}

fn library<T>(step: impl Into<String>, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Library { step: step.into(), source })
}

/// Version of the libseccomp that would be used.
///
/// # Errors
/// When there is none.
pub fn version() -> io::Result<String> {
    Seccomp::open()?.version()
}

/// Compiles a filter.
///
/// # Errors
/// See [`Error`].
pub fn compile(wanted: &LinuxSeccomp) -> Result<plan::Seccomp, Error> {
    let notifies = |syscall: &LinuxSyscall| syscall.action() == LinuxSeccompAction::ScmpActNotify;
    if wanted.listener_path().is_some() || wanted.syscalls().iter().flatten().any(notifies) {
        let why = "needs an agent that answers for system calls, which LXC containers do not have yet";
        return Err(Refusal::of("linux.seccomp.listenerPath", why).into());
    }
    let flags = flags(wanted)?;
    let seccomp = library("open libseccomp", Seccomp::open())?;
    let default = wanted.default_action().as_u32(wanted.default_errno_ret());
    let filter = library("begin", seccomp.filter(default))?;
    for arch in wanted.architectures().iter().flatten().filter(|arch| **arch != Arch::ScmpArchNative) {
        library(format!("add architecture {arch:?}"), filter.architecture(*arch as u32))?;
    }
    // As with the other runtimes: a program of another architecture is not killed for being one.
    library("choose for other architectures", filter.foreign(default))?;
    for syscall in wanted.syscalls().iter().flatten() {
        let action = syscall.action().as_u32(syscall.errno_ret());
        // libseccomp takes no rule that says what is said anyway.
        if action == default {
            continue;
        }
        for name in syscall.names() {
            let known = library(format!("look for system call {name}"), seccomp.resolve(name))?;
            // Profiles name calls of kernels to come; the default holds for those.
            let Some(number) = known else { continue };
            add(&filter, action, number, syscall)
                .map_err(|source| Error::Library { step: format!("add a rule for {name}"), source })?;
        }
    }
    let program = library("export", export(&filter))?;
    Ok(plan::Seccomp { flags, program })
}

/// All conditions have to hold, except that several on one argument are alternatives (runtime spec, "Seccomp").
fn add(filter: &Filter<'_>, action: u32, number: i32, syscall: &LinuxSyscall) -> io::Result<()> {
    let conditions: Vec<Comparison> = syscall.args().iter().flatten().map(comparison).collect();
    let mut indices: Vec<_> = conditions.iter().map(|condition| condition.arg).collect();
    indices.sort_unstable();
    let several = indices.windows(2).any(|pair| pair.first() == pair.last());
    if !several {
        return filter.rule(action, number, &conditions);
    }
    conditions.iter().try_for_each(|condition| filter.rule(action, number, std::slice::from_ref(condition)))
}

fn comparison(argument: &LinuxSeccompArg) -> Comparison {
    Comparison {
        arg: u32::try_from(argument.index()).unwrap_or(u32::MAX),
        op: argument.op() as i32,
        a: argument.value(),
        b: argument.value_two().unwrap_or_default(),
    }
}

fn flags(wanted: &LinuxSeccomp) -> Result<u64, Refusal> {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        // Of one thread there is nothing to be synchronised.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(0),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(libc::SECCOMP_FILTER_FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Err(Refusal::of(
            "linux.seccomp.flags",
            "has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which needs an agent",
        )),
    };
    wanted.flags().iter().flatten().map(bit).try_fold(0, |all, flag| Ok(all | u64::from(flag? as u32)))
}

fn export(filter: &Filter<'_>) -> io::Result<Vec<(u16, u8, u8, u32)>> {
    // libseccomp writes to a descriptor, and a program may be larger than a pipe.
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("seccomp", flags)?);
    filter.export(file.as_fd())?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // struct sock_filter { __u16 code; __u8 jt, jf; __u32 k; }, in the machine's own order.
    let (instructions, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let one = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| {
        (u16::from_ne_bytes([c0, c1]), jt, jf, u32::from_ne_bytes([k0, k1, k2, k3]))
    };
    Ok(instructions.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(filter: serde_json::Value) -> Result<plan::Seccomp, Error> {
        compile(&serde_json::from_value(filter).unwrap())
    }

    #[test]
    fn a_profile_becomes_a_program_that_ends_with_its_answers() {
        let filter = of(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [
                { "names": ["read", "write", "no_such_call_yet"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                  "args": [{ "index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
                { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                  "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" },
                           { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
                { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
                { "names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }
            ]
        }))
        .unwrap();
        assert_eq!(filter.flags, 2);
        let answers: Vec<u32> = filter.program.iter().filter(|line| line.0 == 6).map(|line| line.3).collect();
        for answer in [0x7fff_0000, 0x5_0026, 0x5_001c] {
            assert!(answers.contains(&answer), "{answer:x} is not in {answers:x?}");
        }
    }

    #[test]
    fn an_agent_is_refused_by_name() {
        let error = of(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mount"], "action": "SCMP_ACT_NOTIFY" }]
        }));
        assert!(error.unwrap_err().to_string().starts_with("linux.seccomp.listenerPath"));
    }
}
