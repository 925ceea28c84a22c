//! What a restore takes from the checkpoint itself, and what never.
//!
//! A specification names hooks, mounts and namespaces, and a runtime is a program: root runs both. Those of an imported
//! checkpoint are its sender's word (`checkpoint::manifest`), so its configuration comes from the person who restores.

use std::path::Path;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_runtime::config::Config;

use crate::error::Error;

/// Longest name of a runtime that an error repeats.
const SHOWN: usize = 100;

/// Refuses to run the captured specification of an imported checkpoint; with a bundle, that of the bundle is run.
pub(super) fn check(info: &CheckpointInfo, bundle: Option<&Path>) -> Result<(), Error> {
    if info.imported && bundle.is_none() {
        return Err(Error::NeedsBundle { id: info.id.clone() });
    }
    Ok(())
}

/// The runtime under which it ran, if the configuration has one of that name: `oci/crun 1.21` ran under `crun`. What
/// else a manifest says is no program to run, least of all a path; `--runtime` may be one.
pub(super) fn runtime(config: &Config, id: &CheckpointId, recorded: &str) -> Result<String, Error> {
    let name = name_of(recorded);
    if config.runtime(name).is_some() {
        return Ok(name.to_owned());
    }
    Err(Error::RecordedRuntime {
        id: id.clone(),
        name: name.chars().take(SHOWN).collect(),
        configured: config.runtime.named.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}

fn name_of(recorded: &str) -> &str {
    let name = recorded.split_whitespace().next().unwrap_or_default();
    name.strip_prefix("oci/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::tests::info;

    #[test]
    fn an_imported_checkpoint_needs_a_bundle_and_one_captured_here_does_not() {
        let captured = info("web-1", "", "web", 100);
        check(&captured, None).unwrap();
        let imported = CheckpointInfo { imported: true, ..captured };
        check(&imported, Some(Path::new("/b"))).unwrap();
        assert!(matches!(check(&imported, None), Err(Error::NeedsBundle { .. })));
    }

    #[test]
    fn a_manifest_names_a_configured_runtime_or_none() {
        let mut config = Config::default();
        config.runtime.named.insert("crun".into(), Default::default());
        let id = "web-1".parse().unwrap();
        assert_eq!(runtime(&config, &id, "oci/crun 1.21").unwrap(), "crun");
        for foreign in ["oci//tmp/x", "/tmp/x 1.0", "oci/nosuch 1.0", "oci/", ""] {
            let refused = runtime(&config, &id, foreign);
            assert!(matches!(refused, Err(Error::RecordedRuntime { .. })), "{foreign:?}: {refused:?}");
        }
    }
}
