//! `cryopod-init`: see the library.

use std::process::ExitCode;

use cryopod_init::{exec, pid1};

/// Where `execve` failed, as shells have it; whoever asked has been told why.
const NOT_RUN: u8 = 127;

fn main() -> ExitCode {
    let numbers: Vec<i32> = std::env::args().skip(2).filter_map(|number| number.parse().ok()).collect();
    let role = std::env::args().nth(1);
    // There is nobody to tell if even telling fails: standard error is the workload's.
    match (role.as_deref(), numbers.as_slice()) {
        (Some("pid1"), &[plan, report, start, result]) => {
            pid1::run(pid1::Inherited { plan, report, start, result }).ok();
            ExitCode::from(NOT_RUN)
        }
        (Some("exec"), &[plan, report, container, cgroup, flags]) => {
            let flags = flags.unsigned_abs();
            exec::run(exec::Inherited { plan, report, container, cgroup, flags }).ok();
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(NOT_RUN),
    }
}
