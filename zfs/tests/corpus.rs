//! The seeds of the fuzz target also run here, whole, cut and with single bits flipped, without a nightly compiler.
#![allow(clippy::unwrap_used)]

use cryopod_zfs::parse::parse_anything;

#[test]
fn no_seed_and_no_damaged_seed_panics() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/output");
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        seeds += 1;
        for length in 0..=seed.len() {
            parse_anything(&seed[..length]);
        }
        for bit in 0..seed.len() * 8 {
            let mut damaged = seed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            parse_anything(&damaged);
        }
    }
    assert!(seeds >= 7, "only {seeds} seeds");
}
