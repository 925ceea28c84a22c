use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path as FsPath;

use super::*;
use crate::bounds::Bounds;
use crate::testing::{Archive, Head, gzip, zstd};

fn apply_to(root: &FsPath, blob: &[u8]) -> Result<(), LayerError> {
    let mut budget = Budget::new(Bounds::default());
    apply(Box::new(blob), Expected::default(), root, &mut budget, &Limits::none()).map(drop)
}

fn unpacked(layers: &[Vec<u8>]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for layer in layers {
        apply_to(root.path(), layer).unwrap();
    }
    root
}

/// A layer over `below` is refused for `reason`, with the entry named; what lies outside is as it was.
fn refused(below: Archive, layer: Archive, entry: &str, reason: Refusal) {
    let world = tempfile::tempdir().unwrap();
    let root = world.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(world.path().join("secret"), "secret").unwrap();
    apply_to(&root, &below.finish()).unwrap();
    match apply_to(&root, &layer.finish()) {
        Err(LayerError::Refused { entry: named, reason: found }) => {
            assert_eq!((named.as_str(), found), (entry, reason));
        }
        other => panic!("{entry} should be refused ({reason}): {other:?}"),
    }
    assert_eq!(fs::read(world.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(world.path()).unwrap().count(), 2);
}

#[test]
fn paths_out_of_the_root_are_refused() {
    refused(Archive::new(), Archive::new().file("/etc/passwd", b"x"), "/etc/passwd", Refusal::Absolute);
    refused(Archive::new(), Archive::new().file("a/../../secret", b"x"), "a/../../secret", Refusal::Climbs);
    refused(Archive::new(), Archive::new().file(".wh...", b""), ".wh...", Refusal::Whiteout);
    refused(Archive::new(), Archive::new().file("./", b"x").symlink(".", "/"), ".", Refusal::Root);
}

#[test]
fn links_that_climb_out_are_refused_in_every_part_of_a_path() {
    let climbing = || Archive::new().symlink("out", "..").dir("a").symlink("a/b", "../../..");
    refused(climbing(), Archive::new().file("out/secret", b"x"), "out/secret", Refusal::LinkClimbs);
    refused(climbing(), Archive::new().file("a/b/c/secret", b"x"), "a/b/c/secret", Refusal::LinkClimbs);
    refused(climbing(), Archive::new().file("out/.wh.secret", b""), "out/.wh.secret", Refusal::LinkClimbs);
    refused(
        climbing(),
        Archive::new().file("a/b/.wh..wh..opq", b""),
        "a/b/.wh..wh..opq",
        Refusal::LinkClimbs,
    );
    refused(climbing(), Archive::new().link("x", "out/secret"), "x", Refusal::LinkOut);
    refused(climbing(), Archive::new().link("x", "../secret"), "x", Refusal::LinkOut);
    refused(climbing(), Archive::new().link("x", "/etc/passwd"), "x", Refusal::LinkOut);
    refused(climbing(), Archive::new().link("x", "a"), "x", Refusal::LinkDirectory);
    refused(climbing(), Archive::new().link("x", "nothing"), "x", Refusal::LinkNowhere);
    let circle = Archive::new().symlink("p", "q").symlink("q", "p");
    refused(circle, Archive::new().file("p/x", b""), "p/x", Refusal::LinkLoop);
    let file = Archive::new().file("f", b"");
    refused(file, Archive::new().file("f/x", b""), "f/x", Refusal::NotADirectory);
}

#[test]
fn a_last_link_is_replaced_and_never_written_through() {
    let world = tempfile::tempdir().unwrap();
    let (root, outside) = (world.path().join("root"), world.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::write(&outside, "before").unwrap();
    apply_to(&root, &Archive::new().symlink("x", outside.to_str().unwrap()).symlink("d", "/").finish())
        .unwrap();
    let layer = Archive::new().file("x", b"after").dir("d").file("d/y", b"");
    apply_to(&root, &layer.finish()).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"before");
    assert_eq!(fs::read(root.join("x")).unwrap(), b"after");
    assert!(root.join("d").symlink_metadata().unwrap().is_dir());
}

#[test]
fn links_within_the_root_are_followed_as_the_container_would() {
    let lower = Archive::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .dir("var")
        .symlink("var/run", "/run")
        .dir("run");
    let upper = Archive::new().file("lib/a", b"a").file("var/run/b", b"b").file("lib/new/c", b"c");
    let root = unpacked(&[lower.finish(), upper.finish()]);
    for (path, text) in [("usr/lib/a", "a"), ("run/b", "b"), ("usr/lib/new/c", "c")] {
        assert_eq!(fs::read_to_string(root.path().join(path)).unwrap(), text);
    }
    assert!(root.path().join("lib").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn whiteouts_are_about_lower_layers_alone_wherever_they_stand() {
    let lower = Archive::new()
        .dir("d")
        .file("d/old", b"")
        .file("d/both", b"old")
        .dir("gone/deep")
        .file("gone/deep/x", b"");
    let lower = lower.file("file", b"").finish();
    let first = Archive::new().file("d/.wh..wh..opq", b"").dir("d").file("d/both", b"new").file("d/own", b"");
    let first = first.file(".wh.gone", b"").file(".wh.file", b"").finish();
    let last = Archive::new().dir("d").file("d/both", b"new").file("d/own", b"").file("d/.wh..wh..opq", b"");
    let last = last.file(".wh.gone", b"").file(".wh.file", b"").file(".wh.absent", b"").finish();
    for upper in [first, last] {
        let root = unpacked(&[lower.clone(), upper]);
        let mut names: Vec<_> =
            fs::read_dir(root.path().join("d")).unwrap().map(|item| item.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["both", "own"]);
        assert_eq!(fs::read(root.path().join("d/both")).unwrap(), b"new");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_whiteout_of_a_name_that_the_layer_makes_anew_leaves_the_new_one() {
    let lower = Archive::new().dir("d").file("d/old", b"").finish();
    let upper = Archive::new().file("d/new", b"").file(".wh.d", b"").finish();
    let root = unpacked(&[lower, upper]);
    let names: Vec<_> =
        fs::read_dir(root.path().join("d")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);
}

#[test]
fn everything_that_a_root_file_system_has_is_made() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Archive::new()
        .entry(&Head { mode: 0o1777, owner: (7, 8), ..Head::new("d", b'5') }, b"")
        .entry(&Head { mode: 0o6755, owner: (1000, 100_000), mtime: 77, ..Head::new("d/f", b'0') }, b"text")
        .link("d/g", "d/f")
        .entry(&Head { link: "f", owner: (5, 6), ..Head::new("d/l", b'2') }, b"")
        .entry(&Head { mode: 0o600, device: (1, 3), ..Head::new("null", b'3') }, b"")
        .entry(&Head { mode: 0o640, device: (7, 0), ..Head::new("loop", b'4') }, b"")
        .entry(&Head { mode: 0o622, ..Head::new("pipe", b'6') }, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1700000000.25"),
            ("uid", b"70000"),
        ])
        .file("ping", b"#!")
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("e")
        .finish();
    let root = unpacked(&[zstd(&layer)]);
    let meta = |path: &str| root.path().join(path).symlink_metadata().unwrap();
    assert_eq!((meta("d").mode() & 0o7777, meta("d").uid(), meta("d").gid()), (0o1777, 7, 8));
    assert_eq!((meta("d").mtime(), meta("d/f").mtime()), (1_000_000, 77));
    assert_eq!((meta("d/f").mode() & 0o7777, meta("d/f").uid(), meta("d/f").gid()), (0o6755, 1000, 100_000));
    assert_eq!((meta("d/g").ino(), meta("d/g").nlink()), (meta("d/f").ino(), 2));
    assert_eq!((meta("d/l").uid(), meta("d/l").gid(), meta("d/l").mtime()), (5, 6, 1_000_000));
    assert!(meta("null").file_type().is_char_device() && meta("loop").file_type().is_block_device());
    assert_eq!((meta("null").rdev(), meta("loop").rdev()), (0x103, 0x700));
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(meta("pipe").permissions().mode() & 0o7777, 0o622);
    assert_eq!(
        (meta("ping").mtime(), meta("ping").mtime_nsec(), meta("ping").uid()),
        (1_700_000_000, 250_000_000, 70_000)
    );
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(root.path().join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    assert!(rustix::fs::lgetxattr(root.path().join("e"), "trusted.overlay.opaque", &mut value).is_err());
}

#[test]
fn directories_that_a_layer_does_not_describe_keep_their_time() {
    let lower = Archive::new().dir("a").dir("a/b").file("a/b/x", b"").finish();
    let upper = Archive::new().file("a/b/new", b"").file("a/b/.wh.x", b"").file("p/q/r", b"").finish();
    let root = unpacked(&[lower, upper]);
    let time = |path: &str| root.path().join(path).metadata().unwrap().mtime();
    assert_eq!((time("a"), time("a/b"), time("p"), time("p/q")), (1_000_000, 1_000_000, 0, 0));
}

#[test]
fn sparse_files_have_their_holes_in_every_format() {
    let mut gnu = Head::new("gnu", b'S');
    gnu.mode = 0o600;
    let mut block = crate::testing::header(&gnu, 8);
    block[386..398].copy_from_slice(b"00004000000\0");
    block[398..410].copy_from_slice(b"00000000010\0");
    block[483..495].copy_from_slice(b"00010000000\0");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut data = [0; 512];
    data[..8].copy_from_slice(b"12345678");
    let mut map = b"1\n1048576\n8\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"12345678");
    let layer = Archive::new()
        .raw(&block)
        .raw(&data)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax1"),
            ("GNU.sparse.realsize", b"2097152"),
        ])
        .file("GNUSparseFile.1/pax1", &map)
        .pax(&[
            ("GNU.sparse.size", b"2097152"),
            ("GNU.sparse.map", b"1048576,8"),
            ("GNU.sparse.name", b"pax01"),
        ])
        .file("x", b"12345678")
        .finish();
    let root = unpacked(&[layer]);
    for name in ["gnu", "pax1", "pax01"] {
        let contents = fs::read(root.path().join(name)).unwrap();
        assert_eq!(contents.len(), 2 << 20, "{name}");
        assert_eq!(&contents[1 << 20..(1 << 20) + 8], b"12345678", "{name}");
        assert!(contents[..1 << 20].iter().all(|byte| *byte == 0), "{name}");
        assert!(root.path().join(name).metadata().unwrap().blocks() < 1024, "{name}");
    }
}

#[test]
fn bombs_and_damaged_streams_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let limited = |blob: &[u8], bounds: Bounds| {
        let mut budget = Budget::new(bounds);
        apply(Box::new(blob), Expected::default(), root.path(), &mut budget, &Limits::none()).map(drop)
    };
    let layer = Archive::new().file("zeros", &vec![0; 1 << 20]).finish();
    let small = Bounds { unpacked: 1 << 19, ..Bounds::default() };
    for blob in [layer.clone(), gzip(&layer), zstd(&layer)] {
        let error = limited(&blob, small).unwrap_err();
        assert!(
            matches!(error, LayerError::Stream(StreamError::TooMuch(TooMuch::Unpacked { .. }))),
            "{error}"
        );
    }
    let many = Archive::new().file("a", b"").file("b", b"").finish();
    let error = limited(&many, Bounds { entries: 1, ..Bounds::default() }).unwrap_err();
    assert_eq!(error.to_string(), "at entry b: it has more than 1 entries");
    let hole = Archive::new()
        .pax(&[("GNU.sparse.size", b"99999999999"), ("GNU.sparse.map", b"")])
        .file("h", b"")
        .finish();
    assert!(matches!(limited(&hole, small), Err(LayerError::TooMuch { .. })));

    let good = gzip(&layer);
    let is_damaged = |blob: &[u8]| match limited(blob, Bounds::default()) {
        Err(LayerError::Stream(StreamError::Compression(_) | StreamError::Trailing)) => true,
        other => panic!("{other:?}"),
    };
    assert!(is_damaged(&good[..good.len() - 4]) && is_damaged(&[&good[..], b"garbage"].concat()));
    let mut flipped = zstd(&many);
    flipped.truncate(flipped.len() - 3);
    assert!(is_damaged(&flipped));
    let error = limited(b"\xfd7zXZ\0", Bounds::default()).unwrap_err();
    assert!(error.to_string().contains("compressed with xz"), "{error}");
}

#[test]
fn a_layer_that_is_not_what_was_announced_is_refused() {
    let (root, layer) = (tempfile::tempdir().unwrap(), Archive::new().file("a", b"a").finish());
    let packed = gzip(&layer);
    let digest = crate::digest::Digest::of;
    let apply = |expected| {
        let mut budget = Budget::new(Bounds::default());
        apply(Box::new(&packed[..]), expected, root.path(), &mut budget, &Limits::none())
    };
    let right = Expected { digest: Some(digest(&packed)), diff_id: Some(digest(&layer)) };
    assert_eq!(apply(right).unwrap(), (digest(&packed), digest(&layer)));
    let error = apply(Expected { digest: Some(digest(b"")), ..right }).unwrap_err();
    assert!(matches!(error, LayerError::Stream(StreamError::Digest { .. })), "{error}");
    let error = apply(Expected { diff_id: Some(digest(b"")), ..right }).unwrap_err();
    assert!(matches!(error, LayerError::Stream(StreamError::DiffId { .. })), "{error}");
}

#[test]
fn what_gnu_tar_writes_is_read_in_all_of_its_formats() {
    let world = tempfile::tempdir().unwrap();
    let tree = world.path().join("tree");
    let long = "n".repeat(120);
    fs::create_dir_all(tree.join(&long)).unwrap();
    fs::write(tree.join(&long).join("file"), "contents").unwrap();
    std::os::unix::fs::symlink("t".repeat(150), tree.join("link")).unwrap();
    for format in ["gnu", "pax", "posix"] {
        let archive = world.path().join(format);
        let arguments = [
            &format!("--format={format}"),
            "-cf",
            archive.to_str().unwrap(),
            "-C",
            tree.to_str().unwrap(),
            ".",
        ];
        assert!(std::process::Command::new("tar").args(arguments).status().unwrap().success());
        let root = unpacked(&[fs::read(&archive).unwrap()]);
        assert_eq!(fs::read_to_string(root.path().join(&long).join("file")).unwrap(), "contents");
        assert_eq!(fs::read_link(root.path().join("link")).unwrap().as_os_str().len(), 150);
    }
}
