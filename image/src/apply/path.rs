//! Paths of an archive, judged as text before the kernel sees them. What a path leads to is [`super::root`]'s affair:
//! links are not visible here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::Refusal;

/// PATH_MAX and NAME_MAX of Linux.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// As deep as the rest of cryopod copies and hashes trees.
const MAX_DEPTH: usize = 200;
/// Names that begin so say what is gone (OCI image specification, layer.md "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Aufs kept things of its own under such names; only this one of them means anything to others.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the root: names without `.` and `..`; none for the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Vec<u8>>);

/// What a name means in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The root itself.
    Root,
    /// Something to make: its directory and its name.
    Make(Path, Vec<u8>),
    /// What lower layers have under this name is gone.
    Whiteout(Path, Vec<u8>),
    /// All that lower layers have in this directory is gone.
    Opaque(Path),
    /// What aufs kept for itself.
    Nothing,
}

impl Path {
    /// Reads a path as archives have it; `./a/b/` is `a/b`.
    pub(super) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        if path.starts_with(b"/") {
            return Err(Refusal::Absolute);
        }
        if path.len() >= MAX_PATH {
            return Err(Refusal::TooLong);
        }
        let mut names = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(Refusal::Climbs),
                name if name.len() > MAX_NAME => return Err(Refusal::TooLong),
                name if name.contains(&0) => return Err(Refusal::TooLong),
                name => names.push(name.to_vec()),
            }
        }
        if names.len() > MAX_DEPTH { Err(Refusal::TooDeep) } else { Ok(Self(names)) }
    }

    /// Its names.
    pub(super) fn names(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// As the kernel takes it, relative to the root.
    pub(super) fn joined(&self) -> std::path::PathBuf {
        if self.0.is_empty() {
            ".".into()
        } else {
            self.0.iter().map(|name| OsStr::from_bytes(name)).collect()
        }
    }

    /// Directory and name; None for the root.
    pub(super) fn split(mut self) -> Option<(Self, Vec<u8>)> {
        let name = self.0.pop()?;
        Some((self, name))
    }

    /// What an entry of this path means.
    pub(super) fn meaning(self) -> Result<Meaning, Refusal> {
        let Some((dir, name)) = self.split() else { return Ok(Meaning::Root) };
        if let Some(above) = dir.0.iter().find(|above| above.starts_with(WHITEOUT)) {
            return if above.starts_with(AUFS) { Ok(Meaning::Nothing) } else { Err(Refusal::Whiteout) };
        }
        let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(Meaning::Make(dir, name)) };
        match gone {
            b"" | b"." | b".." => Err(Refusal::Whiteout),
            _ if name == OPAQUE => Ok(Meaning::Opaque(dir)),
            _ if name.starts_with(AUFS) => Ok(Meaning::Nothing),
            gone => Ok(Meaning::Whiteout(dir, gone.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(path: &str) -> Result<Meaning, Refusal> {
        Path::parse(path.as_bytes())?.meaning()
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        assert_eq!(meaning("/etc/passwd"), Err(Refusal::Absolute));
        for climbing in ["..", "../x", "a/../../x", "a/..", "./../x"] {
            assert_eq!(meaning(climbing), Err(Refusal::Climbs), "{climbing}");
        }
        assert_eq!(meaning(&"x".repeat(256)), Err(Refusal::TooLong));
        assert_eq!(meaning(&"x/".repeat(2048)), Err(Refusal::TooLong));
        assert_eq!(meaning(&"x/".repeat(201)), Err(Refusal::TooDeep));
    }

    #[test]
    fn names_say_what_they_mean() {
        let dir = |path: &str| Path::parse(path.as_bytes()).unwrap();
        assert_eq!(meaning("./"), Ok(Meaning::Root));
        assert_eq!(meaning("./a//b/"), Ok(Meaning::Make(dir("a"), b"b".to_vec())));
        assert_eq!(meaning("a/.wh.b"), Ok(Meaning::Whiteout(dir("a"), b"b".to_vec())));
        assert_eq!(meaning(".wh...data"), Ok(Meaning::Whiteout(dir(""), b"..data".to_vec())));
        assert_eq!(meaning("a/.wh..wh..opq"), Ok(Meaning::Opaque(dir("a"))));
        assert_eq!(meaning(".wh..wh.plnk/1.2"), Ok(Meaning::Nothing));
        assert_eq!(meaning(".wh..wh.aufs"), Ok(Meaning::Nothing));
        for bad in ["a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert_eq!(meaning(bad), Err(Refusal::Whiteout), "{bad}");
        }
    }
}
