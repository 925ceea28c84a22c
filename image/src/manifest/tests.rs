use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// Blobs in memory.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Blobs for Memory {
    fn blob(&self, digest: &Digest, _size: u64) -> Result<Box<dyn Read + '_>, SourceError> {
        let found = self.0.get(&digest.to_string());
        let found = found.ok_or_else(|| SourceError::NoBlob { digest: *digest, place: "memory".into() })?;
        Ok(Box::new(found.as_slice()))
    }
}

impl Memory {
    fn add(&mut self, value: &Value, kind: &str) -> Value {
        let text = value.to_string().into_bytes();
        let digest = Digest::of(&text).to_string();
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": text.len() });
        self.0.insert(digest, text);
        descriptor
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn descriptor(value: &Value) -> Descriptor {
    serde_json::from_value(value.clone()).unwrap()
}

/// A manifest for `architecture` with one layer of type `layer`, changed by `patch`.
fn manifest(memory: &mut Memory, arch: &str, layer: &str, patch: impl FnOnce(&mut Value)) -> Value {
    let diff_id = Digest::of(b"layer").to_string();
    let config = json!({ "os": "linux", "architecture": arch, "rootfs": { "diff_ids": [diff_id] } });
    let config = memory.add(&config, CONFIG);
    let layers = json!([{ "mediaType": layer, "digest": Digest::of(b"blob").to_string(), "size": 9 }]);
    let mut manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    patch(&mut manifest);
    memory.add(&manifest, MANIFEST)
}

#[test]
fn the_manifest_for_this_machine_is_taken_from_an_index() {
    let mut memory = Memory::default();
    let mut manifests = Vec::new();
    for (os, arch) in
        [("linux", "s390x"), ("unknown", "unknown"), ("linux", architecture()), ("linux", architecture())]
    {
        let mut found = manifest(&mut memory, arch, LAYER, |_| {});
        found["platform"] = json!({ "os": os, "architecture": arch });
        manifests.push(found);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let top = memory.add(&index, INDEX);
    let image = resolve(&memory, &descriptor(&top), &Limits::none()).unwrap();
    assert_eq!(image.digest.to_string(), manifests[2]["digest"]);
    assert_eq!(image.layers[0].blob, Blob::Digest(Digest::of(b"blob"), 9));
    let only = json!({ "schemaVersion": 2, "manifests": [manifests[0]] });
    let top = memory.add(&only, INDEX);
    let error = resolve(&memory, &descriptor(&top), &Limits::none()).unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn documents_that_are_not_what_they_say_are_refused() {
    let refused = |layer: &str, patch: fn(&mut Value), named: &str| {
        let mut memory = Memory::default();
        let top = manifest(&mut memory, architecture(), layer, patch);
        let error = resolve(&memory, &descriptor(&top), &Limits::none()).unwrap_err();
        assert!(error.to_string().contains(named), "{error} does not say {named}");
    };
    refused(LAYER, |it| it["manifests"] = json!([]), "an index and a manifest at once");
    refused(LAYER, |it| it["mediaType"] = json!(INDEX), "is not what it contains");
    refused(LAYER, |it| it["mediaType"] = json!("text/plain"), "text/plain");
    refused(LAYER, |it| it["schemaVersion"] = json!(1), "schema 1");
    refused(LAYER, |it| it["layers"] = json!([]), "0 layers and its configuration 1");
    refused(
        LAYER,
        |it| it["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json"),
        "helm",
    );
    refused(LAYER, |it| it["layers"][0]["digest"] = json!("sha512:00"), "no digest");
    refused("application/vnd.oci.image.layer.nondistributable.v1.tar", |_| {}, "nondistributable");
    refused("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", |_| {}, "encrypted");
}

#[test]
fn a_document_that_was_changed_or_is_for_another_machine_is_refused() {
    let mut memory = Memory::default();
    let top = manifest(&mut memory, architecture(), LAYER, |_| {});
    let text = memory.0.get_mut(top["digest"].as_str().unwrap()).unwrap();
    text.push(b' ');
    assert!(matches!(resolve(&memory, &descriptor(&top), &Limits::none()), Err(SourceError::Changed { .. })));
    let mut memory = Memory::default();
    let top = manifest(&mut memory, "s390x", LAYER, |_| {});
    assert!(matches!(
        resolve(&memory, &descriptor(&top), &Limits::none()),
        Err(SourceError::Platform { .. })
    ));
    let error = parse(br#"{"schemaVersion":2,"layers":[],"layers":[]}"#, "", Digest::of(b"")).unwrap_err();
    assert!(error.to_string().contains("duplicate field"), "{error}");
}
