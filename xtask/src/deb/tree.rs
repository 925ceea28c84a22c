//! What is in a package, before it is packed: files, manual, changelog, and what dpkg wants to know about them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};

use super::{Error, at, read, write};
use crate::cross::{Architecture, Build};
use crate::{programs, repository};

/// Where packages have their programs; the repository's own files name the folder for installations by hand.
const BY_HAND: &str = "/usr/local/bin/";
const PACKAGED: &str = "/usr/bin/";

/// One line of `install`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    source: &'a str,
    destination: &'a str,
    mode: &'a str,
}

/// Fills `root` by the recipe's lines.
pub(super) fn fill(recipe: &Path, root: &Path, build: Build) -> Result<(), Error> {
    let list = recipe.join("install");
    for (number, line) in lines(&read(&list)?) {
        let wrong = |why: String| Error::Recipe { recipe: list.clone(), line: number, why };
        let line = line.ok_or_else(|| wrong("source, absolute destination and mode are wanted".into()))?;
        let destination = root.join(line.destination.trim_start_matches('/'));
        let parent = destination.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(at(parent))?;
        match (line.source.strip_prefix('@'), line.source.strip_prefix('-'), line.mode) {
            (_, Some(target), "link") => symlink(target, &destination).map_err(at(&destination))?,
            (Some(program), _, _) => {
                let built = programs::file(build, program);
                let built = built.ok_or_else(|| wrong(format!("no program {program}")))?;
                fs::copy(&built, &destination).map_err(at(&built))?;
                // Without the table of names; the profile has left debug information out already.
                let strip =
                    Command::new(build.strip()).args(["--strip-unneeded", "-R", ".comment", "-R", ".note"]);
                strip.arg(&destination).run(&Limits::none())?;
                mode(&destination, 0o755)?;
            }
            (None, None, "gzip") => {
                write(&destination, &read(&repository::root().join(line.source))?, 0o644)?;
                gzip(&destination)?;
            }
            (None, None, octal) => {
                let bits = u32::from_str_radix(octal, 8).map_err(|_| wrong(format!("no mode: {octal}")))?;
                let text = read(&repository::root().join(line.source))?;
                write(&destination, &text.replace(BY_HAND, PACKAGED), bits)?;
            }
            _ => return Err(wrong("a link has the mode `link`".into())),
        }
    }
    Ok(())
}

fn lines(text: &str) -> impl Iterator<Item = (usize, Option<Line<'_>>)> {
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = match words[..] {
            [source, destination, mode] if destination.starts_with('/') => {
                Some(Line { source, destination, mode })
            }
            _ => None,
        };
        (at + 1, parsed)
    })
}

/// Manual pages and completions, which the command makes of itself.
pub(super) fn manual(cryopod: &Path, root: &Path) -> Result<(), Error> {
    let pages = root.join("usr/share/man/man1");
    fs::create_dir_all(&pages).map_err(at(&pages))?;
    Command::new(cryopod).args(["man", "--dir"]).arg(&pages).run(&Limits::none())?;
    for page in fs::read_dir(&pages).map_err(at(&pages))?.flatten() {
        mode(&page.path(), 0o644)?;
        gzip(&page.path())?;
    }
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/cryopod"),
        ("zsh", "usr/share/zsh/vendor-completions/_cryopod"),
        ("fish", "usr/share/fish/vendor_completions.d/cryopod.fish"),
    ] {
        let path = root.join(path);
        let parent = path.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(at(parent))?;
        let script = Command::new(cryopod).args(["completions", shell]).run(&Limits::none())?;
        write(&path, &String::from_utf8_lossy(&script.stdout), 0o644)?;
    }
    Ok(())
}

/// Copyright, changelogs and overrides.
pub(super) fn documents(name: &str, version: &str, root: &Path) -> Result<(), Error> {
    let repository = repository::root();
    let recipes = repository.join("deploy/deb");
    let doc = root.join("usr/share/doc").join(name);
    fs::create_dir_all(&doc).map_err(at(&doc))?;
    write(&doc.join("copyright"), &read(&recipes.join("copyright"))?, 0o644)?;
    let changes = doc.join("changelog");
    write(&changes, &read(&repository.join("CHANGELOG.md"))?, 0o644)?;
    gzip(&changes)?;
    let debian = doc.join("changelog.Debian");
    let date = Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{}", epoch())]);
    let date = date.run(&Limits::none())?;
    let text = format!(
        "{name} ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n \
         -- cryopod maintainers <maintainers@cryopod.dev>  {}\n",
        String::from_utf8_lossy(&date.stdout).trim()
    );
    write(&debian, &text, 0o644)?;
    gzip(&debian)?;
    let overrides = recipes.join(name).join("lintian-overrides");
    if overrides.exists() {
        let there = root.join("usr/share/lintian/overrides");
        fs::create_dir_all(&there).map_err(at(&there))?;
        write(&there.join(name), &read(&overrides)?, 0o644)?;
    }
    Ok(())
}

/// `libc6 (>= …), libgcc-s1 (>= …)`: which libraries the dynamic programs need, by dpkg's own tables.
pub(super) fn shared_libraries(
    staging: &Path,
    root: &Path,
    architecture: Architecture,
) -> Result<String, Error> {
    let debian = staging.join("debian");
    fs::create_dir_all(&debian).map_err(at(&debian))?;
    write(&debian.join("control"), "Source: cryopod\n\nPackage: cryopod\nArchitecture: any\n", 0o644)?;
    let programs = root.join("usr/bin");
    let root = fs::canonicalize(root).map_err(at(root))?;
    let mut command = Command::new("dpkg-shlibdeps").args(["-O", "--warnings=0"]).current_dir(staging);
    command = command.env("DEB_HOST_ARCH", architecture.debian());
    // Where the cross compiler's libraries are; there is nothing on a host of that architecture.
    command = command.arg(format!("-l/usr/{}/lib", architecture.triplet()));
    for entry in fs::read_dir(&programs).map_err(at(&programs))?.flatten() {
        let path = root.join("usr/bin").join(entry.file_name());
        // A static program has no interpreter, and dpkg-shlibdeps refuses it.
        let content = fs::read(&path).map_err(at(&path))?;
        let dynamic = content.windows(8).take(4096).any(|bytes| bytes == b"/lib64/l" || bytes == b"/lib/ld-");
        if dynamic && !entry.path().is_symlink() {
            command = command.arg(format!("-e{}", path.display()));
        }
    }
    let output = command.run(&Limits::none())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let depends = text.lines().find_map(|line| line.strip_prefix("shlibs:Depends=")).unwrap_or_default();
    Ok(native(depends, architecture))
}

/// The libraries by the names that they have where the package is installed, not by those of the cross compiler's packages.
fn native(depends: &str, architecture: Architecture) -> String {
    let name = architecture.debian();
    depends.replace(&format!("-{name}-cross"), "").replace(&format!(":{name}"), "")
}

/// Files and links below `root`, without DEBIAN, sorted.
pub(super) fn files(root: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))?.flatten() {
            let path = entry.path();
            if !path.is_symlink() && path.is_dir() {
                mode(&path, 0o755)?;
                if entry.file_name() != "DEBIAN" {
                    folders.push(path);
                }
            } else if let Ok(path) = path.strip_prefix(root) {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// As `md5sum` prints it.
pub(super) fn checksums(root: &Path, files: &[String]) -> Result<String, Error> {
    let plain = files.iter().filter(|path| !root.join(path).is_symlink() && !path.starts_with("etc/"));
    let output = Command::new("md5sum").args(plain).current_dir(root).run(&Limits::none())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn kibibytes(root: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for path in files(root)? {
        let path = root.join(path);
        bytes += fs::symlink_metadata(&path).map_err(at(&path))?.len();
    }
    Ok(bytes.div_ceil(1024))
}

/// When the checkout was committed, so that the same checkout makes the same package.
pub(super) fn epoch() -> u64 {
    let ask = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(repository::root());
    let output = ask.run(&Limits::none()).ok();
    output.and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok()).unwrap_or(0)
}

fn gzip(path: &Path) -> Result<(), Error> {
    Ok(Command::new("gzip").args(["-9n", "-f"]).arg(path).run(&Limits::none()).map(|_| ())?)
}

fn mode(path: &Path, bits: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).map_err(at(&PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_cross_compiler_are_those_of_the_node() {
        let depends = "libc6:arm64 (>= 2.36), libgcc-s1-arm64-cross (>= 4.2)";
        assert_eq!(native(depends, Architecture::Arm64), "libc6 (>= 2.36), libgcc-s1 (>= 4.2)");
        let own = "libc6 (>= 2.34), libgcc-s1 (>= 4.2)";
        assert_eq!(native(own, Architecture::Amd64), own);
    }

    #[test]
    fn a_recipe_is_read_line_by_line_and_a_strange_one_is_named() {
        let text =
            "# comment\n\n@cryopod  /usr/bin/cryopod 755\n-a /usr/bin/b link\nhalf\na relative/b 644\n";
        let read: Vec<_> = lines(text).map(|(number, line)| (number, line.map(|it| it.mode))).collect();
        assert_eq!(read, [(3, Some("755")), (4, Some("link")), (5, None), (6, None)]);
    }
}
