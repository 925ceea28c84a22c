//! Things with several names: files and all else that link(2) takes, and whiteouts, for which they mean nothing.

use super::*;

/// Whether two names are those of one inode.
fn same(root: &Path, one: &str, two: &str) -> bool {
    let of = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    (of(one).dev(), of(one).ino()) == (of(two).dev(), of(two).ino())
}

/// Copied and sent, and each time the same tree again.
fn carried(a: &Path, b: &Path, c: &Path) {
    copy(a, b, Existing::Refuse, u64::MAX, &Limits::none()).unwrap();
    let mut encoded = Vec::new();
    codec::encode(b, &mut encoded, &Limits::none()).unwrap();
    codec::decode(&encoded[..], c, u64::MAX, &Limits::none()).unwrap();
    for to in [b, c] {
        assert_eq!(digest(a), digest(to), "{}", to.display());
    }
}

#[test]
fn a_second_name_is_one_of_the_same_thing_whatever_that_is() {
    let (dir, a, b) = dirs();
    let c = dir.path().join("c");
    fs::create_dir(&c).unwrap();
    fs::create_dir(a.join("z")).unwrap();
    fs::write(a.join("file"), "x").unwrap();
    symlink("/outside", a.join("link")).unwrap();
    nix::unistd::mkfifo(&a.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    drop(std::os::unix::net::UnixListener::bind(a.join("sock")).unwrap());
    let kinds = ["file", "link", "fifo", "sock"];
    for name in kinds {
        fs::hard_link(a.join(name), a.join("z").join(name)).unwrap();
    }
    carried(&a, &b, &c);
    for root in [&b, &c] {
        for name in kinds {
            assert!(same(root, name, &format!("z/{name}")), "{name} of {}", root.display());
        }
        assert_eq!(fs::read_link(root.join("z/link")).unwrap(), Path::new("/outside"));
    }
    // Over a root that has something else under these names.
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("z/link")).unwrap();
    fs::write(root.join("fifo"), "image").unwrap();
    apply_layer(&a, &root, &Limits::none()).unwrap();
    for name in kinds {
        assert!(same(&root, name, &format!("z/{name}")), "{name}");
    }
}

#[test]
fn a_device_with_two_names_is_one_device() {
    let (dir, a, b) = dirs();
    let c = dir.path().join("c");
    fs::create_dir(&c).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&a.join("null"), kind, nix::sys::stat::Mode::empty(), null)
        .expect("a device can be made (needs root)");
    fs::hard_link(a.join("null"), a.join("zero")).unwrap();
    carried(&a, &b, &c);
    assert!(same(&b, "null", "zero") && same(&c, "null", "zero"));
    assert_eq!(fs::symlink_metadata(c.join("zero")).unwrap().rdev(), null);
}

/// `rm` of two files of an image, as overlayfs notes it since Linux 5.8.
#[test]
fn whiteouts_that_share_an_inode_are_all_whiteouts() {
    let (dir, layer, copied) = dirs();
    let (sent, root) = (dir.path().join("sent"), dir.path().join("root"));
    fs::create_dir_all(&sent).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir(layer.join("etc")).unwrap();
    whiteout(&layer.join("a"));
    fs::hard_link(layer.join("a"), layer.join("etc/b")).unwrap();
    // The other form, for layers that were made without a right to devices.
    fs::write(layer.join("etc/c"), "").unwrap();
    let path = std::ffi::CString::new(layer.join("etc/c").to_str().unwrap()).unwrap();
    sys::set_xattr(&path, c"user.overlay.whiteout", b"y").unwrap();
    fs::hard_link(layer.join("etc/c"), layer.join("etc/d")).unwrap();
    let names = ["a", "etc/b", "etc/c", "etc/d"];
    carried(&layer, &copied, &sent);
    for whiteout in &names[..2] {
        let found = fs::symlink_metadata(sent.join(whiteout)).unwrap();
        assert_eq!((found.mode() & 0o170_000, found.rdev()), (0o020_000, 0), "{whiteout}");
    }
    for name in names.iter().chain(&["etc/kept"]) {
        fs::write(root.join(name), "image").unwrap();
    }
    apply_layer(&layer, &root, &Limits::none()).unwrap();
    for name in names {
        assert!(!root.join(name).exists(), "{name} was deleted in the container");
    }
    assert!(root.join("etc/kept").exists());
}
