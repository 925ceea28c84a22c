//! Images for these tests, made in the node of busybox and a few files, in every form that `template create` reads.

use std::fs;

use serde_json::{Value, json};

use crate::registry::{MANIFEST, Registry, digest};
use crate::shell;
use crate::suite::Failure;

/// Everything that these tests make on the node's disk.
pub const WORK: &str = "/run/cryopod-e2e/templates";
/// The registry of these tests.
pub const REGISTRY: Registry = Registry { address: "127.0.0.1:5078", unit: "templates-registry" };
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image as files: its layers packed and unpacked, its configuration and its manifest.
pub struct Image {
    layers: Vec<(Vec<u8>, Vec<u8>)>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn read(path: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| format!("{path}: {e}"))
}

/// The base, busybox with a user and a file to serve, some megabytes so that sharing it can be seen.
pub fn base() -> Result<(), Failure> {
    shell::ok(&format!(
        "rm -rf {WORK} && mkdir -p {WORK}/base && cd {WORK}/base && \
         mkdir -p bin dev etc home/web lib proc sys tmp usr/lib srv && chmod 1777 tmp && \
         cp /bin/busybox bin/busybox && chmod 4755 bin/busybox && \
         for a in sh cat echo id sleep pwd env stat ls; do ln -s busybox bin/$a; done && \
         echo 'root:x:0:0::/root:/bin/sh' > etc/passwd && echo 'web:x:1000:1000::/home/web:/bin/sh' >> etc/passwd && \
         echo 'web:x:1000:' > etc/group && echo 'adm:x:4:web' >> etc/group && chown 1000:1000 home/web && \
         head -c 8M /dev/urandom > usr/lib/large && echo base > etc/version && echo gone > srv/old && \
         ln etc/version etc/also && mknod -m 640 lib/node c 1 3 && cp bin/busybox bin/ping && \
         setcap cap_net_raw+ep bin/ping 2>/dev/null; \
         tar --xattrs --xattrs-include='*' --format=pax -cf ../base.tar --sort=name ."
    ))
    .map(drop)
}

/// A second layer, which changes a file and hides others.
pub fn upper(name: &str, version: &str) -> Result<(), Failure> {
    shell::ok(&format!(
        "mkdir -p {WORK}/{name}/etc {WORK}/{name}/srv && cd {WORK}/{name} && echo {version} > etc/version && \
         : > srv/.wh.old && echo new > srv/new && tar --format=pax -cf ../{name}.tar --sort=name etc/version srv"
    ))
    .map(drop)
}

impl Image {
    /// An image of layers that are tar archives in the working directory.
    pub fn of(layers: &[&str], config: &Value) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for name in layers {
            let path = format!("{WORK}/{name}.tar");
            shell::ok(&format!("gzip -nkf {path}"))?;
            all.push((read(&path)?, read(&format!("{path}.gz"))?));
        }
        let diff_ids: Vec<String> = all.iter().map(|(plain, _)| digest(plain)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let listed: Vec<Value> = all
            .iter()
            .map(|(_, packed)| json!({ "mediaType": LAYER, "digest": digest(packed), "size": packed.len() }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": listed,
            "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
        });
        Ok(Self { layers: all, config, manifest: manifest.to_string().into_bytes() })
    }

    /// As an OCI image layout; its directory.
    pub fn layout(&self, name: &str) -> Result<String, Failure> {
        let dir = format!("{WORK}/{name}.layout");
        let blobs = format!("{dir}/blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| format!("{blobs}: {e}"))?;
        let packed = self.layers.iter().map(|(_, packed)| packed);
        for blob in packed.chain([&self.config, &self.manifest]) {
            write(&format!("{blobs}/{}", digest(blob).trim_start_matches("sha256:")), blob)?;
        }
        let manifest = json!({
            "mediaType": MANIFEST, "digest": digest(&self.manifest), "size": self.manifest.len(),
            "annotations": {
                "org.opencontainers.image.ref.name": "1", "io.containerd.image.name": format!("localhost/{name}:1")
            },
        });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        write(&format!("{dir}/index.json"), index.to_string().as_bytes())?;
        write(&format!("{dir}/oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(dir)
    }

    /// The same in an archive; its path.
    pub fn oci_archive(&self, name: &str) -> Result<String, Failure> {
        let dir = self.layout(name)?;
        let path = format!("{WORK}/{name}.oci.tar");
        shell::ok(&format!("tar -cf {path} -C {dir} oci-layout index.json blobs"))?;
        Ok(path)
    }

    /// As `docker save` writes it; its path.
    pub fn docker_archive(&self, name: &str) -> Result<String, Failure> {
        let dir = format!("{WORK}/{name}.docker");
        let config = format!("{}.json", digest(&self.config).trim_start_matches("sha256:"));
        let mut names = Vec::new();
        for (number, (plain, _)) in self.layers.iter().enumerate() {
            let layer = format!("layer{number}/layer.tar");
            let folder = format!("{dir}/layer{number}");
            fs::create_dir_all(&folder).map_err(|e| format!("{folder}: {e}"))?;
            write(&format!("{dir}/{layer}"), plain)?;
            names.push(layer);
        }
        write(&format!("{dir}/{config}"), &self.config)?;
        let manifest =
            json!([{ "Config": config, "RepoTags": [format!("localhost/{name}:1")], "Layers": names }]);
        write(&format!("{dir}/manifest.json"), manifest.to_string().as_bytes())?;
        let path = format!("{WORK}/{name}.docker.tar.gz");
        shell::ok(&format!("tar -czf {path} -C {dir} ."))?;
        Ok(path)
    }

    /// Into the registry, as `NAME:1`.
    pub fn push(&self, name: &str) -> Result<(), Failure> {
        for blob in self.layers.iter().map(|(_, packed)| packed).chain([&self.config]) {
            REGISTRY.put_blob(blob)?;
        }
        REGISTRY.put_manifest(name, "1", &self.manifest)
    }
}

fn write(path: &str, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| format!("{path}: {e}"))
}
