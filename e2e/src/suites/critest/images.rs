//! The images that critest asks for, made in the node and served by a registry there.
//!
//! critest names its images by their public registries. Those are not asked: containerd gets a mirror for each of them
//! (`certs.d`, read at each pull), which is a registry on this node. So `PullImage` does all that it does otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::registry::{MANIFEST, Registry, digest};
use crate::shell;
use crate::suite::Failure;

const REGISTRY: Registry = Registry { address: "127.0.0.1:5077", unit: "critest-registry" };
const CERTS: &str = "/etc/containerd/certs.d";
/// The registries that critest's image names start with.
const MIRRORED: &[&str] = &["registry.k8s.io", "k8s.gcr.io", "gcr.io"];
const RECIPES: &str = include_str!("../../../critest/images.json");
const TREES: &str = include_str!("../../../critest/trees.sh");

/// One image of `images.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// Repository and tag in the registry.
    names: Vec<String>,
    /// Folders that `trees.sh` makes, lowest first.
    layers: Vec<String>,
    /// The image's `config` object.
    config: Value,
}

/// Digests of the manifests, by name.
pub(super) type Digests = BTreeMap<String, String>;

/// Makes the images in `work`, starts the registry, fills it and points containerd at it.
pub(super) fn serve(work: &Path) -> Result<Digests, Failure> {
    let trees = work.join("trees");
    let script = work.join("trees.sh");
    std::fs::write(&script, TREES).map_err(|e| format!("{}: {e}", script.display()))?;
    shell::ok(&format!("sh {} {}", script.display(), trees.display()))?;
    REGISTRY.start()?;
    let address = REGISTRY.address;
    for host in MIRRORED {
        let dir = format!("{CERTS}/{host}");
        std::fs::create_dir_all(&dir).map_err(|e| format!("{dir}: {e}"))?;
        let text = format!(
            "server = \"http://{address}\"\n[host.\"http://{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        std::fs::write(format!("{dir}/hosts.toml"), text).map_err(|e| format!("{dir}: {e}"))?;
    }
    let recipes: Vec<Recipe> = serde_json::from_str(RECIPES).map_err(|e| format!("images.json: {e}"))?;
    let mut digests = Digests::new();
    let mut layers = BTreeMap::new();
    for recipe in &recipes {
        for name in &recipe.layers {
            if !layers.contains_key(name) {
                let path = trees.join(format!("{name}.tar"));
                let blob = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                layers.insert(name.clone(), (REGISTRY.put_blob(&blob)?, blob.len()));
            }
        }
        let manifest = manifest(recipe, &layers)?;
        for name in &recipe.names {
            let (repository, tag) = name.split_once(':').ok_or(format!("no tag in {name}"))?;
            REGISTRY.put_manifest(repository, tag, &manifest)?;
            digests.insert(name.clone(), digest(&manifest));
        }
    }
    std::fs::remove_dir_all(&trees).map_err(|e| format!("{}: {e}", trees.display()))?;
    Ok(digests)
}

/// Ends the registry and takes the mirrors away.
pub(super) fn withdraw() -> Result<(), Failure> {
    for host in MIRRORED {
        let dir = format!("{CERTS}/{host}");
        std::fs::remove_dir_all(&dir).map_err(|e| format!("{dir}: {e}"))?;
    }
    REGISTRY.stop()
}

/// Pushes the configuration and returns the manifest.
fn manifest(recipe: &Recipe, layers: &BTreeMap<String, (String, usize)>) -> Result<Vec<u8>, Failure> {
    let used: Vec<&(String, usize)> = recipe.layers.iter().filter_map(|name| layers.get(name)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": recipe.config,
        // Layers are not compressed, so a layer's digest is its content's.
        "rootfs": {"type": "layers", "diff_ids": used.iter().map(|(digest, _)| digest).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let listed: Vec<Value> = used
        .iter()
        .map(|(digest, size)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": listed,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": REGISTRY.put_blob(&config)?, "size": config.len()},
    });
    Ok(manifest.to_string().into_bytes())
}
