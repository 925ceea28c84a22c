//! Programs that an image brings to its node: a folder per version, links to the newest.
//!
//! ```text
//! /usr/local/lib/cryopod/0.1.0-1f2e3d4c/…      programs; the version and a hash of all of them
//! /usr/local/lib/cryopod/links                 the links that were made, a line each
//! /usr/local/bin/NAME -> /usr/local/lib/cryopod/0.1.0-1f2e3d4c/NAME
//! ```
//!
//! Invariants: a folder is whole or not there; a link always leads to a program; a folder stays while a process runs from it
//! or a link leads into it, so a running pod never loses its shim; containerd deletes the pods of an old shim by the link,
//! with the new one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};
use sha2::{Digest, Sha256};

const LINKS: &str = "links";
/// What finishes, at boot, what a power cut interrupted.
const UNIT: &str = "cryopod-recover.service";
const UNITS: &str = "/etc/systemd/system";
/// Whose shim wins over ours, or the other way round: nobody wants to guess.
const PACKAGED: &str = "/usr/bin/containerd-shim-cryopod-v2";

/// Why the programs are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package brings the same.
    #[error(
        "{PACKAGED} is there, from a package: install with install.binaries=false, or remove the package cryopod"
    )]
    Packaged,
    /// Not our link.
    #[error("{} is not from here: remove it, or install with install.binaries=false", .0.display())]
    Foreign(PathBuf),
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// systemd.
    #[error(transparent)]
    Program(#[from] cryopod_command::Error),
}

/// The library that this process runs from, if an image brought it.
pub fn own_library() -> Option<PathBuf> {
    let library = std::env::current_exe().ok()?.parent()?.parent()?.to_owned();
    library.join(LINKS).is_file().then_some(library)
}

/// Puts what is in `payload` on the node and gives its folder.
pub fn install(payload: &Path, library: &Path, bin: &Path) -> Result<PathBuf, Error> {
    if Path::new(PACKAGED).exists() && bin != Path::new("/usr/bin") {
        return Err(Error::Packaged);
    }
    let placed = place(payload, library, bin)?;
    prune(library, &placed, &running())?;
    enable(&placed, bin)?;
    Ok(placed)
}

fn place(payload: &Path, library: &Path, bin: &Path) -> Result<PathBuf, Error> {
    let names = names(payload)?;
    let programs: Vec<&String> = names.iter().filter(|name| *name != UNIT).collect();
    for name in &programs {
        let link = bin.join(name);
        let ours = fs::read_link(&link).is_ok_and(|target| target.starts_with(library));
        if !ours && fs::symlink_metadata(&link).is_ok() {
            return Err(Error::Foreign(link));
        }
    }
    let key = key(payload, &names)?;
    let folder = library.join(&key);
    if !folder.is_dir() {
        let half = library.join(format!(".{key}.new"));
        remove_tree(&half)?;
        fs::create_dir_all(&half).map_err(at("create", &half))?;
        for name in &names {
            copy(&payload.join(name), &half.join(name))?;
        }
        sync(&half)?;
        fs::rename(&half, &folder).map_err(at("rename", &half))?;
        sync(library)?;
    }
    fs::create_dir_all(bin).map_err(at("create", bin))?;
    // Noted before they are made, so that none is ever forgotten.
    let mut links = links(library);
    links.extend(programs.iter().map(|name| bin.join(name)));
    let list: String = links.iter().map(|link| format!("{}\n", link.display())).collect();
    write(&library.join(LINKS), &list)?;
    for name in programs {
        let (link, half) = (bin.join(name), bin.join(format!(".{name}.new")));
        remove(&half)?;
        symlink(folder.join(name), &half).map_err(at("link", &half))?;
        fs::rename(&half, &link).map_err(at("link", &link))?;
    }
    Ok(folder)
}

/// Takes away links, recovery at boot and all versions, whatever runs from them: the caller has looked.
pub fn remove(library: &Path) -> Result<(), Error> {
    let unit = Path::new(UNITS).join(UNIT);
    if unit.exists() {
        systemctl(&["disable", UNIT])?;
        remove_file(&unit)?;
        systemctl(&["daemon-reload"])?;
    }
    take_away(library)
}

fn take_away(library: &Path) -> Result<(), Error> {
    for link in links(library) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(library)) {
            remove_file(&link)?;
        }
    }
    remove_tree(library)
}

/// Removes versions that nobody needs any more.
fn prune(library: &Path, placed: &Path, running: &BTreeSet<PathBuf>) -> Result<(), Error> {
    let linked: Vec<PathBuf> = links(library).iter().filter_map(|link| fs::read_link(link).ok()).collect();
    for entry in fs::read_dir(library).map_err(at("read", library))?.flatten() {
        let folder = entry.path();
        let needed = running.iter().chain(&linked).any(|program| program.starts_with(&folder));
        if folder.is_dir() && folder != placed && !needed {
            remove_tree(&folder)?;
        }
    }
    Ok(())
}

/// Programs of all processes.
fn running() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read_link(process.path().join("exe")).ok()).collect()
}

/// Recovery at boot, before containerd; the unit of the packages, with the path of our links.
fn enable(placed: &Path, bin: &Path) -> Result<(), Error> {
    let source = placed.join(UNIT);
    let Ok(text) = fs::read_to_string(&source) else { return Ok(()) };
    let text = text.replace("/usr/bin/", &format!("{}/", bin.display()));
    let unit = Path::new(UNITS).join(UNIT);
    if !fs::read_to_string(&unit).is_ok_and(|there| there == text) {
        write(&unit, &text)?;
        systemctl(&["daemon-reload"])?;
    }
    systemctl(&["--quiet", "enable", UNIT])
}

fn systemctl(arguments: &[&str]) -> Result<(), Error> {
    Ok(Command::new("systemctl")
        .args(arguments)
        .run(&Limits::within(std::time::Duration::from_secs(60)))
        .map(|_| ())?)
}

fn names(payload: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(payload).map_err(at("read", payload))?.flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// `VERSION-HASH`: two builds of one version are two folders.
fn key(payload: &Path, names: &[String]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    for name in names {
        let path = payload.join(name);
        hash.update(name.as_bytes());
        hash.update([0]);
        match fs::read_link(&path) {
            Ok(target) => hash.update(target.as_os_str().as_encoded_bytes()),
            Err(_) => hash.update(fs::read(&path).map_err(at("read", &path))?),
        }
    }
    let hash: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{hash}", env!("CARGO_PKG_VERSION")))
}

/// A link of the payload stays one: the shim's other names.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if let Ok(target) = fs::read_link(from) {
        return symlink(target, to).map_err(at("link", to));
    }
    fs::copy(from, to).map_err(at("copy", to))?;
    let mode = fs::metadata(from).map_err(at("read", from))?.permissions().mode() & 0o755;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(at("set the mode of", to))?;
    sync(to)
}

fn links(library: &Path) -> BTreeSet<PathBuf> {
    fs::read_to_string(library.join(LINKS)).unwrap_or_default().lines().map(PathBuf::from).collect()
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let half = path.with_extension("new");
    fs::write(&half, text).map_err(at("write", &half))?;
    sync(&half)?;
    fs::rename(&half, path).map_err(at("write", path))
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at("sync", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests;
