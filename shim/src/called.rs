//! How this program was called. containerd finds a shim by the runtime type, `io.containerd.NAME.v2`, as the program
//! `containerd-shim-NAME-v2`; a link of ours that is called `containerd-shim-cryopod-RUNTIME-v2` chooses that runtime.
//!
//! Options of the handler could choose it as well, but a pod with a user namespace gets none: containerd 2.3 reads options as
//! runc's then, and fails at any others.

use std::ffi::OsStr;
use std::path::Path;

/// The name without a choice.
pub const PLAIN: &str = "containerd-shim-cryopod-v2";

/// The name of this process, for the processes that it starts from its own file.
pub fn name() -> String {
    std::env::args_os().next().and_then(|word| known(&word)).unwrap_or_else(|| PLAIN.to_owned())
}

/// The runtime that the name chooses.
pub fn runtime() -> Option<String> {
    of(&name()).map(str::to_owned)
}

fn known(word: &OsStr) -> Option<String> {
    let name = Path::new(word).file_name()?.to_str()?;
    (name == PLAIN || of(name).is_some()).then(|| name.to_owned())
}

fn of(name: &str) -> Option<&str> {
    let runtime = name.strip_prefix("containerd-shim-cryopod-")?.strip_suffix("-v2")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (!runtime.is_empty() && runtime.chars().all(plain)).then_some(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_chooses_a_runtime_or_none() {
        for (word, runtime) in [
            ("/usr/bin/containerd-shim-cryopod-lxc-v2", Some("lxc")),
            ("containerd-shim-cryopod-crun-debug-v2", Some("crun-debug")),
            ("containerd-shim-cryopod-v2", None),
        ] {
            assert_eq!(of(&known(OsStr::new(word)).expect(word)), runtime, "{word}");
        }
        for word in ["containerd-shim-cryopod--v2", "containerd-shim-cryopod-a\"b-v2", "shim", "", "/"] {
            assert_eq!(known(OsStr::new(word)), None, "{word}");
        }
    }
}
