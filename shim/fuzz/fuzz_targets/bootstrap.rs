//! Arbitrary bytes on stdin of `start`: either an error, or ids that are safe as file names.
#![no_main]

use cryopod_shim::args::Args;
use cryopod_shim::bootstrap::{is_safe_id, parse_start_params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let flags = Args { id: "abc".to_owned(), namespace: "k8s.io".to_owned(), ..Args::default() };
    for args in [flags, Args::default()] {
        if let Ok(params) = parse_start_params(bytes, &args) {
            assert!(is_safe_id(&params.id) && is_safe_id(&params.namespace));
        }
    }
});
