//! `cargo xtask agent-image`: the image of the chart's DaemonSet, as an archive that `docker load`, `podman load` and
//! `ctr images import` read.
//!
//! It has no distribution inside: the folder /cryopod with all programs of a node, and the libraries that the agent itself needs to
//! start. What it puts on the node runs with the node's libraries there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};
use serde_json::json;

use crate::cache::Cache;
use crate::cross::{self, Build};
use crate::deploy::{self, Profile};
use crate::image::archive;
use crate::progress::Step;
use crate::{image, programs, repository};

/// That of the node, whose programs the agent calls once it has entered it; it is itself called by its whole path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder of the archive.
    #[arg(long, default_value = "target/image", value_name = "DIR")]
    output: PathBuf,
    /// Name and tag that the archive gives the image.
    #[arg(long, default_value = concat!("cryopod/agent:", env!("CARGO_PKG_VERSION")), value_name = "NAME:TAG")]
    reference: String,
    /// Build quickly, as for the tests: larger programs.
    #[arg(long)]
    release: bool,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Build(#[from] cross::Error),
    #[error(transparent)]
    Pack(#[from] image::Error),
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    #[error(transparent)]
    Cache(#[from] crate::cache::NoPlace),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

/// The verb.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let profile = if options.release { Profile::Release } else { Profile::Dist };
    println!("{}", build(profile, &options.reference, &options.output)?.display());
    Ok(())
}

/// Builds the archive `agent.tar` in `output`.
pub(crate) fn build(profile: Profile, reference: &str, output: &Path) -> Result<PathBuf, Error> {
    let log = Cache::from_env()?.root().join("log/agent-image.log");
    let step = Step::begin("building the programs of the image", None);
    programs::build(Build::host(profile)?)?;
    step.done();
    let root = output.join("agent");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&root)(error)),
        _ => {}
    }
    fill(profile, &root)?;
    let step = Step::begin(format!("packing the image {reference}"), None);
    let config = json!({"Entrypoint": ["/cryopod/cryopod-agent"], "Env": [format!("PATH={PATH}")], "Labels": {
        "org.opencontainers.image.title": "cryopod agent",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
    }});
    archive::pack(reference, &root, &config, output, &step, &log)?;
    step.done();
    Ok(output.join("agent.tar"))
}

fn fill(profile: Profile, root: &Path) -> Result<(), Error> {
    let programs = root.join("cryopod");
    // Where a container's files are mounted, in a root that is read only.
    for dir in ["cryopod", "proc", "sys", "dev", "etc", "run", "tmp", "var/run"] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
    }
    for program in programs::there().filter(|program| program.name != "kubectl-cryopod") {
        let built = deploy::built(profile, program.name, program.statically);
        let target = programs.join(program.name);
        fs::copy(&built, &target).map_err(at(&built))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(at(&target))?;
        Command::new("strip").arg("--strip-unneeded").arg(&target).run(&Limits::none())?;
    }
    let link = programs.join("containerd-shim-cryopod-lxc-v2");
    symlink("containerd-shim-cryopod-v2", &link).map_err(at(&link))?;
    let unit = repository::root().join("deploy/systemd/cryopod-recover.service");
    let text = fs::read_to_string(&unit).map_err(at(&unit))?.replace("/usr/local/bin/", "/usr/bin/");
    let there = programs.join("cryopod-recover.service");
    fs::write(&there, text).map_err(at(&there))?;
    libraries(&programs.join("cryopod-agent"), root)
}

/// The loader and the libraries of a program, at the paths where it looks for them.
fn libraries(program: &Path, root: &Path) -> Result<(), Error> {
    let output = Command::new("ldd").arg(program).run(&Limits::none())?;
    for library in libraries_of(&String::from_utf8_lossy(&output.stdout)) {
        let target = root.join(library.trim_start_matches('/'));
        let parent = target.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(at(parent))?;
        fs::copy(&library, &target).map_err(at(Path::new(&library)))?;
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries_of(text: &str) -> Vec<String> {
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_and_libraries_are_found_and_the_kernels_own_is_not() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        assert_eq!(libraries_of(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
