//! Who an image's process is: numbers as they stand, names by the image's own /etc/passwd and /etc/group, which are read
//! as a process in the container would find them and never through a link out of its root (passwd(5), group(5)).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Lists of users with more bytes are no lists of a container's users.
const MOST: u64 = 1 << 20;
/// More supplementary groups than Linux allows (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// A process's user and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Groups that name the user.
    pub groups: Vec<u32>,
}

/// Why nobody can be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A file of the image cannot be read.
    #[error("its {file} cannot be read: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such user.
    #[error("its user '{0}' is not in its /etc/passwd")]
    NoUser(String),
    /// No such group.
    #[error("its group '{0}' is not in its /etc/group")]
    NoGroup(String),
}

/// Resolves `USER[:GROUP]` in a root file system; empty is root.
pub fn resolve(root: &Path, text: &str) -> Result<Identity, UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // Numbers need no files, and images without any have none.
    if let (Ok(uid), Some(Ok(gid))) = (user.parse(), group.map(str::parse)) {
        return Ok(Identity { uid, gid, groups: Vec::new() });
    }
    let passwd = read(root, "etc/passwd", "/etc/passwd")?;
    let groups = read(root, "etc/group", "/etc/group")?;
    find(&passwd, &groups, user, group)
}

fn find(passwd: &str, groups: &str, user: &str, group: Option<&str>) -> Result<Identity, UserError> {
    // name:password:uid:gid:…
    let entry = passwd.lines().map(fields).find_map(|fields| {
        let (name, uid) = (*fields.first()?, fields.get(2)?.parse::<u32>().ok()?);
        let gid = fields.get(3)?.parse::<u32>().ok()?;
        (name == user || user.parse() == Ok(uid)).then_some((name, uid, gid))
    });
    let (name, uid, own) = match (entry, user.parse()) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Ok(uid)) => (None, uid, 0),
        (None, Err(_)) => return Err(UserError::NoUser(user.to_owned())),
    };
    // name:password:gid:member,member
    let known: Vec<(&str, u32, &str)> = groups
        .lines()
        .map(fields)
        .filter_map(|fields| {
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, *fields.get(3).unwrap_or(&"")))
        })
        .collect();
    let gid = match group {
        None => own,
        Some(group) => match known.iter().find(|(name, _, _)| *name == group) {
            Some((_, gid, _)) => *gid,
            None => group.parse().map_err(|_| UserError::NoGroup(group.to_owned()))?,
        },
    };
    let is_member = |members: &str| name.is_some_and(|name| members.split(',').any(|member| member == name));
    // A group that is named takes the place of all others.
    let others =
        known.iter().filter(|(_, other, members)| group.is_none() && *other != gid && is_member(members));
    Ok(Identity { uid, gid, groups: others.map(|(_, gid, _)| *gid).take(MAX_GROUPS).collect() })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

/// A file of the root, empty where there is none.
fn read(root: &Path, path: &str, file: &'static str) -> Result<String, UserError> {
    let failed = |source| UserError::Read { file, source };
    let dir = File::open(root).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(&dir, path, flags, Mode::empty(), how) {
        Ok(opened) => File::from(opened),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    // A pipe of that name would wait for ever.
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let mut bytes = Vec::new();
    opened.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:1000:100:Web:/home/web:/bin/sh\n# broken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nadm:x:4:web,other\nwww:x:33:other\n";

    #[test]
    fn names_and_numbers_are_found_with_their_groups() {
        let known = |user: &str, group: Option<&str>| {
            find(PASSWD, GROUP, user, group).map(|found| (found.uid, found.gid, found.groups)).unwrap()
        };
        assert_eq!(known("web", None), (1000, 100, vec![4]));
        assert_eq!(known("1000", None), (1000, 100, vec![4]));
        assert_eq!(known("web", Some("www")), (1000, 33, vec![]));
        assert_eq!(known("web", Some("7")), (1000, 7, vec![]));
        assert_eq!(known("4711", None), (4711, 0, vec![]));
        assert!(matches!(find(PASSWD, GROUP, "nobody", None), Err(UserError::NoUser(_))));
        assert!(matches!(find(PASSWD, GROUP, "web", Some("none")), Err(UserError::NoGroup(_))));
    }

    #[test]
    fn the_lists_of_the_host_are_never_read() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(world.path().join("passwd"), "evil:x:0:0:\n").unwrap();
        std::os::unix::fs::symlink("../../passwd", root.join("etc/passwd")).unwrap();
        assert!(matches!(resolve(&root, "evil"), Err(UserError::NoUser(_))));
        assert_eq!(resolve(&root, "5:6").unwrap(), Identity { uid: 5, gid: 6, groups: vec![] });
        assert_eq!(resolve(&root, "").unwrap(), Identity::default());
    }
}
