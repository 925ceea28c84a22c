//! `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, as docker and Kubernetes read it.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::source::SourceError;

const LONGEST: usize = 512;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port as it is written.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// Host and port that answer for it.
    pub(super) fn address(&self) -> &str {
        if self.registry == "docker.io" { "registry-1.docker.io" } else { &self.registry }
    }

    /// The repository there.
    pub(super) fn repository(&self) -> String {
        let official = self.registry == "docker.io" && !self.path.contains('/');
        if official { format!("library/{}", self.path) } else { self.path.clone() }
    }

    /// The digest, where one is named; a tag beside it means nothing then.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What is asked for.
    pub(super) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = |reason| SourceError::Name { name: text.chars().take(LONGEST).collect(), reason };
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // A host has a dot or a port, or is localhost; else the first name is of docker's registry.
        let (registry, rest) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => ("docker.io", name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        let host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        let repository = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if !registry.chars().all(host) || registry.starts_with(['.', '-', ':']) {
            return Err(bad("its registry is no host"));
        }
        if path.is_empty()
            || !path.chars().all(repository)
            || path.split('/').any(|part| part.is_empty() || part.starts_with(['.', '-', '_']))
        {
            return Err(bad("its repository must be of lower case letters, digits and . _ - /"));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(word)) {
            return Err(bad("its tag must be of letters, digits and . _ -"));
        }
        Ok(Self { registry: registry.to_owned(), path: path.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_s_and_the_rest_is_what_it_says() {
        let shown =
            |text: &str| text.parse::<Reference>().map(|found| (found.to_string(), found.wanted())).unwrap();
        let latest = "latest".to_owned();
        assert_eq!(shown("alpine"), ("docker.io/library/alpine".into(), latest.clone()));
        assert_eq!(shown("me/app:1.2"), ("docker.io/me/app:1.2".into(), "1.2".into()));
        assert_eq!(shown("localhost/x"), ("localhost/x".into(), latest));
        let hex = "0".repeat(64);
        let pinned = format!("r.example:5000/a/b:t@sha256:{hex}");
        assert_eq!(shown(&pinned), (pinned.clone(), format!("sha256:{hex}")));
        assert_eq!("alpine".parse::<Reference>().unwrap().address(), "registry-1.docker.io");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "A/b",
            "a b",
            "a:",
            "a@sha256:1",
            "r.example/",
            "a//b",
            "../a",
            "a/../b",
            "-h.x/a",
            "a:t/x?y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }
}
