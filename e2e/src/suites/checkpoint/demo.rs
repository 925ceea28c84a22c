//! What `cargo xtask demo` shows is shown to the end.

use super::Case;
use crate::shell;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("the_demo_ends_well", true, || shown("zfs")),
    ("the_demo_without_zfs_ends_well", false, || shown("dir")),
];

fn shown(store: &str) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let done = shell::exec(&[&own.display().to_string(), "demo", "--store", store])?;
    ensure(done.code == 0 && done.stdout.trim_end().ends_with("demo: ok"), || {
        format!("the demo ended with {}: {}{}", done.code, done.stdout, done.stderr)
    })
}
