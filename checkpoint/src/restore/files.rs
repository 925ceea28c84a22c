//! Placing copied disks, and roots of our own for containers whose given root cannot take the checkpoint.

use std::fs;
use std::io;
use std::path::Path;

use cryopod_command::Limits;
use cryopod_zfs::{CreateRequest, Properties};

use super::roots::{boot, forget};
use super::{LiveRootfs, LiveVolume, PlaceError, PlaceRequest, Replacement, RootfsPlacement};
use crate::durable;
use crate::scratch::Scratch;
use crate::store::{BOOT, ID, KIND, Store};
use crate::tree::{self, Existing};

/// What a new file system has in it.
const LOST_FOUND: &str = "lost+found";

/// Whether nobody has put anything into a directory.
pub(super) fn is_empty(dir: &Path) -> Result<bool, PlaceError> {
    for entry in fs::read_dir(dir).map_err(PlaceError::io("list", dir))? {
        let entry = entry.map_err(PlaceError::io("list", dir))?;
        let fresh = entry.file_name() == LOST_FOUND
            && fs::read_dir(entry.path()).is_ok_and(|mut below| below.next().is_none());
        if !fresh {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Replaces the contents of a directory that is the container's own; what is mounted below it is refused before anything
/// is removed. After a failure it is empty: half of something would pass for the whole.
pub(super) fn fill(from: &Path, to: &Path, limits: &Limits) -> Result<(), PlaceError> {
    tree::clear(to)?;
    if let Err(error) = tree::copy(from, to, Existing::Refuse, u64::MAX, limits) {
        // The first error is the one to report.
        if let Err(error) = tree::clear(to) {
            tracing::warn!(dir = %to.display(), %error, "what a failed restore wrote stays");
        }
        return Err(error.into());
    }
    Ok(())
}

/// Fills a volume: one that may be replaced as [`fill`] does; into any other only what it does not have is written, and
/// nothing is removed, also after a failure, since others may write there at any moment.
pub(super) fn fill_volume(
    name: &str,
    from: &Path,
    live: &LiveVolume,
    limits: &Limits,
) -> Result<(), PlaceError> {
    if live.replace {
        return fill(from, &live.source, limits);
    }
    // Looked at before, but settling and other volumes may have taken hours since.
    if !is_empty(&live.source)? {
        return Err(PlaceError::Occupied { name: name.to_owned(), path: live.source.clone() });
    }
    // The checkpoint may have one as well.
    fs::remove_dir(live.source.join(LOST_FOUND)).ok();
    tree::copy(from, &live.source, Existing::Refuse, u64::MAX, limits)?;
    Ok(())
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
