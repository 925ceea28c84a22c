//! The end of a pod whose checkpoint is committed: owed from the commit on, to a pod that is frozen and cannot end itself.

use crate::journal::Open;

/// The journal entry of a committed capture whose containers are still to be ended. Dropping it leaves them to recovery,
/// which ends those that are still frozen.
#[derive(Debug)]
#[must_use = "the containers stay frozen until they are ended"]
pub struct Ending {
    entry: Open,
}

impl Ending {
    pub(super) fn new(entry: Open) -> Self {
        Self { entry }
    }

    /// The containers are ended. If that cannot be noted, recovery finds them ended.
    pub fn ended(self) {
        let op = self.entry.entry().op.clone();
        if let Err(error) = self.entry.finish() {
            tracing::warn!(op, %error, "a finished journal entry is left to recovery");
        }
    }
}
