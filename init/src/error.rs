//! Why a container could not be made, in words for whoever asked for it.

use std::io;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}{}{object}: {source}", if object.is_empty() { "" } else { " " })]
pub struct Error {
    /// What was tried.
    pub step: &'static str,
    /// On what; may be empty.
    pub object: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// Says what was tried on what when the kernel refuses.
pub trait Context<T> {
    /// Without an object.
    ///
    /// # Errors
    /// The error it was.
    fn step(self, step: &'static str) -> Result<T, Error>;

    /// With an object.
    ///
    /// # Errors
    /// The error it was.
    fn on(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error { step, object: String::new(), source: error.into() })
    }

    fn on(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error { step, object: object.to_string(), source: error.into() })
    }
}
