//! Capture, store, restore and ship checkpoints.
//!
//! A checkpoint is committed and restorable, or invisible and garbage (invariant I2). The room owns the
//! transaction (`capture`), its journal, the store on ZFS or in a directory, retention and the export stream; what
//! is captured it sees only through [`target::Target`].

pub mod kind;
pub mod target;
