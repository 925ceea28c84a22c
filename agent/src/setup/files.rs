//! Files of the node: read if they are there, written whole or not at all. The marker of setup is one of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;
use super::look::boot;
use super::state::{Change, State, VERSION};

pub(super) const MARKER: &str = "/var/lib/cryopod/setup.json";

pub(super) fn read_state() -> Result<Option<State>, Error> {
    let path = Path::new(MARKER);
    let Some(text) = read(path)? else { return Ok(None) };
    let strange = |why: String| Error::State { path: path.to_owned(), why };
    let state: State = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
    if state.version == VERSION {
        Ok(Some(state))
    } else {
        Err(strange(format!("version {}", state.version)))
    }
}

pub(super) fn write_state(state: &State, at_us: Option<u64>) -> Result<(), Error> {
    let state = State { changed: Some(Change { boot: boot()?, at_us }), ..state.clone() };
    let text = serde_json::to_string(&state).map_err(|error| Error::File {
        what: "write",
        path: MARKER.into(),
        source: io::Error::other(error),
    })?;
    write(Path::new(MARKER), &text, 0o600)
}

pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Whole or not at all, also when the power fails.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(at("create", dir))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = dir.join(format!(".{name}.new"));
    let failed = at("write", &half);
    let mut file = match File::options().write(true).create(true).truncate(true).mode(mode).open(&half) {
        Ok(file) => file,
        Err(error) => return Err(failed(error)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&half, path).map_err(at("write", path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("sync", dir))
}

pub(super) fn put_back(path: &Path, before: Option<&Option<String>>) -> Result<(), Error> {
    match before {
        Some(Some(text)) => write(path, text, 0o644),
        _ => remove(path),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}
