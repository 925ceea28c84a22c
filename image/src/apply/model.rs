//! Property: a layer that says how one tree became another turns the one into the other, whatever order its whiteouts
//! stand in and whether it uses opaque directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path as FsPath;

use cryopod_command::Limits;
use proptest::prelude::*;

use super::apply;
use crate::bounds::{Bounds, Budget};
use crate::stream::Expected;
use crate::testing::{Archive, Head, gzip, zstd};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir,
    File(u8),
    Link(String),
}

/// A node with mode, owner and time.
type Described = (Node, u32, u32, u64);
type Tree = BTreeMap<String, Described>;

/// Where a layer has its whiteouts.
#[derive(Debug, Clone, Copy)]
enum Order {
    First,
    Last,
    Between,
}

fn trees() -> impl Strategy<Value = Tree> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let node = prop_oneof![
        3 => Just(Node::Dir),
        4 => (0u8..4).prop_map(Node::File),
        1 => "[xyz]{1,3}".prop_map(|target| Node::Link(format!("/nowhere/{target}"))),
    ];
    let described = (node, prop::sample::select(vec![0o600, 0o644, 0o4755, 0o1777]), 0u32..3, 1u64..4);
    prop::collection::vec((path, described), 0..14).prop_map(|entries| {
        let mut tree = Tree::new();
        for (path, described) in entries {
            let above: Vec<String> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
            // What stands in a path already decides.
            if above.iter().any(|above| tree.get(above).is_some_and(|(node, ..)| *node != Node::Dir)) {
                continue;
            }
            for above in above {
                tree.entry(above).or_insert((Node::Dir, 0o755, 0, 1));
            }
            if !tree.keys().any(|known| known.starts_with(&format!("{path}/"))) || described.0 == Node::Dir {
                tree.insert(path, described);
            }
        }
        tree
    })
}

fn put(archive: Archive, path: &str, (node, mode, owner, mtime): &Described) -> Archive {
    let head = |kind| Head { mode: *mode, owner: (*owner, *owner), mtime: *mtime, ..Head::new(path, kind) };
    match node {
        Node::Dir => archive.entry(&head(b'5'), b""),
        Node::File(content) => archive.entry(&head(b'0'), &vec![*content; usize::from(*content) * 300]),
        Node::Link(target) => archive.entry(&Head { link: target, ..head(b'2') }, b""),
    }
}

fn marker(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/.wh.{name}"),
        None => format!(".wh.{path}"),
    }
}

/// The layer that turns `from` into `to`. Directories below which much is gone are made opaque where `opaque` says so.
fn layer(from: &Tree, to: &Tree, order: Order, opaque: bool) -> Vec<u8> {
    let is_dir = |tree: &Tree, path: &str| tree.get(path).is_some_and(|(node, ..)| *node == Node::Dir);
    let opaque_dirs: Vec<&String> = to
        .keys()
        .filter(|path| opaque && is_dir(from, path) && is_dir(to, path) && !path.contains('/'))
        .collect();
    let hidden = |path: &str| opaque_dirs.iter().any(|dir| path.starts_with(&format!("{dir}/")));
    let mut whiteouts: Vec<(String, String)> = Vec::new();
    for path in from.keys().filter(|path| !to.contains_key(*path) && !hidden(path)) {
        let above = path.rsplit_once('/').map(|(above, _)| above);
        // Gone with what is above it.
        if above.is_none_or(|above| is_dir(to, above)) {
            whiteouts.push((path.clone(), marker(path)));
        }
    }
    whiteouts.extend(opaque_dirs.iter().map(|dir| (format!("{dir}/!"), format!("{dir}/.wh..wh..opq"))));
    let changed = to.iter().filter(|(path, described)| from.get(*path) != Some(described) || hidden(path));
    let mut items: Vec<(String, Option<String>)> = changed.map(|(path, _)| (path.clone(), None)).collect();
    let whiteouts = whiteouts.into_iter().map(|(path, marker)| (path, Some(marker)));
    match order {
        Order::First => items = whiteouts.chain(items).collect(),
        Order::Last => items.extend(whiteouts),
        Order::Between => {
            items.extend(whiteouts);
            items.sort();
        }
    }
    let archive = items.iter().fold(Archive::new(), |archive, (path, marker)| match marker {
        Some(marker) => archive.file(marker, b""),
        None => put(archive, path, &to[path]),
    });
    archive.finish()
}

/// What is in a directory.
fn read(root: &FsPath, below: &str, tree: &mut Tree) {
    for item in fs::read_dir(root.join(below)).unwrap() {
        let item = item.unwrap();
        let name = item.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let meta = item.path().symlink_metadata().unwrap();
        let (node, mode) = if meta.is_symlink() {
            (Node::Link(fs::read_link(item.path()).unwrap().to_str().unwrap().to_owned()), None)
        } else if meta.is_dir() {
            (Node::Dir, Some(meta.mode() & 0o7777))
        } else {
            let content = fs::read(item.path()).unwrap();
            (Node::File(content.first().copied().unwrap_or(0)), Some(meta.mode() & 0o7777))
        };
        let is_dir = node == Node::Dir;
        tree.insert(
            path.clone(),
            (node, mode.unwrap_or(0), meta.uid(), u64::try_from(meta.mtime()).unwrap()),
        );
        if is_dir {
            read(root, &path, tree);
        }
    }
}

/// Links have no mode of their own.
fn comparable(tree: &Tree) -> Tree {
    let no_mode = |described: &Described| match described {
        (Node::Link(target), _, owner, mtime) => (Node::Link(target.clone()), 0, *owner, *mtime),
        other => other.clone(),
    };
    tree.iter().map(|(path, described)| (path.clone(), no_mode(described))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_between_two_trees_turns_the_one_into_the_other(
        from in trees(),
        to in trees(),
        order in prop::sample::select(vec![Order::First, Order::Last, Order::Between]),
        opaque in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut budget = Budget::new(Bounds::default());
        let lower = zstd(&layer(&Tree::new(), &from, Order::First, false));
        let upper = gzip(&layer(&from, &to, order, opaque));
        for blob in [&lower, &upper] {
            apply(Box::new(blob.as_slice()), Expected::default(), root.path(), &mut budget, &Limits::none()).unwrap();
        }
        let mut found = Tree::new();
        read(root.path(), "", &mut found);
        prop_assert_eq!(found, comparable(&to));
    }
}
