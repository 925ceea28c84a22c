mod links;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use cryopod_command::Limits;
use proptest::prelude::*;

use super::walk::Measured;
use super::write::Existing;
use super::*;
use crate::sys;

/// A tree with one of everything that the test machine lets us make.
fn sample(root: &Path) {
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0").unwrap();
    fs::set_permissions(root.join("etc/passwd"), fs::Permissions::from_mode(0o4640)).unwrap();
    fs::write(root.join("etc/deep/empty"), "").unwrap();
    symlink("/etc/shadow", root.join("etc/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("etc/passwd"), root.join("etc/deep/second-name")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (4 << 20) - 3).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
    drop(socket);
    whiteout(&root.join("etc/deleted"));
    let path = std::ffi::CString::new(root.join("etc/passwd").to_str().unwrap()).unwrap();
    sys::set_xattr(&path, c"user.note", b"hello\0there").unwrap();
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o1711)).unwrap();
    let old = nix::sys::time::TimeSpec::new(1_000_000_000, 123_456_789);
    for (name, flag) in [
        ("etc/passwd", nix::sys::stat::UtimensatFlags::FollowSymlink),
        ("etc/link", nix::sys::stat::UtimensatFlags::NoFollowSymlink),
        ("etc", nix::sys::stat::UtimensatFlags::FollowSymlink),
    ] {
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &root.join(name), &old, &old, flag).unwrap();
    }
}

fn whiteout(path: &Path) {
    nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
        .expect("a whiteout can be made (needs root, or Linux 5.8)");
}

fn digest(root: &Path) -> crate::digest::Sha256 {
    codec::digest(root, &Limits::none()).unwrap().0
}

fn dirs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    (dir, a, b)
}

#[test]
fn a_copy_is_the_same_tree_in_everything_that_counts() {
    let (_dir, a, b) = dirs();
    sample(&a);
    let copied = copy(&a, &b, Existing::Refuse, u64::MAX, &Limits::none()).unwrap();
    assert_eq!(digest(&a), digest(&b));
    assert_eq!(copied.entries, 12);
    let (one, two) =
        (fs::metadata(b.join("etc/passwd")).unwrap(), fs::metadata(b.join("etc/deep/second-name")).unwrap());
    assert_eq!((one.ino(), one.nlink(), one.mode() & 0o7777), (two.ino(), 2, 0o4640));
    assert_eq!((one.mtime(), one.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(fs::metadata(b.join("etc")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::symlink_metadata(b.join("etc/link")).unwrap().mtime(), 1_000_000_000);
    let path = std::ffi::CString::new(b.join("etc/passwd").to_str().unwrap()).unwrap();
    assert_eq!(sys::get_xattr(&path, c"user.note").unwrap(), b"hello\0there");
    let sparse = fs::metadata(b.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 4 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "the hole was filled: {} blocks", sparse.blocks());
    let whiteout = fs::symlink_metadata(b.join("etc/deleted")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
}

#[test]
fn a_hash_sees_every_kind_of_change() {
    let (_dir, a, _) = dirs();
    sample(&a);
    let mut seen = vec![digest(&a)];
    let mut changed = |what: &str| {
        let now = digest(&a);
        assert!(!seen.contains(&now), "{what} was not seen");
        seen.push(now);
    };
    fs::write(a.join("etc/deep/empty"), "x").unwrap();
    changed("contents");
    fs::set_permissions(a.join("etc/deep/empty"), fs::Permissions::from_mode(0o600)).unwrap();
    changed("mode");
    std::os::unix::fs::chown(a.join("etc/deep/empty"), Some(1234), None).unwrap();
    changed("owner");
    fs::rename(a.join("etc/deep/empty"), a.join("etc/deep/other")).unwrap();
    changed("name");
    fs::remove_file(a.join("etc/deleted")).unwrap();
    changed("whiteout");
    let path = std::ffi::CString::new(a.join("etc").to_str().unwrap()).unwrap();
    sys::set_xattr(&path, c"user.x", b"").unwrap();
    changed("attribute");
}

#[test]
fn a_hash_does_not_depend_on_where_the_holes_are() {
    let (_dir, a, b) = dirs();
    let sparse = fs::File::create(a.join("f")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    fs::write(b.join("f"), vec![0; 1 << 20]).unwrap();
    let old = nix::sys::time::TimeSpec::new(1, 0);
    for path in [a.join("f"), b.join("f"), a.clone(), b.clone()] {
        let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &old, &old, follow).unwrap();
    }
    assert_eq!(digest(&a), digest(&b));
}

#[test]
fn a_bound_holds_before_and_while_copying() {
    let (_dir, a, b) = dirs();
    fs::write(a.join("f"), vec![1; 100_000]).unwrap();
    assert!(matches!(measure(&a, 50_000, &Limits::none()), Err(TreeError::TooLarge { limit: 50_000, .. })));
    assert_eq!(measure(&a, 1 << 20, &Limits::none()).unwrap(), Measured { bytes: 100_000, entries: 2 });
    let error = copy(&a, &b, Existing::Refuse, 50_000, &Limits::none()).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
}

#[test]
fn a_cancelled_copy_stops() {
    let (_dir, a, b) = dirs();
    sample(&a);
    let cancel = cryopod_command::Cancel::new();
    cancel.cancel();
    let limits = Limits::none().with_cancel(cancel);
    assert!(matches!(copy(&a, &b, Existing::Refuse, u64::MAX, &limits), Err(TreeError::Stopped(_))));
}

#[test]
fn clearing_removes_everything_below_and_nothing_behind_links() {
    let (_dir, a, b) = dirs();
    sample(&a);
    fs::write(b.join("keep"), "").unwrap();
    symlink(&b, a.join("out")).unwrap();
    clear(&a).unwrap();
    assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
    assert!(b.join("keep").exists());
}

#[test]
fn a_layer_is_laid_over_a_root_as_overlayfs_shows_it() {
    let (dir, layer, root) = dirs();
    for name in ["etc/a", "etc/deleted", "gone/x", "opaque/old", "type"] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "image").unwrap();
    }
    fs::create_dir_all(layer.join("etc")).unwrap();
    fs::create_dir_all(layer.join("opaque")).unwrap();
    fs::create_dir_all(layer.join("type")).unwrap();
    fs::write(layer.join("etc/a"), "changed").unwrap();
    fs::write(layer.join("opaque/new"), "new").unwrap();
    whiteout(&layer.join("etc/deleted"));
    whiteout(&layer.join("gone"));
    whiteout(&layer.join("never-was"));
    let path = std::ffi::CString::new(layer.join("opaque").to_str().unwrap()).unwrap();
    sys::set_xattr(&path, c"trusted.overlay.opaque", b"y").expect("trusted attributes (needs root)");
    apply_layer(&layer, &root, &Limits::none()).unwrap();
    let mut found: Vec<String> = Vec::new();
    for top in ["", "etc", "opaque", "type"] {
        for entry in fs::read_dir(root.join(top)).unwrap() {
            found.push(entry.unwrap().path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ["etc", "etc/a", "opaque", "opaque/new", "type"]);
    assert_eq!(fs::read(root.join("etc/a")).unwrap(), b"changed");
    let path = std::ffi::CString::new(root.join("opaque").to_str().unwrap()).unwrap();
    assert!(sys::get_xattr(&path, c"trusted.overlay.opaque").is_err());
    sys::set_xattr(&path, c"trusted.overlay.redirect", b"/x").unwrap();
    let other = dir.path().join("c");
    fs::create_dir(&other).unwrap();
    assert!(matches!(apply_layer(&root, &other, &Limits::none()), Err(TreeError::Redirect { .. })));
}

#[test]
fn a_tree_survives_encoding_and_decoding() {
    let (_dir, a, b) = dirs();
    sample(&a);
    let mut encoded = Vec::new();
    let wrote = codec::encode(&a, &mut encoded, &Limits::none()).unwrap();
    let read = codec::decode(&encoded[..], &b, u64::MAX, &Limits::none()).unwrap();
    assert_eq!((wrote.entries, wrote.bytes), (read.entries, read.bytes));
    assert_eq!(digest(&a), digest(&b));
}

fn hostile(entry: &Entry) -> Vec<u8> {
    let root = Entry {
        path: vec![],
        kind: EntryKind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: vec![],
    };
    let mut bytes = Vec::new();
    for entry in [&root, entry] {
        let tag = match entry.kind {
            EntryKind::Dir => b'd',
            EntryKind::Hardlink { .. } => b'h',
            EntryKind::Symlink { .. } => b'l',
            _ => b'p',
        };
        bytes.push(tag);
        bytes.extend_from_slice(&u16::try_from(entry.path.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&entry.path);
        bytes.extend_from_slice(&[0; 4 * 3 + 8 + 4 + 2]);
        if let EntryKind::Hardlink { first: path } | EntryKind::Symlink { target: path } = &entry.kind {
            bytes.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(path);
        }
    }
    bytes.push(b'E');
    bytes
}

#[test]
fn a_stream_cannot_reach_outside_of_its_tree() {
    let entry = |path: &str, kind| Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: vec![],
    };
    let link = |first: &str| EntryKind::Hardlink { first: first.as_bytes().to_vec() };
    for bad in [
        entry("../x", EntryKind::Fifo),
        entry("/x", EntryKind::Fifo),
        entry("x/../y", EntryKind::Fifo),
        entry("..", EntryKind::Dir),
        entry(".", EntryKind::Dir),
        entry("x//y", EntryKind::Fifo),
        entry("missing/y", EntryKind::Fifo),
        entry("x\0y", EntryKind::Fifo),
        entry("x", link("../../etc/passwd")),
        entry("x", link("/etc/passwd")),
        entry("x", link("x")),
        entry("x", link("")),
        entry("x", EntryKind::Symlink { target: vec![] }),
        entry("", EntryKind::Dir),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let error = codec::decode(&hostile(&bad)[..], &root, 1 << 20, &Limits::none()).unwrap_err();
        assert!(matches!(error, TreeError::Encoding(_)), "{bad:?}: {error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_symlink_of_the_stream_is_never_followed() {
    let (_dir, a, b) = dirs();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), a.join("x")).unwrap();
    let mut encoded = Vec::new();
    codec::encode(&a, &mut encoded, &Limits::none()).unwrap();
    encoded.pop();
    // The same name once more, as a directory with a file in it.
    for (tag, path) in [(b'd', "x"), (b'p', "x/y")] {
        encoded.push(tag);
        encoded.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
        encoded.extend_from_slice(path.as_bytes());
        encoded.extend_from_slice(&[0; 4 * 3 + 8 + 4 + 2]);
    }
    encoded.push(b'E');
    assert!(codec::decode(&encoded[..], &b, 1 << 20, &Limits::none()).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_truncated_encoding_is_refused(at in any::<prop::sample::Index>()) {
        let (_dir, a, b) = dirs();
        fs::write(a.join("f"), "hello").unwrap();
        symlink("x", a.join("l")).unwrap();
        let mut encoded = Vec::new();
        codec::encode(&a, &mut encoded, &Limits::none()).unwrap();
        let cut = at.index(encoded.len());
        prop_assert!(codec::decode(&encoded[..cut], &b, 1 << 20, &Limits::none()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_leave_the_tree(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        codec::decode(&bytes[..], &root, 1 << 20, &Limits::none()).ok();
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

/// Runs in a mount namespace of its own, in which `source` is mounted at `target`; false where that is not allowed.
fn with_bind_mount(source: &Path, target: &Path, test: impl FnOnce() + Send) -> bool {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
                return false;
            }
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some(source), target, none, MsFlags::MS_BIND, none).unwrap();
            test();
            true
        });
        ran.join().unwrap()
    })
}

#[test]
fn nothing_is_cleared_where_something_is_mounted_below() {
    // Every Linux has mounts there, and this one only looks.
    let error = refuse_mounts(Path::new("/dev")).unwrap_err();
    assert!(matches!(&error, TreeError::Mounted { path } if path.starts_with("/dev")), "{error}");

    let (dir, a, b) = dirs();
    sample(&a);
    refuse_mounts(&a).unwrap();
    let before = digest(&a.join("etc"));
    fs::write(b.join("data"), "of another file system").unwrap();
    fs::write(dir.path().join("file"), "too").unwrap();
    fs::create_dir_all(a.join("z/db")).unwrap();
    fs::write(a.join("z/conf"), "").unwrap();
    for (source, point) in [(b.clone(), a.join("z/db")), (dir.path().join("file"), a.join("z/conf"))] {
        let ran = with_bind_mount(&source, &point, || {
            let error = clear(&a).unwrap_err();
            assert!(matches!(&error, TreeError::Mounted { path } if *path == point), "{error}");
            // What has no first pass stops there all the same.
            let root = walk::open_root(&a).unwrap();
            walk::remove_at(&root, c"z", &a.join("z"), 0).unwrap_err();
        });
        if ran {
            assert!(source.exists() && b.join("data").exists(), "{} was emptied", source.display());
        } else {
            clear(&a.join("z")).unwrap();
        }
        fs::create_dir_all(a.join("z/db")).unwrap();
        fs::write(a.join("z/conf"), "").unwrap();
    }
    assert_eq!(digest(&a.join("etc")), before, "something was removed beside the mount");
}
