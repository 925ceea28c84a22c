//! Feeds every parser of `zfs` and `zpool` output: `cargo +nightly fuzz run output` in `zfs/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cryopod_zfs::parse::parse_anything(bytes));
