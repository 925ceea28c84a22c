//! Whether this node has ZFS, and the best way to it; if not, why not and what to do.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::cli::{Cli, find_tool};
use crate::library::Library;
use crate::{Error, Limits, Zfs};

/// The oldest version whose texts and options this crate knows.
const OLDEST: (u32, u32) = (2, 1);
const DEVICE: &str = "/dev/zfs";

/// Why there is no ZFS on this node.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No zfs or zpool command.
    #[error("no ZFS: the command {tool} is not installed (package zfsutils-linux)")]
    NoTool {
        /// What is missing.
        tool: &'static str,
    },
    /// No kernel module.
    #[error("no ZFS: {DEVICE} is missing, so the kernel module is not loaded (`modprobe zfs`)")]
    NoModule,
    /// Not allowed.
    #[error("no ZFS: {DEVICE} cannot be opened: {0} (run as root)")]
    NoRights(io::Error),
    /// The command does not answer.
    #[error("no ZFS: {0}")]
    NoAnswer(#[source] Error),
    /// Too old.
    #[error("no ZFS: {found} is older than 2.1")]
    TooOld {
        /// What was found.
        found: String,
    },
}

/// The commands, and libzfs_core with them where it can be loaded.
pub fn open(limits: &Limits) -> Result<Arc<dyn Zfs>, DetectError> {
    let cli = open_cli(limits)?;
    match Library::load() {
        Ok(library) => Ok(Arc::new(cli.with_library(library))),
        Err(error) => {
            tracing::info!(%error, "libzfs_core is not used; temporary holds will outlive a crash");
            Ok(Arc::new(cli))
        }
    }
}

/// The commands alone.
pub fn open_cli(limits: &Limits) -> Result<Cli, DetectError> {
    let zfs = find_tool("zfs").ok_or(DetectError::NoTool { tool: "zfs" })?;
    let zpool = find_tool("zpool").ok_or(DetectError::NoTool { tool: "zpool" })?;
    device(Path::new(DEVICE))?;
    let cli = Cli::new(zfs, zpool, limits).map_err(DetectError::NoAnswer)?;
    let version = cli.tool_version();
    if version.number < OLDEST {
        return Err(DetectError::TooOld { found: version.userland.clone() });
    }
    Ok(cli)
}

fn device(path: &Path) -> Result<(), DetectError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        // ENXIO and ENODEV: the node is there and the module is not.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(DetectError::NoRights(error)),
        Err(_) => Err(DetectError::NoModule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_means_a_missing_module() {
        let error = device(Path::new("/no/such/device")).unwrap_err();
        assert!(error.to_string().contains("modprobe zfs"), "{error}");
    }
}
