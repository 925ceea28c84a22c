//! `cryopod-init`: see the library.

use std::process::ExitCode;

use cryopod_init::pid1::{self, Inherited};

/// Where `execve` failed, as shells have it; whoever asked has been told why.
const NOT_RUN: u8 = 127;

fn main() -> ExitCode {
    let numbers: Vec<i32> = std::env::args().skip(2).filter_map(|number| number.parse().ok()).collect();
    let role = std::env::args().nth(1);
    if let (Some("pid1"), &[plan, report, start, result]) = (role.as_deref(), numbers.as_slice()) {
        // There is nobody to tell if even that fails: standard error is the workload's.
        pid1::run(Inherited { plan, report, start, result }).ok();
    }
    ExitCode::from(NOT_RUN)
}
