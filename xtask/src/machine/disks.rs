//! The disks of a node: vda is an overlay on the image, vdb is for pool `tank`, vdc for pool `vault`. All are sparse.

use std::path::Path;

use cryopod_command::{Command, Limits};

use super::Error;
use super::error::at;
use crate::image::Image;

/// File and size, in the order of the guest's disks; the root disk has the size of its image.
pub(super) const DISKS: [(&str, Option<&str>); 3] =
    [("root.qcow2", None), ("tank.qcow2", Some("20G")), ("vault.qcow2", Some("8G"))];

/// Makes the disks that are not there.
pub(super) fn ensure(dir: &Path, image: &Image) -> Result<(), Error> {
    for (file, size) in DISKS {
        let path = dir.join(file);
        if path.exists() {
            continue;
        }
        let half = dir.join(format!(".{file}"));
        let mut create = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]);
        create = match size {
            Some(size) => create.arg(&half).arg(size),
            None => create.arg("-b").arg(image.root_disk()).args(["-F", "raw"]).arg(&half),
        };
        create.run(&Limits::none())?;
        std::fs::rename(&half, &path).map_err(at(&path))?;
    }
    Ok(())
}

/// Throws the disks away.
pub(super) fn remove(dir: &Path) -> Result<(), Error> {
    for file in DISKS.map(|(file, _)| file).into_iter().chain(["state.json", "console.log"]) {
        let path = dir.join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
    }
    Ok(())
}
