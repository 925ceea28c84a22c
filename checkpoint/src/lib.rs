//! Capture, store, restore and ship checkpoints.
//!
//! A checkpoint is committed and restorable, or invisible and garbage (invariant I2). The room owns the
//! transaction (`capture`), its journal, the store on ZFS or in a directory, retention and the export stream; what
//! is captured it sees only through [`target::Target`].

pub mod audit;
pub mod capture;
pub mod compat;
pub mod digest;
mod durable;
pub mod facts;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod info;
pub mod journal;
pub mod kind;
mod left_behind;
pub mod lock;
pub mod manifest;
pub mod progress;
pub mod recover;
pub mod refusal;
pub mod restore;
pub mod retention;
mod scratch;
pub mod settle;
pub mod ship;
mod stand_in;
pub mod store;
pub mod swap;
mod sys;
pub mod target;
pub mod tenant;
#[cfg(test)]
mod testing;
pub mod timeline;
mod tree;
