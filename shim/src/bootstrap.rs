//! The conversation between containerd and `start`: what stands on stdin, what is answered on stdout.
//!
//! ```text
//! containerd <= 2.2   stdin: nothing, or protobuf Any with the runtime options
//!                     stdout: {"version":3,"address":"unix://…","protocol":"ttrpc"}
//! containerd >= 2.3   stdin: protobuf BootstrapParams
//!                     stdout: protobuf BootstrapResult
//! ```
//! Pure: bytes in, bytes out, no panic for any input. A caller that is answered in the other one's language fails
//! with "unsupported protocol", so the answer follows the question (containerd `core/runtime/v2/binary.go`).

use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, LogLevel};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::args::Args;

/// Version of the shim API that we announce: one server for all tasks of a pod, Task service v3.
const SHIM_VERSION: i32 = containerd_shim_protos::TASK_API_VERSION;

/// stdin is read up to here: the messages are a few hundred bytes, options files rarely some KiB.
pub const MAX_INPUT_BYTES: u64 = 4 * 1024 * 1024;

/// Which of the two conversations this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// containerd up to 2.2.
    Legacy,
    /// containerd from 2.3.
    Bootstrap,
}

/// What `start` was asked, whichever way.
#[derive(Debug, Clone, PartialEq)]
pub struct StartParams {
    /// How to answer.
    pub protocol: Protocol,
    /// Sandbox or container id.
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// Log debug messages too.
    pub debug: bool,
    /// containerd's gRPC address; part of the socket's name, so that two daemons do not meet.
    pub address: String,
    /// Where events go.
    pub ttrpc_address: String,
    /// Where the socket is to be, if not in the default directory.
    pub socket_dir: Option<PathBuf>,
    /// Runtime options as containerd got them from its configuration or its client.
    pub options: Option<Any>,
}

/// The question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// No id in flags or message.
    #[error("no id: containerd gives it as -id or in BootstrapParams.instance_id")]
    NoId,
    /// No namespace in flags or message.
    #[error("no namespace: containerd gives it as -namespace or in BootstrapParams.namespace")]
    NoNamespace,
    /// An id that would leave its directory or break a path.
    #[error("id {0:?} is not usable as a file name")]
    BadId(String),
    /// The answer could not be encoded.
    #[error("encode the answer for containerd: {0}")]
    Encode(String),
}

/// Whether `id` may become part of a path: containerd's own rule (`pkg/identifiers`) with some more room.
pub fn is_safe_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 256
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Understands what containerd wrote to stdin of `start`, together with flags and environment.
///
/// # Errors
/// Without id or namespace, or with an id that is no file name.
pub fn parse_start_params(input: &[u8], args: &Args) -> Result<StartParams, BootstrapError> {
    let params = match BootstrapParams::parse_from_bytes(input) {
        // An Any happens to parse as BootstrapParams too (its type_url as the instance id), hence the comparison.
        Ok(params) if is_bootstrap(&params, args) => from_bootstrap(params, args),
        _ => from_legacy(input, args),
    };
    if params.id.is_empty() {
        return Err(BootstrapError::NoId);
    }
    if params.namespace.is_empty() {
        return Err(BootstrapError::NoNamespace);
    }
    for name in [&params.id, &params.namespace] {
        if !is_safe_id(name) {
            return Err(BootstrapError::BadId(name.clone()));
        }
    }
    Ok(params)
}

fn is_bootstrap(params: &BootstrapParams, args: &Args) -> bool {
    let same = |flag: &str, field: &str| !field.is_empty() && (flag.is_empty() || flag == field);
    same(&args.id, &params.instance_id) && same(&args.namespace, &params.namespace)
}

fn from_bootstrap(params: BootstrapParams, args: &Args) -> StartParams {
    let or = |value: String, fallback: &str| if value.is_empty() { fallback.to_owned() } else { value };
    let debug = args.debug || params.log_level.value() <= LogLevel::LOG_LEVEL_DEBUG as i32;
    StartParams {
        protocol: Protocol::Bootstrap,
        id: params.instance_id,
        namespace: params.namespace,
        debug,
        address: or(params.containerd_grpc_address, &args.address),
        ttrpc_address: or(params.containerd_ttrpc_address, &args.ttrpc_address),
        socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
        options: params.extensions.into_iter().filter_map(|e| e.value.into_option()).find(is_options),
    }
}

fn from_legacy(input: &[u8], args: &Args) -> StartParams {
    StartParams {
        protocol: Protocol::Legacy,
        id: args.id.clone(),
        namespace: args.namespace.clone(),
        debug: args.debug,
        address: args.address.clone(),
        ttrpc_address: args.ttrpc_address.clone(),
        socket_dir: None,
        options: Any::parse_from_bytes(input).ok().filter(is_options),
    }
}

fn is_options(any: &Any) -> bool {
    any.type_url.ends_with("runtimeoptions.v1.Options") || any.type_url.ends_with("runc.v1.Options")
}

/// The answer on stdout: where our server listens.
///
/// # Errors
/// When the message cannot be encoded, which no address that we make can cause.
pub fn encode_reply(protocol: Protocol, address: &str) -> Result<Vec<u8>, BootstrapError> {
    match protocol {
        Protocol::Legacy => {
            let reply = serde_json::json!({"version": SHIM_VERSION, "address": address, "protocol": "ttrpc"});
            serde_json::to_vec(&reply).map_err(|e| BootstrapError::Encode(e.to_string()))
        }
        Protocol::Bootstrap => {
            let mut reply = BootstrapResult::new();
            reply.version = SHIM_VERSION;
            reply.address = address.to_owned();
            reply.protocol = "ttrpc".to_owned();
            reply.write_to_bytes().map_err(|e| BootstrapError::Encode(e.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flags() -> Args {
        Args {
            id: "abc".to_owned(),
            namespace: "k8s.io".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            ttrpc_address: "/run/containerd/containerd.sock.ttrpc".to_owned(),
            ..Args::default()
        }
    }

    fn options() -> Any {
        let mut any = Any::new();
        any.type_url = "containerd.runc.v1.Options".to_owned();
        any.value = vec![0x48, 0x01];
        any
    }

    /// `BootstrapParams{instance_id: "abc", namespace: "k8s.io", log_level: DEBUG, ttrpc: "t", grpc: "g",
    /// extensions: [Any{"containerd.runc.v1.Options", 48 01}], socket_dir: "/s"}`, as Go's encoder writes it.
    const GOLDEN: &[u8] =
        b"\x0a\x03abc\x12\x06k8s.io\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01\x2a\x01t\x32\x01g\
        \x42\x22\x0a\x20\x0a\x1acontainerd.runc.v1.Options\x12\x02\x48\x01\x4a\x02/s";

    #[test]
    fn bootstrap_bytes_of_containerd_2_3_are_understood() {
        let params = parse_start_params(GOLDEN, &flags()).unwrap();
        assert_eq!(params.protocol, Protocol::Bootstrap);
        assert_eq!((params.id.as_str(), params.namespace.as_str()), ("abc", "k8s.io"));
        assert!(params.debug);
        assert_eq!((params.ttrpc_address.as_str(), params.address.as_str()), ("t", "g"));
        assert_eq!(params.socket_dir.as_deref(), Some(std::path::Path::new("/s")));
        assert_eq!(params.options, Some(options()));
    }

    #[test]
    fn bootstrap_without_any_flag_is_enough() {
        assert_eq!(parse_start_params(GOLDEN, &Args::default()).unwrap().id, "abc");
    }

    #[test]
    fn legacy_options_are_not_taken_for_bootstrap_params() {
        let bytes = options().write_to_bytes().unwrap();
        let params = parse_start_params(&bytes, &flags()).unwrap();
        assert_eq!(params.protocol, Protocol::Legacy);
        assert_eq!(params.options, Some(options()));
        assert_eq!(params.id, "abc");
    }

    #[test]
    fn empty_stdin_is_legacy_without_options() {
        let params = parse_start_params(b"", &flags()).unwrap();
        assert_eq!((params.protocol, params.options), (Protocol::Legacy, None));
    }

    #[test]
    fn a_message_for_another_container_is_not_believed() {
        let other = Args { id: "other".to_owned(), ..flags() };
        assert_eq!(parse_start_params(GOLDEN, &other).unwrap().protocol, Protocol::Legacy);
    }

    #[test]
    fn ids_that_leave_their_directory_are_refused() {
        for id in ["../x", "a/b", ".hidden", "a b", "x\0y"] {
            let args = Args { id: id.to_owned(), ..flags() };
            assert_eq!(parse_start_params(b"", &args), Err(BootstrapError::BadId(id.to_owned())), "{id:?}");
        }
        assert_eq!(parse_start_params(b"", &Args::default()), Err(BootstrapError::NoId));
        let args = Args { namespace: String::new(), ..flags() };
        assert_eq!(parse_start_params(b"", &args), Err(BootstrapError::NoNamespace));
    }

    #[test]
    fn the_legacy_answer_is_json_and_the_new_one_protobuf() {
        assert_eq!(
            encode_reply(Protocol::Legacy, "unix:///s/1").unwrap(),
            br#"{"address":"unix:///s/1","protocol":"ttrpc","version":3}"#
        );
        assert_eq!(
            encode_reply(Protocol::Bootstrap, "unix:///s/1").unwrap(),
            b"\x08\x03\x12\x0bunix:///s/1\x1a\x05ttrpc"
        );
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input in proptest::collection::vec(any::<u8>(), 0..512)) {
            // Either answer is fine; the ids must always be safe.
            if let Ok(params) = parse_start_params(&input, &flags()) {
                prop_assert!(is_safe_id(&params.id) && is_safe_id(&params.namespace));
            }
            if let Ok(params) = parse_start_params(&input, &Args::default()) {
                prop_assert!(is_safe_id(&params.id) && is_safe_id(&params.namespace));
            }
        }
    }
}
