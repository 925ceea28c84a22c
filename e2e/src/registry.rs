//! A registry in the node, of this test alone: it keeps everything in memory and goes with its unit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::shell::{self, eventually};
use crate::suite::Failure;

/// Media type of the manifests that tests push.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry by its address and the unit that it runs as.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    /// Host and port.
    pub address: &'static str,
    /// systemd's name for it.
    pub unit: &'static str,
}

impl Registry {
    /// Starts it, empty.
    pub fn start(&self) -> Result<(), Failure> {
        let unit = self.unit;
        // One may be left from a run that was interrupted; its content is in memory and may be another's.
        shell::sh(&format!("systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null"))?;
        let port = self.address.rsplit(':').next().unwrap_or_default();
        shell::ok(&format!("systemd-run --quiet --collect --unit={unit} registry -port {port}"))?;
        eventually("the registry answers", Duration::from_secs(20), || {
            Ok(self.request("GET", "/v2/", "text/plain", b"").ok())
        })
    }

    /// Ends it.
    pub fn stop(&self) -> Result<(), Failure> {
        shell::ok(&format!("systemctl stop {}", self.unit)).map(drop)
    }

    /// Pushes a blob; its digest.
    pub fn put_blob(&self, blob: &[u8]) -> Result<String, Failure> {
        let digest = digest(blob);
        // The registry keeps blobs by digest, whatever the repository.
        let path = format!("/v2/blobs/blobs/uploads/?digest={digest}");
        self.request("POST", &path, "application/octet-stream", blob)?;
        Ok(digest)
    }

    /// Pushes a manifest under a repository and tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) -> Result<(), Failure> {
        self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), MANIFEST, manifest)
    }

    /// One HTTP request that has to succeed.
    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<(), Failure> {
        let failed = |e: std::io::Error| format!("registry: {method} {path}: {e}");
        let mut stream = TcpStream::connect(self.address).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(failed)?;
        stream.write_all(body).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        match answer.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(format!("registry: {method} {path}: {}", answer.lines().next().unwrap_or("no answer"))),
        }
    }
}

/// The digest of a blob, as images write it.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
