//! The name of an image as a person gives it, and what a path turns out to be.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cryopod_command::Limits;

use super::archive::Archive;
use super::registry::Reference;
use super::{Options, SourceError};

/// An image by the place it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// In a registry.
    Registry(Reference),
    /// In containerd, by its reference there.
    Containerd(String),
    /// In an OCI image layout.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Which image, where there are several.
        name: Option<String>,
    },
    /// In an OCI image layout that is in a tar archive.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// Which image, where there are several.
        name: Option<String>,
    },
    /// In an archive of `docker save`.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// Which image, where there are several.
        name: Option<String>,
    },
    /// A root file system in a tar archive.
    Tarball {
        /// The archive.
        file: PathBuf,
    },
    /// Whatever is at this path.
    Path(PathBuf),
}

impl FromStr for ImageName {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = |reason| SourceError::Name { name: text.to_owned(), reason };
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(bad("it is empty or has control characters"));
        }
        let found = match text.split_once(':') {
            Some(("docker", rest)) => {
                let rest = rest.strip_prefix("//").ok_or(bad("write docker://REFERENCE"))?;
                Self::Registry(rest.parse()?)
            }
            Some(("containerd", rest)) => Self::Containerd(rest.to_owned()),
            Some(("oci", rest)) => {
                let (dir, name) = path_and_name(rest);
                Self::Layout { dir, name }
            }
            Some(("oci-archive", rest)) => {
                let (file, name) = path_and_name(rest);
                Self::OciArchive { file, name }
            }
            Some(("docker-archive", rest)) => {
                let (file, name) = path_and_name(rest);
                Self::DockerArchive { file, name }
            }
            Some(("tar", rest)) => Self::Tarball { file: rest.into() },
            _ if text.starts_with(['/', '.']) => Self::Path(text.into()),
            _ => Self::Registry(text.parse()?),
        };
        let is_empty = match &found {
            Self::Layout { dir: path, .. }
            | Self::OciArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. }
            | Self::Tarball { file: path } => path.as_os_str().is_empty(),
            Self::Containerd(reference) => reference.is_empty(),
            Self::Registry(_) | Self::Path(_) => false,
        };
        if is_empty { Err(bad("nothing follows the kind")) } else { Ok(found) }
    }
}

/// A path with a colon is meant as it stands if it is there.
fn path_and_name(text: &str) -> (PathBuf, Option<String>) {
    if Path::new(text).exists() {
        return (text.into(), None);
    }
    match text.split_once(':') {
        Some((path, name)) if !name.is_empty() => (path.into(), Some(name.to_owned())),
        _ => (text.into(), None),
    }
}

/// What is at a path. An archive with a manifest of docker or of OCI is an image; any other one is a root file system.
pub(super) fn detect(path: &Path, options: &Options, limits: &Limits) -> Result<ImageName, SourceError> {
    let found = std::fs::metadata(path).map_err(SourceError::io("find", path))?;
    if found.is_dir() {
        return if path.join("oci-layout").is_file() {
            Ok(ImageName::Layout { dir: path.to_owned(), name: None })
        } else {
            Err(SourceError::Odd { path: path.to_owned(), reason: "the directory has no oci-layout".into() })
        };
    }
    let file = path.to_owned();
    let archive = Archive::open(path, &options.scratch, options.most, limits)?;
    Ok(if archive.has("oci-layout") && archive.has("index.json") {
        ImageName::OciArchive { file, name: None }
    } else if archive.has("manifest.json") && !archive.has("etc") && !archive.has("bin") {
        ImageName::DockerArchive { file, name: None }
    } else {
        ImageName::Tarball { file }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_an_image_is() {
        let parse = |text: &str| text.parse::<ImageName>().unwrap();
        assert_eq!(parse("/x/y:z"), ImageName::Path("/x/y:z".into()));
        assert_eq!(parse("./x"), ImageName::Path("./x".into()));
        assert_eq!(parse("tar:/a:b"), ImageName::Tarball { file: "/a:b".into() });
        let archive = ImageName::OciArchive { file: "/no/x.tar".into(), name: Some("app:1".into()) };
        assert_eq!(parse("oci-archive:/no/x.tar:app:1"), archive);
        assert_eq!(parse("containerd:docker.io/x:1"), ImageName::Containerd("docker.io/x:1".into()));
        assert_eq!(parse("docker://h:5000/x:1"), parse("h:5000/x:1"));
        for bad in ["", "oci:", "docker:x", "tar:", "containerd:", "UPPER/x", "a\nb"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
    }
}
