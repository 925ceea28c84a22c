//! The installed CRIU's version, asked once per binary: the answer is kept until the file changes.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cryopod_command::{Command, Limits};
use nix::unistd::{AccessFlags, access};

use super::CriuError;

/// The oldest CRIU that restores on kernels with the mount namespace backport ("mnt-v2: Failed to make mount slave")
/// and knows the vvar_vclock mapping of 6.13.
pub const FLOOR: Version = Version { major: 4, minor: 1, patch: 1 };

/// `criu --version` only prints; anything longer is a hanging file system.
const PATIENCE: Duration = Duration::from_secs(20);

/// A CRIU version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch level, 0 if not given.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch == 0 { Ok(()) } else { write!(f, ".{}", self.patch) }
    }
}

type Identity = (PathBuf, u64, i64, i64);
static KNOWN: Mutex<BTreeMap<Identity, Version>> = Mutex::new(BTreeMap::new());

/// The version of `program`, which must be installed.
pub fn of(program: &Path, limits: &Limits) -> Result<Version, CriuError> {
    let path = find(program).ok_or_else(|| CriuError::Missing { program: program.display().to_string() })?;
    let identity = identity(&path)?;
    if let Some(version) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&identity) {
        return Ok(*version);
    }
    let output = Command::new(&path)
        .arg("--version")
        .run(&limits.at_most(PATIENCE))
        .map_err(|source| CriuError::Ask { source })?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let version = parse(&answer).ok_or_else(|| CriuError::NoVersion {
        program: path.display().to_string(),
        answer: answer.trim().chars().take(80).collect(),
    })?;
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, version);
    Ok(version)
}

/// As [`of`], refusing what is older than [`FLOOR`].
pub fn check(program: &Path, limits: &Limits) -> Result<Version, CriuError> {
    let version = of(program, limits)?;
    if version < FLOOR { Err(CriuError::TooOld { version, floor: FLOOR }) } else { Ok(version) }
}

/// Where the program is: itself if it has a slash, else looked up in PATH; `None` if it is not installed.
pub fn find(program: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(runs);
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&search).map(|dir| dir.join(program)).find(runs)
}

fn identity(path: &Path) -> Result<Identity, CriuError> {
    let meta = std::fs::metadata(path).map_err(|source| CriuError::File {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    Ok((path.to_owned(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

/// `Version: 4.1.1`, or `Version: 4.2-rc1` with a GitID line.
fn parse(answer: &str) -> Option<Version> {
    let text = answer.lines().find_map(|line| line.trim().strip_prefix("Version:"))?.trim();
    let number = |part: &str| -> Option<u32> {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let mut parts = text.split('.');
    Some(Version {
        major: number(parts.next()?)?,
        minor: number(parts.next()?)?,
        patch: parts.next().and_then(number).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(answer: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("criu");
        let script = format!("#!/bin/sh\necho x >> {}/asked\necho '{answer}'\n", dir.path().display());
        crate::test_script::write(&path, &script);
        (dir, path)
    }

    #[test]
    fn versions_compare_as_numbers() {
        for (text, version) in [
            ("Version: 4.1.1\n", Some((4, 1, 1))),
            ("Version: 4.2\nGitID: v4.2\n", Some((4, 2, 0))),
            ("Version: 4.10-rc1\n", Some((4, 10, 0))),
            ("criu: not found", None),
        ] {
            let expected = version.map(|(major, minor, patch)| Version { major, minor, patch });
            assert_eq!(parse(text), expected, "{text}");
        }
        assert!(parse("Version: 4.10").expect("valid") > FLOOR);
    }

    #[test]
    fn a_binary_is_asked_once() {
        let (dir, path) = fake("Version: 4.1.1");
        for _ in 0..3 {
            assert_eq!(check(&path, &Limits::none()).expect("new enough"), FLOOR);
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("asked")).expect("asked"), "x\n");
    }

    #[test]
    fn an_old_a_missing_and_a_strange_criu_are_told_apart() {
        let (_dir, path) = fake("Version: 3.17.1");
        assert!(matches!(check(&path, &Limits::none()), Err(CriuError::TooOld { .. })));
        let missing = check(Path::new("/nonexistent/criu"), &Limits::none()).expect_err("missing");
        assert!(missing.to_string().contains("apt install criu"), "{missing}");
        let (_dir, path) = fake("hello");
        assert!(matches!(check(&path, &Limits::none()), Err(CriuError::NoVersion { .. })));
    }
}
