//! Suites in two parts: `cryopod-e2e NAME-prepare` brings a node into a state and leaves a note of it; something happens to
//! the node; the suite reads the note and looks at what came of it.

use std::fs::{self, File};
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::suite::Failure;

/// Where notes are, also for `xtask/src/test/inside.rs`.
const DIRECTORY: &str = "/var/lib/cryopod-e2e";

/// Runs the first part of the suite `name` as one test.
pub fn report(name: &str, done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => {
            println!("1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{name}-prepare failed: {why}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// What the first part has noted.
pub fn read<T: DeserializeOwned>(name: &str) -> Result<T, Failure> {
    let path = path(name);
    let text = fs::read(&path).map_err(|e| format!("{path}: {e}; `cryopod-e2e {name}-prepare` writes it"))?;
    serde_json::from_slice(&text).map_err(|e| format!("{path}: {e}"))
}

/// Leaves the note, on disk when this returns: what happens next may be a power cut.
pub fn write(name: &str, note: &impl Serialize) -> Result<(), Failure> {
    let path = path(name);
    let failed = |e: std::io::Error| format!("{path}: {e}");
    let text = serde_json::to_vec(note).map_err(|e| e.to_string())?;
    fs::create_dir_all(DIRECTORY).map_err(failed)?;
    let mut file = File::create(&path).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    File::open(DIRECTORY).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// The suite is over.
pub fn remove(name: &str) -> Result<(), Failure> {
    let path = path(name);
    fs::remove_file(&path).map_err(|e| format!("{path}: {e}"))
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}.json")
}
