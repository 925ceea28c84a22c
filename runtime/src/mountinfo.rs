//! `/proc/<pid>/mountinfo`: which file system a path is on (proc_pid_mountinfo(5)).

use std::io;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u64,
    /// Path inside the file system that is mounted here; `/` unless it is a bind of something below.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
    /// Device, dataset or other source.
    pub source: String,
    /// Options of the file system, e.g. `upperdir=` of an overlay.
    pub options: String,
}

impl Mount {
    /// The value of one option of the file system.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

/// All mounts of a mount namespace, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// The mounts that this process sees.
    pub fn own() -> io::Result<Self> {
        Self::read(Path::new("/proc/self/mountinfo"))
    }

    /// The mounts that another process sees.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::read(Path::new(&format!("/proc/{pid}/mountinfo")))
    }

    /// From a file of that form.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&std::fs::read(path)?)))
    }

    /// Parses the file's text; lines that are none are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_line).collect())
    }

    /// All mounts.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount that is on top at exactly this (canonical) path.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == path)
    }

    /// The mount that holds this (canonical) path.
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|ancestor| self.at(ancestor))
    }
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let root = left.nth(2)?;
    let point = left.next()?;
    let mut right = right.split(' ');
    Some(Mount {
        id,
        root: unescape(root).into(),
        point: unescape(point).into(),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
        options: unescape(right.next().unwrap_or_default()),
    })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) => {
                bytes.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 21 0:40 / /run/c/rootfs rw,relatime shared:7 master:2 - zfs tank/snaps/13 rw,xattr,noacl
31 21 0:41 / /run/o/rootfs rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/var/u/fs,workdir=/var/u/work
32 21 0:40 /sub /srv/with\\040space rw - zfs tank/snaps/13 rw
33 21 0:42 / /run/c/rootfs ro - tmpfs tmpfs rw
broken line
";

    #[test]
    fn the_mount_on_top_holds_the_path() {
        let table = MountTable::parse(TEXT);
        assert_eq!(table.iter().count(), 5);
        assert_eq!(table.at(Path::new("/run/c/rootfs")).map(|m| m.kind.as_str()), Some("tmpfs"));
        assert_eq!(table.holding(Path::new("/run/o/rootfs/etc")).map(|m| m.kind.as_str()), Some("overlay"));
        assert_eq!(table.holding(Path::new("/run/other")).map(|m| m.kind.as_str()), Some("ext4"));
        assert_eq!(table.at(Path::new("/run/other")), None);
    }

    #[test]
    fn escapes_and_options_are_read() {
        let table = MountTable::parse(TEXT);
        let bind = table.at(Path::new("/srv/with space")).expect("there");
        assert_eq!((bind.root.as_path(), bind.source.as_str()), (Path::new("/sub"), "tank/snaps/13"));
        let overlay = table.at(Path::new("/run/o/rootfs")).expect("there");
        assert_eq!((overlay.option("upperdir"), overlay.option("upper")), (Some("/var/u/fs"), None));
    }

    #[test]
    fn this_process_sees_a_root() {
        let table = MountTable::own().expect("readable");
        assert!(table.holding(Path::new("/nonexistent/path")).is_some());
    }
}
