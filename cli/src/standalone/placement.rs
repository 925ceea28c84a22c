//! The root file system of a restored container: what the checkpoint room has made of it, mounted in the bundle that
//! was made for it. Both go with the container; checkpoints that were made of it do not.

use std::io;
use std::path::Path;

use cryopod_checkpoint::restore::{Replacement, RootfsPlacement, forget};
use cryopod_checkpoint::settle::{Adopted, adopt};
use cryopod_checkpoint::store::{StoreError, StoreKind};
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
    keep_its_checkpoints(context, &opened, id, limits)?;
    Ok(forget(&opened.store, id, limits)?)
}

/// Checkpoints of this container that are not settled yet live on its root: that moves into the store first.
fn keep_its_checkpoints(context: &Context, opened: &Opened, id: &str, limits: &Limits) -> Result<(), Error> {
    if opened.store.kind() == StoreKind::Dir {
        return Ok(());
    }
    let dataset = format!("{}/containers/{id}", opened.store.place());
    let dataset = dataset.parse().map_err(|error| Error::Store(StoreError::Name(error)))?;
    match adopt(&opened.store, &dataset, &context.journal()?, limits)? {
        Adopted::Nothing => {}
        Adopted::Moved { checkpoints, .. } => {
            for checkpoint in &checkpoints {
                settling::begin(context, opened, checkpoint, false)?;
            }
        }
    }
    Ok(())
}
