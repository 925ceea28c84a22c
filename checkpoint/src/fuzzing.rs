//! What the fuzz targets in `checkpoint/fuzz` and the property tests both do with arbitrary bytes: read them as hostile
//! input and check that nothing panics, nothing is accepted half, nothing is left.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use cryopod_command::Limits;

use crate::digest;
use crate::journal::{Entry, Journal};
use crate::manifest::{FileRecord, Manifest};
use crate::progress::Silent;
use crate::ship::{self, ImportOptions};
use crate::store::{self, StoreChoice, StoreConfig};

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

/// A stream is refused without a trace. The first byte says whether the bytes are the whole stream or what follows a
/// good manifest, so that the sections are reached.
pub fn export_stream(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let mut stream = if first & 1 == 0 { Vec::new() } else { ship::head(&sample()).unwrap_or_default() };
    stream.extend_from_slice(rest);
    let scene = Scene::new();
    let config = StoreConfig {
        choice: StoreChoice::Dir,
        root: None,
        dir: scene.0.join("store"),
        locks: scene.0.join("locks"),
        snapshotter: None,
    };
    let limits = Limits::none();
    let (Ok((store, _)), Ok(journal)) =
        (store::open(&config, None, &limits), Journal::open(scene.0.join("journal")))
    else {
        return;
    };
    let imported =
        ship::import(&store, &journal, &mut &stream[..], ImportOptions::default(), &Silent, &limits);
    let entries = |name: &str| fs::read_dir(scene.0.join(name)).map_or(0, Iterator::count);
    if imported.is_err() {
        assert_eq!(entries("store/checkpoints"), 0, "a refused stream left a checkpoint");
    }
    assert_eq!(
        (entries("journal"), entries("locks"), entries("store/trash")),
        (1, 0, 0),
        "something was left"
    );
}

/// One member, one image, one copied disk.
fn sample() -> Vec<u8> {
    let mut manifest = match Manifest::parse(include_bytes!("manifest/v1.json")) {
        Ok(manifest) => manifest,
        Err(_) => return Vec::new(),
    };
    manifest.members.truncate(1);
    for record in &mut manifest.members {
        record.member.disks.retain(|disk| disk.name != "rootfs");
        record.disks.retain(|disk| disk.name != "rootfs");
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
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_the_fuzz_targets_assert_holds_for_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            super::manifest(&bytes);
            super::journal(&bytes);
            super::export_stream(&bytes);
        }

        #[test]
        fn and_for_sections_that_almost_fit(name in "(web|side)/(dump|1|\\.\\.)/[a-z./-]{0,12}", data in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = vec![1, b'I'];
            bytes.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&data);
            bytes.extend_from_slice(&[0; 36]);
            super::export_stream(&bytes);
        }
    }
}
