//! Mounting in the fake: a symbolic link at the mount point that leads to the dataset's files.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::state::{FakeMount, State};
use super::tree::UNDER;
use crate::error::Op;
use crate::{DatasetName, Error, Holders, Kind, MountHolder, Mountpoint, Source};

impl State {
    pub(super) fn mountpoint(&self, name: &DatasetName) -> Mountpoint {
        match self.effective(name, "mountpoint") {
            None => Mountpoint::Path(self.backing.join("mnt").join(name.as_str())),
            Some(property) => match (property.value.as_str(), property.source) {
                ("legacy", _) => Mountpoint::Legacy,
                ("none", _) => Mountpoint::None,
                (path, Source::Inherited(from)) => {
                    let below = name.as_str().get(from.len()..).unwrap_or_default().trim_start_matches('/');
                    Mountpoint::Path(Path::new(path).join(below))
                }
                (path, _) => Mountpoint::Path(path.into()),
            },
        }
    }

    /// Mounts a new file system, unless its properties say otherwise.
    pub(super) fn mount_if_due(&mut self, op: &Op, name: &DatasetName) -> Result<(), Error> {
        let canmount = self.effective(name, "canmount").is_none_or(|property| property.value == "on");
        let is_fs = self.datasets.get(name).is_some_and(|node| node.kind == Kind::Filesystem);
        match self.mountpoint(name) {
            Mountpoint::Path(path) if canmount && is_fs => self.mount_on(op, name, &path, false, false),
            _ => Ok(()),
        }
    }

    pub(super) fn mount_on(
        &mut self,
        op: &Op,
        name: &DatasetName,
        path: &Path,
        read_only: bool,
        explicit: bool,
    ) -> Result<(), Error> {
        let system = |source| Error::System { op: op.clone(), source };
        let content = self.node(op, name)?.content.clone();
        if !explicit {
            std::fs::create_dir_all(path).map_err(system)?;
        }
        if !path.is_dir() {
            return Err(system(std::io::ErrorKind::NotADirectory.into()));
        }
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let covered = path.with_file_name(format!("{UNDER}{file_name}-{}", self.fresh_id()));
        std::fs::rename(path, &covered).map_err(system)?;
        symlink(content, path).map_err(system)?;
        let mount = FakeMount { path: path.to_owned(), read_only, covered: Some(covered), explicit };
        self.node_mut(op, name)?.mounts.push(mount);
        Ok(())
    }

    /// Undoes one mount; `Busy` when something uses it, unless `detach`.
    pub(super) fn unmount_from(
        &mut self,
        op: &Op,
        name: &DatasetName,
        path: &Path,
        detach: bool,
    ) -> Result<(), Error> {
        let users = self.users(name, path);
        if !detach && !users.is_empty() {
            let holders = Holders { mounts: users, ..Holders::default() };
            return Err(Error::Busy { op: op.clone(), holders: Box::new(holders) });
        }
        let Some(node) = self.datasets.get_mut(name) else { return Ok(()) };
        let Some(index) = node.mounts.iter().rposition(|mount| mount.path == path) else { return Ok(()) };
        let mount = node.mounts.remove(index);
        let undo = std::fs::remove_file(&mount.path).and_then(|()| match &mount.covered {
            Some(covered) => std::fs::rename(covered, &mount.path),
            None => Ok(()),
        });
        undo.map_err(|source| Error::System { op: op.clone(), source })
    }

    /// Unmounts a dataset everywhere; from the last mount to the first.
    pub(super) fn unmount_all(&mut self, op: &Op, name: &DatasetName) -> Result<(), Error> {
        let paths: Vec<PathBuf> = match self.datasets.get(name) {
            Some(node) => node.mounts.iter().rev().map(|mount| mount.path.clone()).collect(),
            None => return Ok(()),
        };
        paths.iter().try_for_each(|path| self.unmount_from(op, name, path, false))
    }

    /// Every mount of a dataset, ours and those of pins.
    pub(super) fn all_mounts(&self, name: &DatasetName) -> Vec<MountHolder> {
        let Some(node) = self.datasets.get(name) else { return Vec::new() };
        let own = node.mounts.iter().map(|mount| this_process(&mount.path));
        own.chain(node.pins.iter().cloned()).collect()
    }

    /// Who would stop an unmount: pins, this process with a file open in it, datasets mounted inside of it.
    fn users(&self, name: &DatasetName, path: &Path) -> Vec<MountHolder> {
        let Some(node) = self.datasets.get(name) else { return Vec::new() };
        let mut users = node.pins.clone();
        if is_open(&node.content) {
            users.push(this_process(path));
        }
        let inside = self.datasets.iter().filter(|(other, _)| *other != name);
        for mount in inside.flat_map(|(_, other)| &other.mounts).filter(|mount| mount.path.starts_with(path))
        {
            users.push(this_process(&mount.path));
        }
        users
    }
}

fn this_process(path: &Path) -> MountHolder {
    let process = std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim().to_owned();
    MountHolder { pid: std::process::id(), process, mount_point: path.display().to_string() }
}

/// Whether this process has something below `dir` open, or works there.
fn is_open(dir: &Path) -> bool {
    let descriptors =
        std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|entry| entry.path());
    let links = descriptors.chain([PathBuf::from("/proc/self/cwd")]);
    links.filter_map(|link| std::fs::read_link(link).ok()).any(|target| target.starts_with(dir))
}
