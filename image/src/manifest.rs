//! From the digest of an image to its configuration and layers: index, manifest, configuration, each with the digest and
//! the length by which it was asked for, each bounded.
//!
//! OCI image specification (image-index.md, manifest.md) and docker's schema 2, which differ in media types alone. A
//! document that could be read as two things is refused (CVE-2021-41190).

use std::io::Read;

use cryopod_command::Limits;
use serde::Deserialize;

use crate::config::{self, RunConfig, or_default};
use crate::digest::Digest;
use crate::source::SourceError;

/// Registries accept no larger manifests, and configurations have a few kilobytes.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Docker's own bound is 127.
const MAX_LAYERS: usize = 512;
/// An index of indexes of manifests; nobody nests deeper.
const MAX_NESTING: usize = 3;

/// An image, as a template is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Digest of its manifest; of its configuration where it has none.
    pub(crate) digest: Digest,
    pub(crate) config: RunConfig,
    /// The lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Blob,
}

/// How a source finds the blob of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blob {
    /// By its digest; it has this length.
    Digest(Digest, u64),
    /// By its name in an archive that knows no digests.
    Member(String),
    /// It is all that there is.
    Whole,
}

/// Content that is found by its digest.
pub(crate) trait Blobs {
    /// Begins to read a blob; what it gives is not verified.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + '_>, SourceError>;

    /// A manifest or index; registries have them in another place than blobs.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        let digest: Digest = descriptor.digest.parse()?;
        read_small(self.blob(&digest, descriptor.size)?, &digest, Some(descriptor.size))
    }
}

/// A reference to content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// What a manifest of an index is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// An index or a manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// The architecture of this program, in the words of images (Go's GOARCH).
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Follows a descriptor to an image for this machine.
pub(crate) fn resolve(blobs: &dyn Blobs, top: &Descriptor, limits: &Limits) -> Result<Image, SourceError> {
    let mut descriptor = top.clone();
    for _ in 0..MAX_NESTING {
        limits.check().map_err(SourceError::Stopped)?;
        let digest: Digest = descriptor.digest.parse()?;
        let text = blobs.manifest(&descriptor)?;
        let document = parse(&text, &descriptor.media_type, digest)?;
        if let Some(manifests) = document.manifests {
            descriptor = choose(&manifests)?.clone();
            continue;
        }
        return image(blobs, digest, document.config, document.layers.unwrap_or_default());
    }
    Err(SourceError::Nesting)
}

fn image(
    blobs: &dyn Blobs,
    digest: Digest,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
) -> Result<Image, SourceError> {
    let bad = |reason: &str| SourceError::Manifest { digest, reason: reason.to_owned() };
    let descriptor = config.ok_or_else(|| bad("it names no configuration"))?;
    if !is_config(&descriptor.media_type) {
        let kind = descriptor.media_type;
        return Err(SourceError::MediaType { what: "configuration", kind });
    }
    let config_digest: Digest = descriptor.digest.parse()?;
    let text =
        read_small(blobs.blob(&config_digest, descriptor.size)?, &config_digest, Some(descriptor.size))?;
    let (config, diff_ids) = read_config(&text, config_digest)?;
    if diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
        let (here, there) = (layers.len(), diff_ids.len());
        return Err(bad(&format!(
            "it has {here} layers and its configuration {there}; at most {MAX_LAYERS} are taken"
        )));
    }
    let mut found = Vec::with_capacity(layers.len());
    for (descriptor, diff_id) in layers.into_iter().zip(diff_ids) {
        check_layer(&descriptor.media_type)?;
        found.push(Layer { diff_id, blob: Blob::Digest(descriptor.digest.parse()?, descriptor.size) });
    }
    Ok(Image { digest, config, layers: found })
}

/// Reads a configuration: what is kept of it, and its diff_ids.
pub(crate) fn read_config(text: &[u8], digest: Digest) -> Result<(RunConfig, Vec<Digest>), SourceError> {
    let parsed = serde_json::from_slice::<config::Document>(text);
    let document = parsed.map_err(|error| SourceError::Manifest { digest, reason: error.to_string() })?;
    let (os, arch) = (document.os.as_str(), document.architecture.as_str());
    if !matches!(os, "linux" | "") || !(arch == architecture() || arch.is_empty()) {
        return Err(SourceError::Platform { there: format!("{os}/{arch}"), wanted: wanted() });
    }
    let diff_ids: Result<Vec<Digest>, _> = document.rootfs.diff_ids.iter().map(|text| text.parse()).collect();
    Ok((document.config.into(), diff_ids?))
}

/// Reads a document of at most a few megabytes and checks its digest.
pub(crate) fn read_small(
    from: impl Read,
    digest: &Digest,
    size: Option<u64>,
) -> Result<Vec<u8>, SourceError> {
    let mut text = Vec::new();
    from.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut text)
        .map_err(|source| SourceError::Blob { digest: *digest, source })?;
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(SourceError::Manifest {
            digest: *digest,
            reason: format!("it has more than {MAX_DOCUMENT} bytes"),
        });
    }
    let found = Digest::of(&text);
    if found != *digest || size.is_some_and(|size| size != text.len() as u64) {
        return Err(SourceError::Changed { expected: *digest, found });
    }
    Ok(text)
}

fn parse(text: &[u8], media_type: &str, digest: Digest) -> Result<Document, SourceError> {
    let bad = |reason: String| SourceError::Manifest { digest, reason };
    let document: Document = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if document.fs_layers.is_some() || document.schema_version == 1 {
        return Err(SourceError::MediaType { what: "manifest", kind: "docker schema 1".into() });
    }
    let is_index = document.manifests.is_some();
    if is_index && (document.layers.is_some() || document.config.is_some()) {
        return Err(bad("it is an index and a manifest at once".into()));
    }
    for said in [Some(media_type), document.media_type.as_deref()]
        .into_iter()
        .flatten()
        .filter(|said| !said.is_empty())
    {
        let known = match said {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(true),
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Some(false),
            _ => None,
        };
        match known {
            None => return Err(SourceError::MediaType { what: "manifest", kind: said.to_owned() }),
            Some(index) if index != is_index => {
                return Err(bad(format!("its media type {said} is not what it contains")));
            }
            Some(_) => {}
        }
    }
    Ok(document)
}

/// The manifest for this machine.
fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, SourceError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_none_or(|platform| {
            let same = platform.os == "linux" && platform.architecture == architecture();
            // Every processor of ours runs these; v2 and later of amd64 not.
            same && matches!(platform.variant.as_str(), "" | "v1" | "v8")
        })
    };
    manifests.iter().find(fits).ok_or_else(|| {
        let there = manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
        let there: Vec<String> =
            there.take(16).map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
        SourceError::Platform { there: there.join(", "), wanted: wanted() }
    })
}

fn wanted() -> String {
    format!("linux/{}", architecture())
}

fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

/// What a layer may call itself; how it is compressed says the blob.
fn check_layer(media_type: &str) -> Result<(), SourceError> {
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    if known.contains(&media_type) {
        return Ok(());
    }
    Err(SourceError::MediaType { what: "layer", kind: media_type.to_owned() })
}

#[cfg(test)]
mod tests;
