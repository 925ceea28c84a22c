//! Typed OpenZFS for the rest of cryopod: one trait, `Zfs`, with the real tool and an in-memory fake behind it.
//!
//! Rules that every implementation keeps and `conformance` checks: identity is the guid and order is
//! `createtxg`, never a name or a time; an unknown error is never reported as "absent"; "busy" says who holds
//! the dataset; every call ends by its deadline or when it is cancelled, leaving no child process behind.
//!
//! All calls block: callers on an event loop hand them to a blocking thread.

mod api;
mod blocking;
mod checks;
mod classify;
mod cli;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod detect;
mod error;
pub mod fake;
mod holders;
mod library;
mod mounts;
mod names;
pub mod parse;
mod properties;
mod requests;
mod streams;
mod sys;
mod types;

pub use api::{TemporaryHold, Zfs};
pub use cli::Cli;
pub use cryopod_command::{Cancel, Limits};
pub use detect::{DetectError, open, open_cli};
pub use error::{Error, Op};
pub use fake::Fake;
pub use holders::{Holders, MountHolder, StreamHolder};
pub use names::{BookmarkName, DatasetName, HoldTag, Name, NameError, PoolName, SnapshotName};
pub use properties::{EffectiveProperties, Properties, Property, Source, is_user_property};
pub use requests::{
    Base, CreateRequest, Filter, Kinds, MountOptions, NewKind, ReceiveRequest, Received, Rename, ResumeToken,
    SendFlags, SendRequest, Stream, Wanted,
};
pub use types::{
    Bookmark, Bytes, Dataset, Entry, Guid, Health, Hold, Kind, Mountpoint, Pool, PoolStatus, Snapshot, Txg,
    Version,
};
