//! Images as templates: read from registries, containerd and archives, checked, unpacked, and kept in the store.
//!
//! Everything that comes from outside is hostile until it is checked: manifests are bounded, blobs have the digest by which
//! they were asked for, archives stay below the directory they are unpacked into ([`LayerError`] names the entry). A template
//! is whole or recognisably half (`store`), and on ZFS each chain of layers exists once.

mod apply;
mod bounds;
mod config;
mod digest;
mod error;
pub mod fault;
mod manifest;
mod source;
mod store;
mod stream;
mod tar;
mod template;
#[cfg(test)]
mod testing;
pub mod user;

pub use apply::{LayerError, Refusal};
pub use bounds::{Bounds, TooMuch};
pub use config::RunConfig;
pub use digest::{Digest, NoDigest, chains};
pub use error::TemplateError;
pub use source::{Access, ImageName, Options, SourceError};
pub use store::{Created, Pruned, Request, Stored, Templates};
pub use stream::StreamError;
pub use tar::TarError;
pub use template::{BadName, Template, TemplateName};
