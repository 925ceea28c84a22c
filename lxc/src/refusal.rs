//! What a spec asks for and an LXC container cannot have.

/// Refused, before anything was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct Refusal {
    /// Path of the field in config.json, e.g. `linux.resources.memory.kernel`.
    pub field: String,
    /// Why not, as the end of a sentence that begins with the field.
    pub why: String,
}

impl Refusal {
    /// Of a field.
    pub fn of(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// Of a field that only cgroup v1 has.
    pub fn v1(field: &str) -> Self {
        Self::of(field, "exists in cgroup v1 only, and this is cgroup v2")
    }
}
