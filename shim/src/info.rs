//! `-info`: what this runtime is and can do, as protobuf RuntimeInfo on stdout.
//!
//! containerd 2.2 and later asks before the first Create, with nothing on stdin; CRI derives from the features whether
//! user namespaces and recursive read-only mounts work.

use std::io::{self, Read, Write};
use std::time::Duration;

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::oci::OciBackend;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::backends::{self, BackendsError};
use crate::bootstrap::MAX_INPUT_BYTES;

/// Name under which containerd knows this runtime.
pub const NAME: &str = "io.containerd.cryopod.v2";

/// Type URL under which containerd registers the OCI features (`core/runtime/typeurl.go`).
const FEATURES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

const FEATURES_WITHIN: Duration = Duration::from_secs(5);

/// `-info` cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// stdin or stdout.
    #[error("exchange with containerd: {0}")]
    Stream(#[from] io::Error),
    /// The answer cannot be encoded.
    #[error("encode the answer: {0}")]
    Encode(#[from] protobuf::Error),
    /// The options or the configuration are wrong.
    #[error(transparent)]
    Backends(#[from] BackendsError),
}

/// Answers on stdout.
///
/// # Errors
/// See [`InfoError`]. A runtime that reports no features is none.
pub fn info(namespace: &str) -> Result<(), InfoError> {
    let mut input = Vec::new();
    io::stdin().take(MAX_INPUT_BYTES).read_to_end(&mut input)?;
    let options = if input.is_empty() { None } else { Some(Any::parse_from_bytes(&input)?) };
    let backend = OciBackend::new(backends::oci_options(namespace, options.as_ref())?);
    let features = backend.features(&Limits::within(FEATURES_WITHIN)).ok().flatten();
    let bytes = describe(options, features.as_ref())?.write_to_bytes()?;
    io::stdout().write_all(&bytes)?;
    io::stdout().flush()?;
    Ok(())
}

fn describe(options: Option<Any>, features: Option<&serde_json::Value>) -> Result<RuntimeInfo, InfoError> {
    let mut info = RuntimeInfo::new();
    info.name = NAME.to_owned();
    let mut version = RuntimeVersion::new();
    version.version = env!("CARGO_PKG_VERSION").to_owned();
    info.version = Some(version).into();
    info.options = options.into();
    if let Some(features) = features {
        let mut any = Any::new();
        any.type_url = FEATURES_URL.to_owned();
        any.value = features.to_string().into_bytes();
        info.features = Some(any).into();
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_passed_on_as_containerd_registers_them() {
        let features = serde_json::json!({"ociVersionMin": "1.0.0"});
        let info = describe(None, Some(&features)).unwrap();
        assert_eq!(info.name, NAME);
        assert_eq!(info.features.type_url, FEATURES_URL);
        assert_eq!(info.features.value, br#"{"ociVersionMin":"1.0.0"}"#);
        assert!(describe(None, None).unwrap().features.is_none());
    }
}
