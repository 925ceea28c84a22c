//! Placing copied disks, and roots of our own for containers whose given root cannot take the checkpoint.

use std::fs;
use std::io;
use std::path::Path;

use cryopod_command::Limits;
use cryopod_zfs::{CreateRequest, Properties};

use super::roots::{boot, forget};
use super::{LiveRootfs, PlaceError, PlaceRequest, Replacement, RootfsPlacement};
use crate::durable;
use crate::scratch::Scratch;
use crate::store::{BOOT, ID, KIND, Store};
use crate::tree::{self, Existing};

/// Whether nobody has put anything into a directory; a new file system has its `lost+found`.
pub(super) fn is_empty(dir: &Path) -> Result<bool, PlaceError> {
    for entry in fs::read_dir(dir).map_err(PlaceError::io("list", dir))? {
        let entry = entry.map_err(PlaceError::io("list", dir))?;
        let fresh = entry.file_name() == "lost+found"
            && fs::read_dir(entry.path()).is_ok_and(|mut below| below.next().is_none());
        if !fresh {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Replaces the contents of a volume; what is mounted below it is refused before anything is removed.
pub(super) fn fill(from: &Path, to: &Path, limits: &Limits) -> Result<(), PlaceError> {
    tree::clear(to)?;
    if let Err(error) = tree::copy(from, to, Existing::Refuse, u64::MAX, limits) {
        empty(to);
        return Err(error.into());
    }
    Ok(())
}

/// Half of something would pass for the whole, and a volume that is not empty would keep a second try out. The error
/// that led here is the one to report.
pub(super) fn empty(dir: &Path) {
    if let Err(error) = tree::clear(dir) {
        tracing::warn!(dir = %dir.display(), %error, "what a failed restore wrote stays");
    }
}

/// Puts a copied root in place.
pub(super) fn rootfs(
    store: &Store,
    request: &PlaceRequest<'_>,
    from: &Path,
    layer: bool,
    limits: &Limits,
) -> Result<RootfsPlacement, PlaceError> {
    match (&request.rootfs, layer, store) {
        (LiveRootfs::Overlay { upper }, true, _) => {
            fill(from, upper, limits)?;
            Ok(RootfsPlacement::InPlace)
        }
        (LiveRootfs::Zfs { dataset }, layer, Store::Zfs(zfs)) => {
            let view = Scratch::of_dataset(zfs, dataset, limits)?;
            if layer {
                tree::apply_layer(from, view.path(), limits)?;
            } else {
                fill(from, view.path(), limits)?;
            }
            Ok(RootfsPlacement::InPlace)
        }
        (LiveRootfs::Tree { path }, true, _) => own_root(store, request, limits, |root| {
            fill(path, root, limits)?;
            tree::apply_layer(from, root, limits)?;
            Ok(())
        }),
        (LiveRootfs::Zfs { .. }, true, Store::Dir(_)) => {
            Err(PlaceError::io("restore an overlay layer onto ZFS from", from)(io::Error::new(
                io::ErrorKind::Unsupported,
                "this needs the ZFS store, or the overlayfs snapshotter",
            )))
        }
        (_, false, _) => own_root(store, request, limits, |root| fill(from, root, limits)),
    }
}

/// Makes a root for the container and fills it; nothing of it stays when that fails.
fn own_root(
    store: &Store,
    request: &PlaceRequest<'_>,
    limits: &Limits,
    fill: impl FnOnce(&Path) -> Result<(), PlaceError>,
) -> Result<RootfsPlacement, PlaceError> {
    forget(store, request.container, limits)?;
    let path = match store {
        Store::Dir(store) => {
            let path = store.container(request.container);
            durable::private_dir(&path).map_err(PlaceError::io("create", &path))?;
            path
        }
        Store::Zfs(store) => {
            let path = store.dir().join("containers").join(request.container);
            let properties = Properties::new()
                .with(KIND, "clone")
                .with(ID, request.checkpoint.as_str())
                .with(BOOT, boot())
                .with("mountpoint", path.to_string_lossy());
            let name = store.container(request.container)?;
            store.zfs.create(&CreateRequest::filesystem(&name, properties), limits)?;
            path
        }
    };
    match fill(&path) {
        Ok(()) => Ok(RootfsPlacement::MountInstead(Replacement::Bind { path })),
        Err(error) => {
            if let Err(left) = forget(store, request.container, limits) {
                tracing::warn!(container = request.container, error = %left, "a half-made root stays");
            }
            Err(error)
        }
    }
}
