//! The root file system of a restored container: what the checkpoint room has made of it, mounted in the bundle that
//! was made for it. Both go with the container; checkpoints that were made of it do not.

use std::io;
use std::path::Path;

use cryopod_checkpoint::restore::{Replacement, RootfsPlacement, forget};
use cryopod_checkpoint::settle::{Adopted, tidy};
use cryopod_command::Limits;
use cryopod_zfs::MountOptions;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::context::{Context, Opened};
use crate::error::Error;
use crate::settling;

/// Mounts what was placed on `rootfs`.
pub(crate) fn mount_on(
    opened: &Opened,
    placement: &RootfsPlacement,
    rootfs: &Path,
    limits: &Limits,
) -> Result<(), Error> {
    let failed = |source| Error::Write { what: "root file system", path: rootfs.to_owned(), source };
    match placement {
        RootfsPlacement::InPlace => Ok(()),
        RootfsPlacement::MountInstead(Replacement::Bind { path }) => {
            let none = None::<&str>;
            mount(Some(path), rootfs, none, MsFlags::MS_BIND, none).map_err(|errno| failed(errno.into()))
        }
        RootfsPlacement::MountInstead(Replacement::Zfs { dataset }) => match &opened.zfs {
            Some(zfs) => Ok(zfs.mount_at(dataset, rootfs, MountOptions::default(), limits)?),
            None => Err(failed(io::ErrorKind::Unsupported.into())),
        },
    }
}

/// Unmounts and removes it. Idempotent.
pub(crate) fn undo(context: &Context, id: &str, rootfs: &Path, limits: &Limits) -> Result<(), Error> {
    match umount2(rootfs, MntFlags::empty()) {
        // Not mounted, or the bundle is gone.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => {
            let source = io::Error::from(errno);
            return Err(Error::Write { what: "root file system", path: rootfs.to_owned(), source });
        }
    }
    let opened = context.open_store(limits)?;
    let checkpoints = match forget(&opened.store, id, limits)? {
        Adopted::Nothing => Vec::new(),
        // Checkpoints of this container that are not settled yet lived on its root; that is in the store now.
        Adopted::Moved { checkpoints, .. } => checkpoints,
    };
    for checkpoint in &checkpoints {
        settling::begin(context, &opened, checkpoint, false)?;
    }
    // The root may have been the last that shared with a checkpoint which is deleted already.
    if let Err(error) = tidy(&opened.store, limits) {
        context.output.note(&format!("space is not freed yet: {error}; `cryopod recover` does it"));
    }
    Ok(())
}
