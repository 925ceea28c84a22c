//! Lays the writable layer of an overlay mount over another kind of root: what overlayfs would show, as files.
//!
//! Whiteouts (character device 0:0, or an empty file with the attribute `overlay.whiteout`) delete what is below them,
//! opaque directories hide it (Documentation/filesystems/overlayfs.rst). The overlay's own attributes are not
//! carried over. A layer restored into another overlay mount is copied as it is and never comes here.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cryopod_command::Limits;

use super::copy::next_data;
use super::walk::{Visitor, failed, walk};
use super::write::{Existing, Writer};
use super::{Copied, Entry, EntryKind, TreeError};

struct Layer<'a> {
    from: &'a Path,
    limits: &'a Limits,
    writer: Writer,
    /// Whiteouts by attribute, which may have several names like any file.
    whiteouts: HashSet<Vec<u8>>,
    copied: Copied,
}

/// Applies the layer at `layer` to the tree at `root`.
pub(crate) fn apply_layer(layer: &Path, root: &Path, limits: &Limits) -> Result<Copied, TreeError> {
    let mut visitor = Layer {
        from: layer,
        limits,
        writer: Writer::new(root, Existing::Merge),
        whiteouts: HashSet::new(),
        copied: Copied::default(),
    };
    walk(layer, limits, &mut visitor)?;
    let copied = visitor.copied;
    visitor.writer.finish()?;
    let target = File::open(root).map_err(TreeError::io("open", root))?;
    nix::unistd::syncfs(&target).map_err(|e| failed("sync", root, e))?;
    Ok(copied)
}

impl Visitor for Layer<'_> {
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError> {
        if self.is_whiteout(entry) {
            return self.writer.remove(&entry.path);
        }
        if overlay(entry, b"redirect").is_some() || overlay(entry, b"metacopy").is_some() {
            return Err(TreeError::Redirect {
                path: self.from.join(std::ffi::OsStr::from_bytes(&entry.path)),
            });
        }
        let opaque = overlay(entry, b"opaque") == Some(b"y");
        let mut plain = entry.clone();
        plain.xattrs.retain(|(name, _)| !is_overlay(name));
        let target = self.writer.add(&plain)?;
        self.copied.entries += 1;
        if opaque {
            self.writer.clear_last()?;
        }
        let (Some(target), Some(source), EntryKind::File { size }) = (target, file, &entry.kind) else {
            return Ok(());
        };
        self.data(source, &target, *size).map_err(TreeError::io("copy a file of", self.from))?;
        self.limits.check().map_err(TreeError::Stopped)?;
        self.writer.filled(&plain, &target)
    }
}

impl Layer<'_> {
    fn is_whiteout(&mut self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::Char { device } => *device == 0,
            EntryKind::File { size: 0 } if overlay(entry, b"whiteout").is_some() => {
                self.whiteouts.insert(entry.path.clone());
                true
            }
            EntryKind::Hardlink { first } => self.whiteouts.contains(first),
            _ => false,
        }
    }

    fn data(&mut self, source: &File, target: &File, size: u64) -> std::io::Result<()> {
        target.set_len(size)?;
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while let Some((start, end)) = next_data(source, at, size) {
            at = start;
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let got = source.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
                if got == 0 {
                    return Ok(());
                }
                target.write_all_at(buffer.get(..got).unwrap_or_default(), at)?;
                at += got as u64;
                self.copied.bytes += got as u64;
            }
        }
        Ok(())
    }
}

fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Value of an attribute of overlayfs, which are in `user.` where the mount was made without privileges.
fn overlay<'a>(entry: &'a Entry, key: &[u8]) -> Option<&'a [u8]> {
    entry.xattrs.iter().find_map(|(name, value)| {
        let own = name.strip_prefix(b"trusted.overlay.").or_else(|| name.strip_prefix(b"user.overlay."));
        (own == Some(key)).then_some(value.as_slice())
    })
}
