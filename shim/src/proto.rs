//! Generated messages and stubs of `proto/` (see `build.rs`); nothing in here is written by hand.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![allow(unused_qualifications, unused_imports, unreachable_pub, dead_code, unused_results, unused_mut)]
#![allow(non_upper_case_globals, non_snake_case, non_camel_case_types)]

pub mod control {
    include!(concat!(env!("OUT_DIR"), "/proto/control.rs"));
}

pub mod control_ttrpc {
    include!(concat!(env!("OUT_DIR"), "/proto/control_ttrpc.rs"));
}

pub mod cri {
    include!(concat!(env!("OUT_DIR"), "/proto/cri.rs"));
}
