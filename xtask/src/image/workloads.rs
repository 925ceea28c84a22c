//! The image of real programs that tests checkpoint: python, redis, nginx and sqlite, taken out of the root tree.
//!
//! The files are those that dpkg lists for a few packages and for the libraries that these depend on; packages that
//! are no libraries are left out unless named here. busybox gives the shell and the small tools. Python's modules are
//! compiled ahead, without a check against the source's time: in an emulated node that halves its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::error::at;
use crate::process;
use crate::progress::Step;

/// Packages whose programs the tests run.
const PACKAGES: &[&str] = &[
    "nginx",
    "nginx-common",
    "python3-minimal",
    "python3.13-minimal",
    "libpython3-stdlib",
    "redis-server",
    "redis-tools",
    "sqlite3",
    "zlib1g",
];
/// Read by nobody in a container.
const UNREAD: &[&str] = &[
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/nginx/html",
    "usr/lib/systemd",
    "usr/lib/python3.13/ensurepip",
    "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/pydoc_data",
    "usr/lib/python3.13/test",
    "usr/lib/python3.13/turtledemo",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/ufw",
];
/// Links of the merged /usr, and folders that no package brings.
const LINKS: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];
const FOLDERS: &[&str] = &[
    "data",
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
    "var/lib/nginx",
    "var/log/nginx",
];

/// Fills `root` from the tree.
pub(super) fn fill(tree: &Path, root: &Path, step: &Step, log: &Path) -> Result<(), Error> {
    for dir in FOLDERS {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
    }
    for (link, target) in LINKS {
        let link = root.join(link);
        symlink(target, &link).map_err(at(&link))?;
    }
    let list = root.with_extension("list");
    let mut text = String::new();
    for file in files(tree)? {
        text.push_str(&file);
        text.push('\n');
    }
    fs::write(&list, text).map_err(at(&list))?;
    let mut copy = Command::new("sh");
    copy.args(["-euc", "tar -C \"$1\" --no-recursion -T \"$2\" -cf - | tar -C \"$3\" -xf -", "copy"]);
    copy.arg(tree).arg(&list).arg(root);
    process::logged(copy, step, "copying the workloads' files", log)?;
    for name in ["etc/passwd", "etc/group"] {
        let source = tree.join(name);
        fs::copy(&source, root.join(name)).map_err(at(&source))?;
    }
    busybox(tree, root)?;
    let mut compile = Command::new("chroot");
    compile.arg(root).args(["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode"]);
    compile.args(["unchecked-hash", "/usr/lib/python3.13"]);
    process::logged(compile, step, "compiling python's modules", log)?;
    // Each program has to find its libraries: better to fail here than in a test.
    let mut probe = Command::new("chroot");
    probe.arg(root).args(["/bin/sh", "-euc", PROBE]);
    Ok(process::logged(probe, step, "trying the workloads' programs", log)?)
}

const PROBE: &str = "redis-server --version; redis-cli --version; nginx -v; sqlite3 --version; \
                     python3 -c 'import sqlite3, http.server, socket, mmap, ctypes, fcntl, threading'";

/// The small tools that no package above has.
fn busybox(tree: &Path, root: &Path) -> Result<(), Error> {
    let program = tree.join("usr/bin/busybox");
    let bin = root.join("usr/bin");
    fs::copy(&program, bin.join("busybox")).map_err(at(&program))?;
    let output =
        cryopod_command::Command::new(&program).arg("--list").run(&cryopod_command::Limits::none())?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let link = bin.join(applet);
        if link.symlink_metadata().is_err() {
            symlink("busybox", &link).map_err(at(&link))?;
        }
    }
    Ok(())
}

/// Paths of all files, relative to the tree.
fn files(tree: &Path) -> Result<BTreeSet<String>, Error> {
    let status = tree.join("var/lib/dpkg/status");
    let status = fs::read_to_string(&status).map_err(at(&status))?;
    let packages = installed(&status);
    let mut files = BTreeSet::new();
    for package in closure(&packages) {
        let list = list_of(tree, package);
        for line in fs::read_to_string(&list).map_err(at(&list))?.lines() {
            let path = merged(line.trim_start_matches('/'));
            let unread = UNREAD.iter().any(|unread| path.starts_with(unread));
            if !unread && tree.join(&path).symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

fn list_of(tree: &Path, package: &str) -> PathBuf {
    let info = tree.join("var/lib/dpkg/info");
    let plain = info.join(format!("{package}.list"));
    if plain.exists() { plain } else { info.join(format!("{package}:amd64.list")) }
}

/// Older packages still list `/lib/x`, which is `/usr/lib/x`.
fn merged(path: &str) -> String {
    let top = path.split('/').next().unwrap_or_default();
    if LINKS.iter().any(|(link, _)| *link == top) { format!("usr/{path}") } else { path.to_owned() }
}

/// Name and dependencies (first alternative of each) of the packages in dpkg's status file.
fn installed(status: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut packages = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name));
        let Some(name) = field("Package: ") else { continue };
        let depends = [field("Pre-Depends: "), field("Depends: ")];
        let depends = depends.into_iter().flatten().flat_map(|line| line.split(", "));
        let depends = depends.filter_map(|depend| depend.split([' ', ':', '|']).next());
        packages.insert(name, depends.collect());
    }
    packages
}

/// The named packages and, by their dependencies, libraries.
fn closure<'a>(packages: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&str> = PACKAGES.to_vec();
    while let Some(name) = waiting.pop() {
        // A name that is not installed is provided by another package, and then no library of ours.
        if let Some((name, depends)) = packages.get_key_value(name)
            && wanted.insert(name)
        {
            waiting.extend(depends.iter().filter(|depend| depend.starts_with("lib")));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: redis-tools\nDepends: libc6 (>= 2.38), adduser, libssl3t64 | libssl3\n\n\
                          Package: libc6\nDepends: libgcc-s1\n\nPackage: libgcc-s1\n\nPackage: adduser\n\n\
                          Package: libssl3t64\nPre-Depends: libc6:any\n";

    #[test]
    fn libraries_come_along_and_other_packages_do_not() {
        let wanted = closure(&installed(STATUS));
        assert_eq!(wanted, BTreeSet::from(["redis-tools", "libc6", "libgcc-s1", "libssl3t64"]));
    }

    #[test]
    fn paths_of_the_unmerged_days_are_found() {
        assert_eq!(merged("lib/x86_64-linux-gnu/libc.so.6"), "usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(merged("usr/bin/python3"), "usr/bin/python3");
        assert_eq!(merged("etc/nginx/nginx.conf"), "etc/nginx/nginx.conf");
    }
}
