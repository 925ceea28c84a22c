//! Arbitrary bytes as hostile input; what must hold is in `cryopod_checkpoint::fuzzing`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cryopod_checkpoint::fuzzing::journal(bytes));
