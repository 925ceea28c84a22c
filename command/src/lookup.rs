//! The program of a command as execve wants it: looked up, with its whole environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};

use crate::sys;

/// The program of `command` as execve wants it, looked up in the PATH that it will have.
pub(crate) fn image(command: &std::process::Command, env_clear: bool) -> io::Result<sys::Image> {
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    if !env_clear {
        environment.extend(std::env::vars_os());
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => environment.insert(key.to_owned(), value.to_owned()),
            None => environment.remove(key),
        };
    }
    let program = command.get_program();
    let path = if program.as_encoded_bytes().contains(&b'/') {
        PathBuf::from(program)
    } else {
        let search = environment.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&search)
            .map(|dir| dir.join(program))
            .find(|path| access(path, AccessFlags::X_OK).is_ok() && path.is_file())
            .ok_or(io::ErrorKind::NotFound)?
    };
    let argv = std::iter::once(program).chain(command.get_args()).map(OsStr::to_owned);
    sys::Image::new(&path, argv, environment.into_iter())
}

/// Where programs are when there is no PATH, as execvp has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
