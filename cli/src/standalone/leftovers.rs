//! Directories of this command that nobody removes when it is killed: the streams of an exec in a pod, and containers
//! that were half removed. Each is named after the process that made it, and goes when that is dead.

use std::path::Path;
use std::time::SystemTime;

/// Streams of an exec, in the run-time directory: `cli-PID-…`, the id of the exec.
pub(crate) const STREAMS: &str = "cli-";
/// A container that is being removed, beside the others: `.gone-PID-…`.
pub(crate) const GONE: &str = ".gone-";

/// A name that no other process takes, also not a later one of the same PID.
pub(crate) fn name(prefix: &str, rest: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{prefix}{}-{now:x}-{rest}", std::process::id())
}

/// Removes what the dead have left below a run-time directory. What cannot be removed stays for the next time.
pub(crate) fn sweep(root: &Path) {
    for (dir, prefix) in [(root.to_owned(), STREAMS), (root.join("containers"), GONE)] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if maker(&entry.file_name().to_string_lossy(), prefix).is_some_and(is_dead)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "left behind by a process that was killed");
            }
        }
    }
}

fn maker(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_have_left_goes_and_the_rest_stays() {
        let root = tempfile::tempdir().unwrap();
        let (dead, me) = (u32::MAX, std::process::id());
        let names = [
            format!("cli-{dead}-1f-0"),
            format!("containers/.gone-{dead}-1f-web"),
            format!("cli-{me}-1f-0"),
            format!("containers/.gone-{me}-1f-web"),
            format!("containers/cli-{dead}-x"),
            "cli-x".to_owned(),
        ];
        for name in &names {
            std::fs::create_dir_all(root.path().join(name).join("below")).unwrap();
        }
        sweep(root.path());
        let left: Vec<bool> = names.iter().map(|name| root.path().join(name).exists()).collect();
        assert_eq!(left, [false, false, true, true, true, true]);
    }
}
