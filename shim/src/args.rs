//! What containerd asks for on the command line and in the environment.
//!
//! Pure: words in, [`Invocation`] out. The flags are those of containerd `pkg/shim/shim.go` in Go's style (one
//! dash or two, `-flag value` or `-flag=value`); `docs/runtime-v2.md` is the contract. Flags and environment are
//! deprecated from 2.3 on, where the same values arrive on stdin, so none of them is required here.

use std::path::PathBuf;

use cryopod_runtime::config::Level;

/// Everything a single call of the binary was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// `-namespace`, else `NAMESPACE`.
    pub namespace: String,
    /// `-id`: sandbox or container id.
    pub id: String,
    /// `-bundle`, given to `delete` only.
    pub bundle: Option<PathBuf>,
    /// `-address`: containerd's gRPC socket, else `GRPC_ADDRESS`.
    pub address: String,
    /// `TTRPC_ADDRESS`: where events go.
    pub ttrpc_address: String,
    /// `-socket`: address of our own listening socket; our own `serve` only.
    pub socket: String,
    /// `-store`: root dataset of the store; our own `settle` only.
    pub store: String,
    /// `-debug`.
    pub debug: bool,
    /// `-log-level`: how much is logged; our own `serve` only.
    pub log_level: Level,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Start a shim, or find the one of the same pod, and print its address.
    Start(Args),
    /// Remove what a dead shim left behind.
    Delete(Args),
    /// Be the shim; started by `start` with the socket as descriptor 3.
    Serve(Args),
    /// Bring the disks of a committed checkpoint into the store; started by the server, outlives it.
    Settle(Args),
    /// `-info`: describe the runtime.
    Info(Args),
    /// `-v`: print the version for people.
    Version,
}

/// The command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A flag that containerd does not have.
    #[error("unknown flag {0}; the shim is started by containerd, see docs/runtime-v2.md there")]
    UnknownFlag(String),
    /// The last word is a flag that needs a value.
    #[error("flag {0} needs a value")]
    MissingValue(String),
    /// `-debug=maybe`.
    #[error("flag {flag} is true or false, not {value:?}")]
    NotABoolean {
        /// The flag.
        flag: String,
        /// What stood behind `=`.
        value: String,
    },
    /// `-log-level loud`.
    #[error("flag -log-level is error, warn, info, debug or trace, not {0:?}")]
    NotALevel(String),
    /// No action, or an unknown one.
    #[error("action {0:?} is unknown: expected start or delete")]
    UnknownAction(String),
}

/// Reads the words after the program name; `env` looks up environment variables.
///
/// # Errors
/// See [`ArgsError`].
pub fn parse<I>(words: I, env: impl Fn(&str) -> Option<String>) -> Result<Invocation, ArgsError>
where
    I: IntoIterator<Item = String>,
{
    let mut args = Args {
        namespace: env("NAMESPACE").unwrap_or_default(),
        address: env("GRPC_ADDRESS").unwrap_or_default(),
        ttrpc_address: env("TTRPC_ADDRESS").unwrap_or_default(),
        ..Args::default()
    };
    let (mut info, mut version, mut action) = (false, false, None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            // Go stops at the first word that is no flag: it is the action.
            action = Some(word);
            break;
        };
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "debug" => args.debug = boolean(name, inline.as_deref())?,
            "info" => info = boolean(name, inline.as_deref())?,
            "v" | "version" => version = boolean(name, inline.as_deref())?,
            "namespace" => args.namespace = value(name, inline, &mut words)?,
            "id" => args.id = value(name, inline, &mut words)?,
            "bundle" => args.bundle = Some(value(name, inline, &mut words)?.into()),
            "address" => args.address = value(name, inline, &mut words)?,
            "store" => args.store = value(name, inline, &mut words)?,
            "log-level" => args.log_level = level(value(name, inline, &mut words)?)?,
            "socket" => args.socket = value(name, inline, &mut words)?,
            // Paths of containerd's own binary and of a debug socket; nothing of ours needs them.
            "publish-binary" => drop(value(name, inline, &mut words)?),
            _ => return Err(ArgsError::UnknownFlag(word)),
        }
    }
    if version {
        return Ok(Invocation::Version);
    }
    if info {
        return Ok(Invocation::Info(args));
    }
    match action.as_deref() {
        Some("start") => Ok(Invocation::Start(args)),
        Some("delete") => Ok(Invocation::Delete(args)),
        Some("serve") => Ok(Invocation::Serve(args)),
        Some("settle") => Ok(Invocation::Settle(args)),
        other => Err(ArgsError::UnknownAction(other.unwrap_or_default().to_owned())),
    }
}

fn value(
    name: &str,
    inline: Option<String>,
    rest: &mut impl Iterator<Item = String>,
) -> Result<String, ArgsError> {
    inline.or_else(|| rest.next()).ok_or_else(|| ArgsError::MissingValue(format!("-{name}")))
}

fn level(name: String) -> Result<Level, ArgsError> {
    Level::ALL.into_iter().find(|level| level.as_str() == name).ok_or(ArgsError::NotALevel(name))
}

fn boolean(name: &str, inline: Option<&str>) -> Result<bool, ArgsError> {
    match inline {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(ArgsError::NotABoolean { flag: format!("-{name}"), value: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Invocation, ArgsError> {
        parse(line.split_whitespace().map(str::to_owned), |name| match name {
            "TTRPC_ADDRESS" => Some("/run/containerd/containerd.sock.ttrpc".to_owned()),
            "NAMESPACE" => Some("from-env".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn containerds_start_line_is_understood() {
        let line = "-namespace k8s.io -address /run/containerd/containerd.sock \
                    -publish-binary /usr/bin/containerd -id abc -debug start";
        let expected = Args {
            namespace: "k8s.io".to_owned(),
            id: "abc".to_owned(),
            bundle: None,
            address: "/run/containerd/containerd.sock".to_owned(),
            ttrpc_address: "/run/containerd/containerd.sock.ttrpc".to_owned(),
            socket: String::new(),
            store: String::new(),
            debug: true,
            log_level: Level::default(),
        };
        assert_eq!(read(line), Ok(Invocation::Start(expected)));
    }

    #[test]
    fn delete_carries_the_bundle() {
        let Ok(Invocation::Delete(args)) = read("-id x -bundle /run/b/x delete") else {
            panic!("not a delete")
        };
        assert_eq!(args.bundle.as_deref(), Some(std::path::Path::new("/run/b/x")));
        assert_eq!(args.namespace, "from-env");
    }

    #[test]
    fn go_style_spellings_mean_the_same() {
        assert_eq!(read("--id=x --namespace=n start"), read("-id x -namespace n start"));
        assert_eq!(read("-debug=false -id x start"), read("-id x start"));
    }

    #[test]
    fn info_and_version_need_no_action() {
        assert!(matches!(read("-info"), Ok(Invocation::Info(_))));
        assert_eq!(read("-v"), Ok(Invocation::Version));
        assert!(matches!(read("-info -v=false"), Ok(Invocation::Info(_))));
    }

    #[test]
    fn wrong_lines_are_refused_with_the_word_in_question() {
        assert_eq!(read("-bogus 1 start"), Err(ArgsError::UnknownFlag("-bogus".to_owned())));
        assert_eq!(read("-id"), Err(ArgsError::MissingValue("-id".to_owned())));
        assert_eq!(read("restart"), Err(ArgsError::UnknownAction("restart".to_owned())));
        assert_eq!(read(""), Err(ArgsError::UnknownAction(String::new())));
        assert!(matches!(read("-debug=perhaps start"), Err(ArgsError::NotABoolean { .. })));
        assert!(matches!(read("-log-level loud serve"), Err(ArgsError::NotALevel(_))));
    }

    #[test]
    fn the_server_is_told_how_much_it_logs() {
        for level in Level::ALL {
            let Ok(Invocation::Serve(args)) = read(&format!("-log-level {} serve", level.as_str())) else {
                panic!("{level:?}")
            };
            assert_eq!(args.log_level, level);
        }
    }
}
