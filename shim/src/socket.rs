//! The unix socket of a shim: its name, making it, and finding out whether somebody listens already.
//!
//! The name is a hash of containerd's address, the namespace and the group id, as containerd's own shim does it
//! (`pkg/shim/util_unix.go`): it stays below the kernel's 107 bytes whatever the ids are, and every caller that
//! knows the pod finds it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where containerd's shims put their sockets.
const DEFAULT_DIR: &str = "/run/containerd/s";

/// The path that `address` names, if it is a unix socket in the file system.
pub fn path_of(address: &str) -> Option<&Path> {
    address.strip_prefix("unix://").map(Path::new)
}

/// The socket path of the shim that serves `group`.
pub fn socket_path(dir: Option<&Path>, daemon: &str, namespace: &str, group: &str) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [daemon, namespace, group] {
        hash.update(part.as_bytes());
        // No id contains a slash, so that no two triples meet.
        hash.update(b"/");
    }
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    dir.unwrap_or(Path::new(DEFAULT_DIR)).join(name)
}

/// Removes a socket that nobody serves any more; one that a shim answers on stays.
pub fn forget_dead(path: &Path) {
    if path.exists() && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).ok();
    }
}

/// What [`claim`] found.
#[derive(Debug)]
pub enum Claim {
    /// The socket is ours now.
    Bound(UnixListener),
    /// A shim answers there already.
    Served,
}

/// Binds `path`, unless a shim listens there; a socket that a dead shim left is replaced.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn claim(path: &Path) -> io::Result<Claim> {
    if UnixStream::connect(path).is_ok() {
        return Ok(Claim::Served);
    }
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Another `start` may have bound it since the check above.
            if UnixStream::connect(path).is_ok() {
                return Ok(Claim::Served);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Claim::Bound(listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_ids_fit_into_a_socket_address() {
        let path = socket_path(None, "/run/containerd/containerd.sock", &"n".repeat(76), &"i".repeat(256));
        assert!(path.as_os_str().len() < 107, "{}", path.display());
    }

    #[test]
    fn each_daemon_namespace_and_group_has_its_own_name() {
        let name = |d, n, g| socket_path(None, d, n, g);
        assert_ne!(name("a", "n", "g"), name("b", "n", "g"));
        assert_ne!(name("a", "n", "g"), name("a", "ng", ""));
        assert_eq!(name("a", "n", "g"), name("a", "n", "g"));
    }

    #[test]
    fn a_dead_socket_is_removed_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let Claim::Bound(listener) = claim(&path).unwrap() else { panic!("nobody listens yet") };
        forget_dead(&path);
        assert!(path.exists());
        drop(listener);
        forget_dead(&path);
        assert!(!path.exists());
        forget_dead(&path);
    }

    #[test]
    fn a_living_shim_is_found_and_a_dead_ones_socket_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").join("x");
        let Claim::Bound(listener) = claim(&path).unwrap() else { panic!("nobody listens yet") };
        assert!(matches!(claim(&path).unwrap(), Claim::Served));
        drop(listener);
        assert!(path.exists());
        assert!(matches!(claim(&path).unwrap(), Claim::Bound(_)));
    }
}
