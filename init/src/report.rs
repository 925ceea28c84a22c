//! What the runtime hears: one line of JSON, or the end of the stream for "it runs".

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// More is no report.
const LONGEST: u64 = 64 << 10;

/// Said by a process of the container before it becomes its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// It is in a new user namespace, and waits for the mappings of ids.
    Unmapped,
    /// It is in its namespaces, with the host's files, and waits for the hooks of the host.
    Entered,
    /// The hooks of the container that follow have run.
    Hooked,
    /// It is set up and waits to be started.
    Ready,
    /// A further process runs.
    Running {
        /// Its PID, as the host sees it.
        pid: u32,
    },
    /// It could not be made, and has ended.
    Failed {
        /// What was tried on what, and what the system said.
        message: String,
        /// The error number, if the system gave one.
        errno: Option<i32>,
    },
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        Report::Failed { message: error.to_string(), errno: error.source.raw_os_error() }
    }
}

impl Report {
    /// Says it.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn say(&self, to: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        to.write_all(&line)
    }

    /// Hears one; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the stream fails, or says something else.
    pub fn hear(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while from.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
            if line.len() as u64 > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_silence_is_the_end() {
        let failed = Report::Failed { message: "mount tmpfs on /dev: no".to_owned(), errno: Some(1) };
        let mut said = Vec::new();
        Report::Ready.say(&mut said).unwrap();
        failed.say(&mut said).unwrap();
        let mut heard = said.as_slice();
        assert_eq!(Report::hear(&mut heard).unwrap(), Some(Report::Ready));
        assert_eq!(Report::hear(&mut heard).unwrap(), Some(failed));
        assert_eq!(Report::hear(&mut heard).unwrap(), None);
        assert!(Report::hear(&mut [b'x'; 70_000].as_slice()).is_err());
    }
}
