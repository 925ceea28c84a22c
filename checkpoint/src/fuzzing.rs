//! What the fuzz targets in `checkpoint/fuzz` and the property tests both do with arbitrary bytes: read them as hostile
//! input and check that nothing panics, nothing is accepted half, nothing is left.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryopod_command::Limits;
use cryopod_zfs::{DatasetName, Fake, Filter, Kinds, Zfs};

use crate::digest;
use crate::journal::{Entry, Journal};
use crate::manifest::{CapturedMode, FileRecord, Manifest};
use crate::progress::Silent;
use crate::ship::{self, ImportOptions};
use crate::store::{self, SharedStore, StoreChoice, StoreConfig};

/// Where the store is on the pool in memory.
const ROOT: &str = "tank/cryopod";

/// A manifest is refused, or it is the same after it was written and read again.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = manifest.to_bytes().ok().and_then(|bytes| Manifest::parse(&bytes).ok());
        assert!(again.as_ref() == Some(&manifest), "an accepted manifest changes when it is written");
    }
}

/// A journal entry is refused or read; neither panics.
pub fn journal(bytes: &[u8]) {
    Entry::parse(bytes).ok();
}

/// A stream is refused without a trace. The first byte says what becomes of the others: with bit 0 they follow a good
/// manifest, so that the sections are reached; with bit 1 that of a ZFS disk, and the store is a pool in memory; with bit
/// 2 the sender is trusted.
pub fn export_stream(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (headed, zfs, trusted) = (first & 1 != 0, first & 2 != 0, first & 4 != 0);
    // The pool in memory believes the paths in what it receives, which the real one would not. As long as nobody can
    // write a slash, none of them leads out of it.
    if zfs && rest.contains(&b'/') {
        return;
    }
    let mut stream = Vec::new();
    if headed || zfs {
        stream = ship::head(&sample(zfs)).unwrap_or_default();
    }
    stream.extend_from_slice(rest);
    let options = ImportOptions { trusted };
    if zfs {
        into_zfs(&stream, options)
    } else {
        into_dir(&stream, options)
    };
}

/// Whether the stream was accepted.
fn into_dir(stream: &[u8], options: ImportOptions) -> bool {
    let scene = Scene::new();
    let Some((_, accepted)) = scene.import(StoreChoice::Dir, None, stream, options) else { return false };
    if !accepted {
        assert_eq!(scene.entries("store/checkpoints"), 0, "a refused stream left a checkpoint");
    }
    assert_eq!(
        (scene.entries("journal"), scene.entries("locks"), scene.entries("store/trash")),
        (1, 0, 0),
        "something was left"
    );
    accepted
}

/// The same with sections that `zfs receive` reads.
fn into_zfs(stream: &[u8], options: ImportOptions) -> bool {
    let scene = Scene::new();
    let Ok(fake) = Fake::new(&["tank"]) else { return false };
    let zfs: Arc<dyn Zfs> = Arc::new(fake.clone());
    let Some((store, accepted)) = scene.import(StoreChoice::Zfs, Some(zfs), stream, options) else {
        return false;
    };
    // A base of a trusted sender may have come whole before the rest was refused: nobody needs it.
    store.reap(&Limits::none()).ok();
    let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
    let listed = DatasetName::from_str(ROOT)
        .ok()
        .and_then(|root| fake.list(&Filter::below(&root, kinds), &Limits::none()).ok())
        .unwrap_or_default();
    let parts = ["", "/adopted", "/bases", "/checkpoints", "/containers", "/layers", "/templates", "/trash"];
    let left = listed.iter().map(|entry| entry.name().to_string()).filter(|name| {
        let below = name.strip_prefix(ROOT).unwrap_or(name);
        let imported = below.starts_with("/checkpoints/") || options.trusted && below.starts_with("/bases/");
        let expected = parts.contains(&below) || accepted && imported;
        !expected
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "something was left in the pool");
    assert_eq!((scene.entries("journal"), scene.entries("locks")), (1, 0), "something was left");
    accepted
}

/// One member: with one image and one copied disk, or with one ZFS disk and nothing else.
fn sample(zfs: bool) -> Vec<u8> {
    let mut manifest = match Manifest::parse(include_bytes!("manifest/v1.json")) {
        Ok(manifest) => manifest,
        Err(_) => return Vec::new(),
    };
    manifest.members.truncate(1);
    if zfs {
        manifest.mode = CapturedMode::Disk;
    }
    for record in &mut manifest.members {
        record.member.disks.retain(|disk| (disk.name == "rootfs") == zfs);
        record.disks.retain(|disk| (disk.name == "rootfs") == zfs);
        if zfs {
            record.memory = None;
        }
        if let Some(memory) = &mut record.memory {
            memory.rounds = vec!["dump".to_owned()];
            let path = "dump/pages-1.img".to_owned();
            memory.files = vec![FileRecord { path, size: 5, sha256: digest::of(b"pages") }];
        }
    }
    manifest.to_bytes().unwrap_or_default()
}

/// A directory of its own, removed at the end.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("cryopod-fuzz-{}-{count}", std::process::id())))
    }

    /// Imports into a new store; None when that could not be made. Says whether the stream was accepted.
    fn import(
        &self,
        choice: StoreChoice,
        zfs: Option<Arc<dyn Zfs>>,
        mut stream: &[u8],
        options: ImportOptions,
    ) -> Option<(SharedStore, bool)> {
        let config = StoreConfig {
            choice,
            root: ROOT.parse().ok(),
            dir: self.0.join("store"),
            locks: self.0.join("locks"),
            snapshotter: None,
        };
        let limits = Limits::none();
        let (store, _) = store::open(&config, zfs, &limits).ok()?;
        let journal = Journal::open(self.0.join("journal")).ok()?;
        let imported = ship::import(&store, &journal, &mut stream, options, &Silent, &limits);
        Some((store, imported.is_ok()))
    }

    /// How much is in a directory; an absent one has nothing.
    fn entries(&self, name: &str) -> usize {
        fs::read_dir(self.0.join(name)).map_or(0, Iterator::count)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests;
