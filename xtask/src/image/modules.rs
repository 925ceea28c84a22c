//! The ZFS kernel modules: zfs-dkms compiles them in a copy of the root tree, and only the modules are kept, so that
//! the node carries no compiler and a changed configuration never compiles them again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Error;
use super::error::at;
use super::layer::{self, Layer};
use crate::cache::Cache;
use crate::process;
use crate::progress::Step;
use crate::recipe::Recipe;

const REVISION: &str = "1";

pub(super) fn layer(cache: &Cache, packages: &Layer) -> Result<Layer, Error> {
    let tree = packages.dir.join("tree");
    let kernel = kernel_version(&tree)?;
    let zfs = zfs_version(&tree)?;
    let key = Recipe::default().text(REVISION).text(&kernel).text(&zfs).key();
    layer::ensure(cache, "modules", &key, |dir| compile(cache, &tree, &kernel, &zfs, dir))
}

/// The one kernel that the tree has.
pub(super) fn kernel_version(tree: &Path) -> Result<String, Error> {
    let modules = tree.join("lib/modules");
    let entries = fs::read_dir(&modules).map_err(at(&modules))?;
    let found: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match <[String; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) => Err(Error::Kernel { tree: tree.to_path_buf(), found: found.len() }),
    }
}

fn zfs_version(tree: &Path) -> Result<String, Error> {
    let status = tree.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&status).map_err(at(&status))?;
    let version = text
        .split("\n\n")
        .find(|package| package.starts_with("Package: zfsutils-linux\n"))
        .and_then(|package| package.lines().find_map(|line| line.strip_prefix("Version: ")));
    Ok(version.unwrap_or_default().to_owned())
}

fn compile(cache: &Cache, tree: &Path, kernel: &str, zfs: &str, dir: &Path) -> Result<(), Error> {
    let log = cache.root().join("log/modules.log");
    let step = Step::begin(format!("compiling the ZFS modules for {kernel}"), Some("4 minutes"));
    let work = dir.join("work");
    layer::copy_tree(tree, &work, &step, &log)?;
    // Written anew: the tree's own may be a link that leads nowhere out here.
    let resolv = work.join("etc/resolv.conf");
    fs::remove_file(&resolv).ok();
    fs::copy("/etc/resolv.conf", &resolv).map_err(at(&resolv))?;
    let mounts = Mounts::enter(&work)?;
    let mut command = Command::new("chroot");
    command.arg(&work).args(["sh", "-ec"]).arg(format!(
        "apt-get update -q\n\
         apt-get install -q -y --no-install-recommends linux-headers-{kernel} zfs-dkms={zfs}"
    ));
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    process::logged(command, &step, "compiling the ZFS modules", &log)?;
    drop(mounts);
    let built = work.join(format!("lib/modules/{kernel}/updates/dkms"));
    fs::rename(&built, dir.join("dkms")).map_err(at(&built))?;
    fs::remove_dir_all(&work).map_err(at(&work))?;
    step.done();
    Ok(())
}

/// The kernel's file systems inside a tree, for as long as programs run in it.
struct Mounts {
    tree: PathBuf,
}

impl Mounts {
    fn enter(tree: &Path) -> Result<Self, Error> {
        let mounts = Self { tree: tree.to_path_buf() };
        let put = |kind: Option<&str>, from: &str, to: &str, flags: MsFlags| {
            let to = tree.join(to);
            mount(Some(from), &to, kind, flags, None::<&str>).map_err(|errno| at(&to)(errno.into()))
        };
        put(Some("proc"), "proc", "proc", MsFlags::empty())?;
        put(Some("tmpfs"), "tmpfs", "dev", MsFlags::empty())?;
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let path = tree.join("dev").join(device);
            fs::write(&path, "").map_err(at(&path))?;
            put(None, &format!("/dev/{device}"), &format!("dev/{device}"), MsFlags::MS_BIND)?;
        }
        let fd = tree.join("dev/fd");
        std::os::unix::fs::symlink("/proc/self/fd", &fd).map_err(at(&fd))?;
        Ok(mounts)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        if let Err(error) = unmount_all(&self.tree) {
            crate::progress::say(&format!("left mounted: {error}"));
        }
    }
}

/// Unmounts everything below `tree`, deepest first.
pub(super) fn unmount_all(tree: &Path) -> Result<(), Error> {
    let table = fs::read_to_string("/proc/self/mounts").map_err(at("/proc/self/mounts"))?;
    let below = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut points: Vec<PathBuf> = below.filter(|point| point.starts_with(tree) && point != tree).collect();
    points.sort();
    for point in points.iter().rev() {
        umount2(point, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| at(point)(errno.into()))?;
    }
    Ok(())
}
