//! The names that CRIU gives to files which a process has open and whose own name is gone, but not their last link.
//!
//! CRIU makes a link `link_remap.<n>` in the directory of the lost name, for as long as the dump of that container
//! lasts, and its restore opens the file by that link. A volume that several containers share is captured with the
//! first of them; the links of the others are found here at their own instants and made in the copy as well.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;

use super::walk::{Visitor, walk};
use super::{Entry, EntryKind, TreeError};
use crate::durable;

/// A link of CRIU's and another name of the same file, as paths in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remap {
    pub(crate) link: PathBuf,
    /// None when all its other names are outside of the tree.
    pub(crate) same: Option<PathBuf>,
}

#[derive(Default)]
struct Groups {
    /// First name of a file, and all of its names so far.
    names: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Visitor for Groups {
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError> {
        match &entry.kind {
            EntryKind::Hardlink { first } => {
                self.names
                    .entry(first.clone())
                    .or_insert_with(|| vec![first.clone()])
                    .push(entry.path.clone());
            }
            // CRIU's link is the second name at least; one alone is somebody's file of that name.
            EntryKind::File { .. }
                if is_remap(&entry.path)
                    && file.and_then(|file| file.metadata().ok()).is_some_and(|meta| meta.nlink() > 1) =>
            {
                self.names.insert(entry.path.clone(), vec![entry.path.clone()]);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Every link of CRIU's in a live tree.
pub(crate) fn find(root: &Path, limits: &Limits) -> Result<Vec<Remap>, TreeError> {
    let mut groups = Groups::default();
    walk(root, limits, &mut groups)?;
    let mut found = Vec::new();
    for names in groups.names.into_values() {
        let same = names.iter().find(|name| !is_remap(name)).map(|name| path(name));
        let links = names.iter().filter(|name| is_remap(name));
        found.extend(links.map(|link| Remap { link: path(link), same: same.clone() }));
    }
    Ok(found)
}

/// Makes the link in a copy of the tree. False when the copy lacks the file, or has another one under that name (two
/// dumps count from the same number).
pub(crate) fn make(copy: &Path, remap: &Remap) -> Result<bool, TreeError> {
    let Some(same) = &remap.same else { return Ok(false) };
    if !is_plain(copy, same) || !is_plain(copy, &remap.link) {
        return Ok(false);
    }
    let (same, link) = (copy.join(same), copy.join(&remap.link));
    match fs::hard_link(&same, &link) {
        Ok(()) => {
            // The copy was written out before.
            durable::sync_parent(&link).map_err(TreeError::io("sync", &link))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let of = |path: &Path| fs::symlink_metadata(path).map_err(TreeError::io("examine", path));
            let (same, link) = (of(&same)?, of(&link)?);
            Ok((same.dev(), same.ino()) == (link.dev(), link.ino()))
        }
        Err(source) => Err(TreeError::io("link", &link)(source)),
    }
}

/// Whether the way to it leads through directories only: the live tree may be another one than was copied, where others
/// than the frozen pod write to it, and no link leads out of the copy.
fn is_plain(copy: &Path, path: &Path) -> bool {
    let mut at = copy.to_owned();
    path.parent().into_iter().flat_map(Path::components).all(|part| {
        at.push(part);
        fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir())
    })
}

fn is_remap(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.strip_prefix(b"link_remap.")
        .is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_criu_are_found_with_another_name_of_their_file_whichever_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("logs")).unwrap();
        for (name, link) in [("a", "link_remap.1"), ("z", "logs/link_remap.12")] {
            fs::write(at(name), name).unwrap();
            fs::hard_link(at(name), at(link)).unwrap();
        }
        fs::write(at("link_remap.9"), "somebody's").unwrap();
        fs::write(at("b"), "").unwrap();
        fs::hard_link(at("b"), at("link_remap.x")).unwrap();
        let mut found = find(dir.path(), &Limits::none()).unwrap();
        found.sort_by(|a, b| a.link.cmp(&b.link));
        let remap = |link: &str, same: &str| Remap { link: link.into(), same: Some(same.into()) };
        assert_eq!(found, [remap("link_remap.1", "a"), remap("logs/link_remap.12", "z")]);
    }

    #[test]
    fn a_link_whose_file_is_not_in_the_tree_is_found_and_cannot_be_made() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(&outside, "").unwrap();
        fs::hard_link(&outside, root.join("link_remap.3")).unwrap();
        let found = find(&root, &Limits::none()).unwrap();
        assert_eq!(found, [Remap { link: "link_remap.3".into(), same: None }]);
        assert!(!make(copy.path(), &found[0]).unwrap());
    }

    #[test]
    fn a_name_that_is_taken_by_another_file_is_said_and_one_that_is_right_already_is_fine() {
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("a"), "a").unwrap();
        fs::write(copy.path().join("b"), "b").unwrap();
        let remap = |same: &str| Remap { link: "link_remap.6".into(), same: Some(same.into()) };
        assert!(make(copy.path(), &remap("a")).unwrap());
        assert!(make(copy.path(), &remap("a")).unwrap());
        assert!(!make(copy.path(), &remap("b")).unwrap());
        assert_eq!(fs::read_to_string(copy.path().join("link_remap.6")).unwrap(), "a");
    }

    #[test]
    fn a_symlink_in_the_copy_leads_nowhere() {
        let (copy, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink(host.path(), copy.path().join("d")).unwrap();
        let remap = Remap { link: "link_remap.6".into(), same: Some("d/secret".into()) };
        assert!(!make(copy.path(), &remap).unwrap());
        assert!(!copy.path().join("link_remap.6").exists());
    }
}
