//! A look at a journal from outside: makes nothing, moves nothing, takes no lock. For whoever only reports.

use std::io;
use std::path::Path;

use super::{Journal, JournalError, ReadError, read};

/// What a look has found, in words for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Operations whose owner has gone.
    pub orphans: Vec<String>,
    /// Files that recovery will move aside, or that cannot be read; with the reason.
    pub unreadable: Vec<String>,
}

impl Journal {
    /// Looks at the journal in a directory, or at none where that is not there. An operation that is being recovered
    /// just now has no owner either.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn look(dir: &Path) -> Result<Look, JournalError> {
        let mut look = Look::default();
        let paths = match super::files(dir) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(look);
            }
            other => other?,
        };
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let unreadable = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
            if !name.ends_with(".json") {
                let known = name == "damaged" || name.ends_with(".lock") || name.ends_with(".json.tmp");
                look.unreadable.extend((!known).then(|| unreadable(&"not a journal file")));
                continue;
            }
            match read(&path) {
                Ok(Some(entry)) if entry.owner.as_ref().is_none_or(|owner| !owner.is_alive()) => {
                    look.orphans.push(entry.op);
                }
                // Finished while we looked, or at work.
                Ok(_) => {}
                Err(ReadError::Io(error)) => look.unreadable.push(unreadable(&error)),
                Err(ReadError::Damaged(reason)) => look.unreadable.push(unreadable(&reason)),
            }
        }
        Ok(look)
    }
}
