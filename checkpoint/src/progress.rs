//! What a long operation tells the person who waits for it.

/// Receives the progress of a capture, settling, export or import; shared by the command and the control service.
///
/// Called from the working thread, often: an implementation must be quick and must not block.
pub trait Progress: Send + Sync {
    /// A named step begins (`pre-dump`, `freeze`, `dump web`, …).
    fn step(&self, name: &str);

    /// How far the present step is; `total` is None where it is not known before.
    fn bytes(&self, done: u64, total: Option<u64>);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _name: &str) {}

    fn bytes(&self, _done: u64, _total: Option<u64>) {}
}
