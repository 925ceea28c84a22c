//! The content of a fake file system: read from and written to an ordinary directory, compared, measured and
//! put into streams.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Dir { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { target: PathBuf },
}

/// How names begin of directories that were moved aside for a mount.
pub(super) const UNDER: &str = ".under-";
/// What every item costs besides its data.
const ITEM_BYTES: u64 = 512;

/// Files by their path below the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, Item>);

impl Tree {
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut items = BTreeMap::new();
        collect(root, Path::new(""), &mut items)?;
        Ok(Self(items))
    }

    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        std::fs::create_dir_all(root)?;
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(path)?;
            } else {
                std::fs::remove_file(path)?;
            }
        }
        // Parents sort before what is in them.
        for (path, item) in &self.0 {
            let path = root.join(path);
            match item {
                Item::Dir { .. } => std::fs::create_dir(&path)?,
                Item::File { mode, data } => {
                    std::fs::write(&path, data)?;
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))?;
                }
                Item::Link { target } => std::os::unix::fs::symlink(target, &path)?,
            }
        }
        for (path, item) in &self.0 {
            if let Item::Dir { mode } = item {
                std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(*mode))?;
            }
        }
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.0.values().map(item_size).sum()
    }

    /// (identity, size) of every item: equal items are shared by the trees that have them.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|pair| {
            let mut hasher = DefaultHasher::new();
            pair.hash(&mut hasher);
            (hasher.finish(), item_size(pair.1))
        })
    }

    /// What leads from `base` to this tree.
    pub(super) fn since(&self, base: &Self) -> Vec<Change> {
        let gone = base.0.keys().filter(|path| !self.0.contains_key(*path));
        let removed = gone.map(|path| Change { path: path.clone(), item: None });
        let new = self.0.iter().filter(|(path, item)| base.0.get(*path) != Some(*item));
        removed
            .chain(new.map(|(path, item)| Change { path: path.clone(), item: Some(item.clone()) }))
            .collect()
    }

    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change.item {
                Some(item) => self.0.insert(change.path, item),
                None => self.0.remove(&change.path),
            };
        }
    }
}

fn item_size(item: &Item) -> u64 {
    let data = if let Item::File { data, .. } = item { data.len() as u64 } else { 0 };
    ITEM_BYTES + data
}

fn collect(root: &Path, below: &Path, items: &mut BTreeMap<PathBuf, Item>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let meta = entry.metadata()?;
        if entry.file_name().as_bytes().starts_with(UNDER.as_bytes()) {
            continue;
        }
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            items.insert(path.clone(), Item::Dir { mode });
            collect(root, &path, items)?;
        } else if meta.is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            // Another dataset of the fake, mounted inside of this one: not this one's content.
            if root.parent().is_none_or(|data| !target.starts_with(data)) {
                items.insert(path, Item::Link { target });
            }
        } else if meta.is_file() {
            items.insert(path, Item::File { mode, data: std::fs::read(entry.path())? });
        }
    }
    Ok(())
}

/// One record of a stream: an item that is new or other than before, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    path: PathBuf,
    item: Option<Item>,
}

/// Writes changes as records: kind, mode, path length, data length (little endian), path, data.
pub(super) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    for Change { path, item } in changes {
        let (kind, mode, data): (u8, u32, &[u8]) = match item {
            None => (0, 0, &[]),
            Some(Item::Dir { mode }) => (1, *mode, &[]),
            Some(Item::File { mode, data }) => (2, *mode, data),
            Some(Item::Link { target }) => (3, 0, target.as_os_str().as_bytes()),
        };
        let path = path.as_os_str().as_bytes();
        out.push(kind);
        out.extend(mode.to_le_bytes());
        out.extend((path.len() as u64).to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        out.extend(path);
        out.extend(data);
    }
    out
}

/// Reads records back; None when they are not what `encode` writes.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let (kind, rest) = bytes.split_first()?;
        let (mode, rest) = rest.split_first_chunk::<4>()?;
        let (path_length, rest) = rest.split_first_chunk::<8>()?;
        let (data_length, rest) = rest.split_first_chunk::<8>()?;
        let (path, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*path_length)).ok()?)?;
        let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*data_length)).ok()?)?;
        let mode = u32::from_le_bytes(*mode);
        let item = match kind {
            0 => None,
            1 => Some(Item::Dir { mode }),
            2 => Some(Item::File { mode, data: data.to_vec() }),
            3 => Some(Item::Link { target: std::ffi::OsString::from_vec(data.to_vec()).into() }),
            _ => return None,
        };
        changes.push(Change { path: std::ffi::OsString::from_vec(path.to_vec()).into(), item });
        bytes = rest;
    }
    Some(changes)
}
