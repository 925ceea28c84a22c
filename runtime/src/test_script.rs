//! Scripts that stand in for runtimes and CRIU in tests.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable script. A child does it, because a descriptor that is open for writing here may be inherited by
/// the fork of another test, and then the script cannot be executed (ETXTBSY).
pub(crate) fn write(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    child.stdin.take().expect("pipe").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("sh").success());
}
