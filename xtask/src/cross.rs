//! Programs for another architecture than this host's: Debian's cross compiler links, rustup brings the libraries of Rust.
//!
//! Everything else – recipes, documents, checks – is the same; what only the programs themselves can say, their manual and
//! completions, is asked of this host's build.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::deploy::{self, Profile};
use crate::{host, process, repository};

/// A processor's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

/// What is built: how, and for which processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Build {
    pub(crate) profile: Profile,
    pub(crate) architecture: Architecture,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Deploy(#[from] deploy::Error),
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Cache(#[from] crate::cache::NoPlace),
    #[error("packages are made on amd64 and arm64, not on {0}")]
    Unknown(&'static str),
}

impl Architecture {
    /// This host's.
    pub(crate) fn host() -> Result<Self, Error> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => Err(Error::Unknown(other)),
        }
    }

    /// In Debian's words, and Go's.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's name of the target.
    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.machine())
    }

    /// What the names of the cross tools begin with.
    pub(crate) fn triplet(self) -> String {
        format!("{}-linux-gnu", self.machine())
    }
}

impl Build {
    /// For this host.
    pub(crate) fn host(profile: Profile) -> Result<Self, Error> {
        Ok(Self { profile, architecture: Architecture::host()? })
    }

    fn is_cross(self) -> bool {
        Architecture::host().ok() != Some(self.architecture)
    }

    /// Builds the programs of these packages, each with its libraries or without.
    pub(crate) fn run(self, packages: &[(&'static str, bool)]) -> Result<(), Error> {
        if !self.is_cross() {
            return Ok(deploy::build(self.profile, packages)?);
        }
        self.prepare()?;
        for statically in [false, true] {
            let mut wanted = packages.iter().filter(|(_, it)| *it == statically).peekable();
            // Without a package cargo would build all of them.
            if wanted.peek().is_none() {
                continue;
            }
            let wanted = wanted.flat_map(|(name, _)| ["--package", name]);
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(repository::root());
            cargo.args(["build", "--quiet", "--profile", self.profile.name()]).args(wanted);
            cargo.args(["--target", &self.architecture.target()]);
            // Flags differ, and the target does not: a folder each, or one would build everything of the other anew.
            cargo.arg("--target-dir").arg(self.folder(statically));
            let (triplet, variable) =
                (self.architecture.triplet(), self.architecture.target().replace('-', "_"));
            cargo.env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), format!("{triplet}-gcc"));
            cargo.env(format!("CC_{variable}"), format!("{triplet}-gcc"));
            cargo.env(format!("AR_{variable}"), format!("{triplet}-ar"));
            if statically {
                cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
            }
            if !cargo.status().map_err(deploy::Error::Cargo)?.success() {
                return Err(deploy::Error::Build.into());
            }
        }
        Ok(())
    }

    /// Where a program is after [`Build::run`].
    pub(crate) fn file(self, name: &str, statically: bool) -> PathBuf {
        if !self.is_cross() {
            return deploy::built(self.profile, name, statically);
        }
        let target = self.folder(statically).join(self.architecture.target());
        target.join(self.profile.folder()).join(name)
    }

    /// The program that strips.
    pub(crate) fn strip(self) -> String {
        if self.is_cross() { format!("{}-strip", self.architecture.triplet()) } else { "strip".to_owned() }
    }

    fn folder(self, statically: bool) -> PathBuf {
        let name = if statically { "cross-static" } else { "cross" };
        repository::target().join(name)
    }

    fn prepare(self) -> Result<(), Error> {
        let cache = Cache::from_env()?;
        let triplet = self.architecture.triplet();
        let compiler = format!("{triplet}-gcc");
        host::install(&cache, &[(&compiler, &format!("gcc-{triplet}"))])?;
        if !Path::new("/usr").join(&triplet).join("lib/libc.a").exists() {
            let library = format!("libc6-dev-{}-cross", self.architecture.debian());
            // It has no program to look for.
            host::install(&cache, &[(&library, &library)])?;
        }
        let step = crate::progress::Step::begin(format!("libraries of Rust for {triplet}"), None);
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", &self.architecture.target()]);
        process::logged(rustup, &step, "adding the target", &cache.root().join("log/rustup.log"))?;
        step.done();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_architecture_has_folders_and_tools_of_its_own() {
        let host = Build::host(Profile::Release).unwrap();
        let other = match host.architecture {
            Architecture::Amd64 => Architecture::Arm64,
            Architecture::Arm64 => Architecture::Amd64,
        };
        let cross = Build { architecture: other, ..host };
        assert_eq!((host.strip().as_str(), host.is_cross()), ("strip", false));
        assert!(cross.strip().ends_with("-linux-gnu-strip"));
        let files =
            [cross.file("a", false), cross.file("a", true), host.file("a", false), host.file("a", true)];
        for (at, file) in files.iter().enumerate() {
            assert!(!files[at + 1..].contains(file), "{}", file.display());
        }
    }
}
