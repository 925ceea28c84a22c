//! Which programs that an image brought are at work on the node: besides the pods that containerd knows, containers that
//! somebody started by hand (`cryopod run`, podman with `cryopod-lxc`) need theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The agent's own: of the DaemonSet, which goes with the release, and of this very call.
const AGENT: &str = "cryopod-agent";

/// Names of programs in `library` and the ids of the processes that run them.
pub(crate) fn programs(library: &Path) -> BTreeMap<String, BTreeSet<String>> {
    below(Path::new("/proc"), library)
}

fn below(proc: &Path, library: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        // Not of a process, or one that has just ended.
        let Ok(program) = fs::read_link(process.path().join("exe")) else { continue };
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What the kernel adds to the path of a file that is gone.
        let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
        if program.starts_with(library) && name != AGENT {
            let id = process.file_name().to_string_lossy().into_owned();
            found.entry(name.to_owned()).or_default().insert(id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn programs_of_the_library_count_but_for_the_agent() {
        let proc = tempfile::tempdir().unwrap();
        for (id, program) in [
            ("1", "/usr/lib/systemd/systemd"),
            ("20", "/usr/local/lib/cryopod/0.1.0-a/cryopod-agent"),
            ("21", "/usr/local/lib/cryopod/0.1.0-a/cryopod-lxc-monitor"),
            ("22", "/usr/local/lib/cryopod/0.0.9-b/cryopod-lxc-monitor (deleted)"),
            ("23", "/usr/bin/cryopod-lxc-monitor"),
        ] {
            let process = proc.path().join(id);
            fs::create_dir(&process).unwrap();
            symlink(program, process.join("exe")).unwrap();
        }
        fs::create_dir(proc.path().join("sys")).unwrap();
        let ids = BTreeSet::from(["21".to_owned(), "22".to_owned()]);
        let expected = BTreeMap::from([("cryopod-lxc-monitor".to_owned(), ids)]);
        assert_eq!(below(proc.path(), Path::new("/usr/local/lib/cryopod")), expected);
    }
}
