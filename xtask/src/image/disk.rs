//! The image itself: the root tree with modules, configuration, tools and container images, as an ext4 disk; and the
//! kernel with an initial RAM disk of one shell script and one driver.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::at;
use super::layer::{self, Layer};
use super::{Error, Image, archive, modules};
use crate::cache::Cache;
use crate::progress::Step;
use crate::recipe::Recipe;
use crate::{process, repository};

const REVISION: &str = "1";
const ROOT_SIZE: &str = "10G";
/// Started at boot, besides what systemd needs for itself.
const ENABLED: &[&str] = &["containerd", "node-network", "node-storage", "ssh"];

pub(super) fn image(
    cache: &Cache,
    packages: &Layer,
    kernel_modules: &Layer,
    tools: &[Layer],
) -> Result<Image, Error> {
    let public = key_pair(cache)?;
    let sources = repository::root().join("xtask/node");
    let mut recipe = Recipe::default()
        .text(REVISION)
        .text(archive::REVISION)
        .text(&packages.key)
        .text(&kernel_modules.key)
        .text(&public)
        .path(&sources)?
        .path(&repository::root().join("e2e/images"))?;
    for tool in tools {
        recipe = recipe.text(&tool.key);
    }
    let layer = layer::ensure(cache, "image", &recipe.key(), |dir| {
        let log = cache.root().join("log/image.log");
        let step = Step::begin("making the node's disk", Some("20 seconds"));
        let tree = dir.join("tree");
        layer::copy_tree(&packages.dir.join("tree"), &tree, &step, &log)?;
        let kernel = modules::kernel_version(&tree)?;
        let build = Build { tree: &tree, kernel: &kernel, sources: &sources, step: &step, log: &log };
        build.install_modules(&kernel_modules.dir.join("dkms"))?;
        build.configure(&public)?;
        build.install_tools(tools)?;
        archive::all(&tree, &tree.join("var/lib/node/images"), &step, &log)?;
        build.kernel_and_initrd(dir)?;
        build.disk(&dir.join("root.raw"))?;
        fs::remove_dir_all(&tree).map_err(at(&tree))?;
        step.done();
        Ok(())
    })?;
    Ok(Image { key: layer.key, dir: layer.dir })
}

/// The public half of the key that opens the nodes of this cache; made when there is none.
fn key_pair(cache: &Cache) -> Result<String, Error> {
    let private = cache.ssh_key();
    let dir = cache.root().join("ssh");
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(at(&dir))?;
    let _lock = crate::lock::Lock::take(&dir.join(".lock"), "making the ssh key")?;
    for (path, comment) in [(private.clone(), "cryopod"), (dir.join("host_ed25519"), "cryopod-node")] {
        if !path.exists() {
            let mut keygen = cryopod_command::Command::new("ssh-keygen");
            keygen = keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(&path);
            keygen.run(&cryopod_command::Limits::none())?;
        }
    }
    let host = dir.join("host_ed25519.pub");
    let host = fs::read_to_string(&host).map_err(at(&host))?;
    let known = dir.join("known_hosts");
    fs::write(&known, format!("cryopod-node {host}")).map_err(at(&known))?;
    let public = private.with_extension("pub");
    fs::read_to_string(&public).map_err(at(&public))
}

struct Build<'a> {
    tree: &'a Path,
    kernel: &'a str,
    sources: &'a Path,
    step: &'a Step,
    log: &'a Path,
}

impl Build<'_> {
    fn run(&self, what: &str, command: Command) -> Result<(), Error> {
        Ok(process::logged(command, self.step, what, self.log)?)
    }

    fn copy_into(&self, from: &Path, to: &Path) -> Result<(), Error> {
        fs::create_dir_all(to).map_err(at(to))?;
        let mut command = Command::new("cp");
        // Owners are root's whoever owns the checkout.
        command.args(["-r", "--preserve=mode", "--no-target-directory"]).arg(from).arg(to);
        self.run("copying files into the tree", command)
    }

    fn install_modules(&self, from: &Path) -> Result<(), Error> {
        self.copy_into(from, &self.tree.join(format!("lib/modules/{}/updates/dkms", self.kernel)))?;
        let mut command = Command::new("chroot");
        command.arg(self.tree).args(["depmod", self.kernel]);
        self.run("indexing kernel modules", command)
    }

    fn configure(&self, public_key: &str) -> Result<(), Error> {
        self.copy_into(&self.sources.join("tree"), self.tree)?;
        let units = self.tree.join("etc/systemd/system");
        let masked = self.sources.join("units.masked");
        for unit in fs::read_to_string(&masked).map_err(at(&masked))?.lines() {
            link("/dev/null", &units.join(unit))?;
        }
        for unit in ENABLED {
            let ours = format!("/etc/systemd/system/{unit}.service");
            let is_ours = self.tree.join(&ours[1..]).exists();
            let target = if is_ours { ours } else { format!("/usr/lib/systemd/system/{unit}.service") };
            link(&target, &units.join(format!("multi-user.target.wants/{unit}.service")))?;
        }
        let ssh = self.tree.join("root/.ssh");
        fs::create_dir_all(&ssh).map_err(at(&ssh))?;
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).map_err(at(&ssh))?;
        let cache_keys =
            self.log.parent().and_then(Path::parent).map(|root| root.join("ssh")).unwrap_or_default();
        for name in ["host_ed25519", "host_ed25519.pub"] {
            let target = self.tree.join("etc/ssh").join(name.replace("host_", "ssh_host_") + "_key");
            let target = PathBuf::from(target.to_string_lossy().replace(".pub_key", "_key.pub"));
            let source = cache_keys.join(name);
            fs::copy(&source, &target).map_err(at(&source))?;
        }
        for (path, text) in [
            ("root/.ssh/authorized_keys", public_key),
            ("etc/hostname", "node\n"),
            ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/fstab", ""),
        ] {
            let path = self.tree.join(path);
            // Removed first: a link would be followed out of the tree.
            fs::remove_file(&path).ok();
            fs::write(&path, text).map_err(at(&path))?;
        }
        let hostid = self.tree.join("etc/hostid");
        fs::write(&hostid, [1, 2, 3, 4]).map_err(at(&hostid))
    }

    fn install_tools(&self, tools: &[Layer]) -> Result<(), Error> {
        for (tools, layer) in super::Tools::NODE.iter().zip(tools) {
            self.copy_into(&layer.dir, &self.tree.join(tools.destination))?;
        }
        Ok(())
    }

    fn kernel_and_initrd(&self, out: &Path) -> Result<(), Error> {
        let boot = self.tree.join("boot");
        let kernel = boot.join(format!("vmlinuz-{}", self.kernel));
        fs::copy(&kernel, out.join("vmlinuz")).map_err(at(&kernel))?;
        // Nothing else in there is read: the emulator loads the kernel.
        fs::remove_dir_all(&boot).map_err(at(&boot))?;
        fs::create_dir(&boot).map_err(at(&boot))?;
        let ram = out.join("ram");
        for dir in ["bin", "dev", "proc", "root"] {
            let dir = ram.join(dir);
            fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
        let busybox = self.tree.join("usr/bin/busybox");
        fs::copy(&busybox, ram.join("bin/busybox")).map_err(at(&busybox))?;
        let init = self.sources.join("initrd-init");
        fs::copy(&init, ram.join("init")).map_err(at(&init))?;
        fs::set_permissions(ram.join("init"), fs::Permissions::from_mode(0o755)).map_err(at(&ram))?;
        let mut command = Command::new("sh");
        command.args(["-euc", "xz -dc \"$1\" > \"$2/virtio_blk.ko\"; cd \"$2\"; find . | \"$3\" cpio -o -H newc | gzip -1 > ../initrd", "initrd"]);
        command.arg(
            self.tree.join(format!("lib/modules/{}/kernel/drivers/block/virtio_blk.ko.xz", self.kernel)),
        );
        command.arg(&ram).arg(&busybox);
        self.run("making the initial RAM disk", command)?;
        fs::remove_dir_all(&ram).map_err(at(&ram))
    }

    fn disk(&self, disk: &Path) -> Result<(), Error> {
        let mut command = Command::new("mke2fs");
        command.args([
            "-q",
            "-t",
            "ext4",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
            "-L",
            "root",
            "-d",
        ]);
        command.arg(self.tree).arg(disk).arg(ROOT_SIZE);
        self.run("making the root file system", command)
    }
}

fn link(target: &str, path: &Path) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(at(dir))?;
    }
    fs::remove_file(path).ok();
    symlink(target, path).map_err(at(path))
}
