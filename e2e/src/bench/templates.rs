//! Templates against what does without them, on one pool: a container that is a clone against the image's layer unpacked by `tar`
//! for it, and the making of a template against `umoci unpack` of the same image.
//!
//! The other sides are the quickest that a node has: `tar` checks no digest, and crun is called without any engine around.

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Figure, Sizes, median};
use crate::registry::MANIFEST;
use crate::shell::{exec_ok, ok, sh};
use crate::suite::Failure;

/// A dataset of its own: the node's memory does not hold two such images.
const DATASET: &str = "tank/bench-templates";
const WORK: &str = "/tank/bench-templates";
const NAME: &str = "bench";
/// Size of each file of the image.
const FILE_KIB: u32 = 256;

/// `template_start`, `template_run`, `template_create`.
pub fn figures(sizes: &Sizes) -> Result<Vec<Figure>, Failure> {
    let bench = Bench::make(sizes.image_mib)?;
    let mut create = (Vec::new(), Vec::new());
    for _ in 0..sizes.image_runs {
        create.0.push(bench.create()?);
        create.1.push(bench.unpack()?);
    }
    bench.template()?;
    let mut start = (Vec::new(), Vec::new());
    for _ in 0..sizes.image_runs {
        start.0.push(bench.clone_and_start()?);
        start.1.push(bench.untar_and_start()?);
    }
    let mut run = (Vec::new(), Vec::new());
    // Twice the runs: one is short.
    for _ in 0..sizes.runs * 2 {
        run.0.push(bench.detach(
            &["cryopod", "run", "--detach", "--template", NAME, NAME, "--", "/bin/sleep", "1000"],
            "cryopod",
        )?);
        run.1.push(bench.detach(&["crun", "run", "--detach", "--bundle", WORK, NAME], "crun")?);
    }
    let mib = sizes.image_mib;
    let figure = |key, what, (ours, stock), target| Figure {
        key,
        what,
        unit: "ms",
        ours,
        stock,
        target,
        middle: median,
    };
    Ok(vec![
        figure(
            "template_start",
            format!("/bin/true in a container of an image of {mib} MiB, start to removal: of a template, against tar and crun"),
            start,
            Some(0.1),
        ),
        figure(
            "template_run",
            "until a container runs: `cryopod run --detach --template` against `crun run --detach` on what is unpacked".to_owned(),
            run,
            None,
        ),
        figure(
            "template_create",
            format!("a template of an OCI layout of {mib} MiB against `umoci unpack` of it"),
            create,
            Some(0.8),
        ),
    ])
}

/// What one call takes, in milliseconds.
fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// The image, as an OCI layout and as the archive of its one layer; everything is removed when dropped.
struct Bench;

impl Bench {
    fn make(mib: u32) -> Result<Self, Failure> {
        sh(&format!("zfs destroy -r {DATASET} 2>/dev/null"))?;
        ok(&format!("zfs create {DATASET}"))?;
        let bench = Self;
        let files = mib * 1024 / FILE_KIB;
        // Half of each file can be compressed, as with programs and their data.
        ok(&format!(
            "mkdir -p {WORK}/image/bin {WORK}/image/data {WORK}/image/dev {WORK}/image/proc {WORK}/image/sys && cd {WORK} && \
             cp /bin/busybox image/bin/ && for a in sh true sleep; do ln -s busybox image/bin/$a; done && \
             python3 -c 'import os\nfor n in range({files}):\n b = os.urandom({FILE_KIB} << 9)\n \
             open(f\"image/data/{{n}}\", \"wb\").write(b + b[:1024] * ({FILE_KIB} >> 1))' && \
             tar -cf layer.tar -C image . && gzip -1k layer.tar && rm -r image && mkdir -p layout/blobs/sha256"
        ))?;
        bench.layout()?;
        ok(&format!(
            "cd {WORK} && crun spec && jq '.process.terminal = false | .root.readonly = false | .process.args = [\"/bin/sleep\", \"1000\"]' \
             config.json > sleep.json && jq '.process.args = [\"/bin/true\"]' sleep.json > true.json"
        ))?;
        Ok(bench)
    }

    /// The layout around the layer.
    fn layout(&self) -> Result<(), Failure> {
        let layer = format!("{WORK}/layer.tar.gz");
        let (packed, size) = digest_of(&layer)?;
        let (plain, _) = digest_of(&format!("{WORK}/layer.tar"))?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": [plain] },
        });
        let (config, config_size) = blob(&config.to_string())?;
        let kind = |kind: &str| format!("application/vnd.oci.image.{kind}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "layers": [{ "mediaType": kind("layer.v1.tar+gzip"), "digest": packed, "size": size }],
            "config": { "mediaType": kind("config.v1+json"), "digest": config, "size": config_size },
        });
        let (manifest, manifest_size) = blob(&manifest.to_string())?;
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": manifest, "size": manifest_size,
            "annotations": { "org.opencontainers.image.ref.name": "1" },
        }] });
        write(&format!("{WORK}/layout/index.json"), &index.to_string())?;
        write(&format!("{WORK}/layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        ok(&format!("ln {layer} {}", place(&packed))).map(drop)
    }

    fn template(&self) -> Result<(), Failure> {
        exec_ok(&["cryopod", "template", "create", NAME, &format!("oci:{WORK}/layout:1")]).map(drop)
    }

    fn create(&self) -> Result<f64, Failure> {
        let time = timed(|| self.template())?;
        ok(&format!("cryopod template delete {NAME} && cryopod template prune && zpool sync tank"))?;
        Ok(time)
    }

    fn unpack(&self) -> Result<f64, Failure> {
        let time = timed(|| ok(&format!("umoci unpack --image {WORK}/layout:1 {WORK}/bundle")))?;
        ok(&format!("rm -rf {WORK}/bundle && zpool sync tank"))?;
        Ok(time)
    }

    fn clone_and_start(&self) -> Result<f64, Failure> {
        timed(|| exec_ok(&["cryopod", "run", "--template", NAME, NAME, "--", "/bin/true"]))
    }

    /// Leaves the unpacked root there; the next one makes it anew.
    fn untar_and_start(&self) -> Result<f64, Failure> {
        ok(&format!(
            "cd {WORK} && rm -rf rootfs && mkdir rootfs && cp true.json config.json && zpool sync tank"
        ))?;
        let time = timed(|| ok(&format!("cd {WORK} && tar -xzf layer.tar.gz -C rootfs && crun run {NAME}")))?;
        ok(&format!("cp {WORK}/sleep.json {WORK}/config.json"))?;
        Ok(time)
    }

    fn detach(&self, argv: &[&str], program: &str) -> Result<f64, Failure> {
        // Its streams are not ours: nobody would see their end before the container's.
        let line = format!("{} </dev/null >/dev/null 2>&1", argv.join(" "));
        let time = timed(|| ok(&line))?;
        exec_ok(&[program, "delete", "--force", NAME])?;
        Ok(time)
    }
}

/// Puts text into the layout; answers its digest and size.
fn blob(text: &str) -> Result<(String, usize), Failure> {
    let digest = crate::registry::digest(text.as_bytes());
    write(&place(&digest), text)?;
    Ok((digest, text.len()))
}

fn place(digest: &str) -> String {
    format!("{WORK}/layout/blobs/sha256/{}", digest.trim_start_matches("sha256:"))
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

/// Digest and size of a file that is too large for the memory.
fn digest_of(path: &str) -> Result<(String, u64), Failure> {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut size, mut piece) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(piece.get(..read).unwrap_or_default());
        size += read as u64;
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((format!("sha256:{hex}"), size))
}

impl Drop for Bench {
    fn drop(&mut self) {
        let script = format!(
            "cryopod delete --force {NAME}; crun delete --force {NAME}; cryopod template delete {NAME}; \
             cryopod template prune; zfs destroy -r {DATASET}"
        );
        if let Err(error) = sh(&script) {
            eprintln!("clean-up: {error}");
        }
    }
}
