//! The container images of the node, made from the root tree's own programs: nothing is pulled from a registry.
//!
//! Each is an archive as `docker save` writes it, which containerd imports:
//!
//! ```text
//! manifest.json   [{"Config": "config.json", "RepoTags": ["localhost/busybox:1"], "Layers": ["layer.tar"]}]
//! config.json     platform, entry point, sha256 of layer.tar
//! layer.tar       the root file system
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::at;
use super::{Error, workloads};
use crate::progress::Step;
use crate::{process, repository};

/// What is done to make the images; part of the image's key.
pub(super) const REVISION: &str = "2";

/// Writes all archives into `out`, with programs from `tree`.
pub(super) fn all(tree: &Path, out: &Path, step: &Step, log: &Path) -> Result<(), Error> {
    fs::create_dir_all(out).map_err(at(out))?;
    let work = out.join(".work");
    pause(&work.join("pause"), step, log)?;
    pack("localhost/pause:1", &work.join("pause"), &json!({"Entrypoint": ["/pause"]}), out, step, log)?;
    busybox(tree, &work.join("busybox"))?;
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
    pack("localhost/busybox:1", &work.join("busybox"), &config, out, step, log)?;
    workloads::fill(tree, &work.join("workloads"), step, log)?;
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/usr/sbin"]});
    pack("localhost/workloads:1", &work.join("workloads"), &config, out, step, log)?;
    fs::remove_dir_all(&work).map_err(at(&work))
}

fn pause(root: &Path, step: &Step, log: &Path) -> Result<(), Error> {
    fs::create_dir_all(root).map_err(at(root))?;
    let mut command = Command::new("cc");
    command.args(["-static", "-Os", "-s", "-o"]).arg(root.join("pause"));
    command.arg(repository::root().join("e2e/images/pause.c"));
    Ok(process::logged(command, step, "compiling the pause program", log)?)
}

fn busybox(tree: &Path, root: &Path) -> Result<(), Error> {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
    }
    let tmp = root.join("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(at(&tmp))?;
    let program = tree.join("usr/bin/busybox");
    let target = root.join("bin/busybox");
    fs::copy(&program, &target).map_err(at(&program))?;
    let output =
        cryopod_command::Command::new(&program).arg("--list").run(&cryopod_command::Limits::none())?;
    for applet in String::from_utf8_lossy(&output.stdout).lines().filter(|name| *name != "busybox") {
        let link = root.join("bin").join(applet);
        symlink("busybox", &link).map_err(at(&link))?;
    }
    for (name, text) in [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")] {
        let path = root.join("etc").join(name);
        fs::write(&path, text).map_err(at(&path))?;
    }
    Ok(())
}

/// Packs the tree `root` as the image `reference` into `out`, as a file with the name of the tree.
pub(crate) fn pack(
    reference: &str,
    root: &Path,
    config: &Value,
    out: &Path,
    step: &Step,
    log: &Path,
) -> Result<(), Error> {
    let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parts = root.with_extension("parts");
    fs::create_dir_all(&parts).map_err(at(&parts))?;
    let tar = |from: &Path, to: &Path, members: &[&str]| {
        let mut command = Command::new("tar");
        // Same input, same digest: containerd then knows the image again.
        command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C"]);
        command.arg(from).arg("-cf").arg(to).args(members);
        process::logged(command, step, &format!("packing the image {reference}"), log)
    };
    let layer = parts.join("layer.tar");
    tar(root, &layer, &["."])?;
    let digest = Sha256::digest(fs::read(&layer).map_err(at(&layer))?);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    for (file, value) in [("config.json", config), ("manifest.json", manifest)] {
        let path = parts.join(file);
        fs::write(&path, value.to_string()).map_err(at(&path))?;
    }
    tar(&parts, &out.join(format!("{name}.tar")), &["manifest.json", "config.json", "layer.tar"])?;
    Ok(())
}
