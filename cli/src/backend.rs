//! `cryopod --backend lxc …`: the command line of an OCI runtime on LXC. It is a program of its own, since its callers take only
//! a path, and start it for each step of each container; by this option it is found from here too.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const OPTION: &str = "--backend";

/// What the words before the verb ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// Nothing: the words are our own.
    Own,
    /// The LXC runtime, with these words.
    Lxc(&'a [OsString]),
    /// Something that does not exist.
    Unknown(String),
}

/// Looks at the first words after the program's name.
pub(crate) fn asked(words: &[OsString]) -> Asked<'_> {
    let (name, rest) = match words {
        [_, option, name, rest @ ..] if option == OPTION => (name.clone(), rest),
        [_, option, rest @ ..] => match option.to_str().and_then(|word| word.strip_prefix("--backend=")) {
            Some(name) => (name.into(), rest),
            None => return Asked::Own,
        },
        _ => return Asked::Own,
    };
    match name.to_str() {
        Some("lxc") => Asked::Lxc(rest),
        // The verbs here call crun or runc, as the configuration says.
        _ => Asked::Unknown(name.to_string_lossy().into_owned()),
    }
}

/// Becomes the runtime; returns only with a reason why not.
pub(crate) fn become_lxc(words: &[OsString]) -> String {
    let program = std::env::current_exe()
        .map(|own| own.with_file_name("cryopod-lxc"))
        .ok()
        .filter(|beside| beside.exists())
        .unwrap_or_else(|| PathBuf::from("cryopod-lxc"));
    let error = Command::new(&program).args(words).exec();
    format!("cannot run {}: {error}; reinstall cryopod", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_stands_before_the_verb() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let list = words("cryopod --backend lxc list -q");
        assert_eq!(asked(&list), Asked::Lxc(&list[3..]));
        let list = words("cryopod --backend=lxc --root /r list");
        assert_eq!(asked(&list), Asked::Lxc(&list[2..]));
        assert_eq!(asked(&words("cryopod list")), Asked::Own);
        assert_eq!(asked(&words("cryopod")), Asked::Own);
        assert_eq!(asked(&words("cryopod --backend vm list")), Asked::Unknown("vm".into()));
    }
}
