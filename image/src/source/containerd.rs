//! Images that containerd has. Its own command says which digest a reference means; the blobs are read from its content
//! store, where they lie as files under their digests.
//!
//! That is smaller than a gRPC client and as sound: blobs are immutable, appear there by rename once they are complete,
//! and are verified here by digest like everything else. What containerd collects meanwhile is a missing blob, never a
//! wrong one.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use cryopod_command::{Command, Limits};

use super::SourceError;
use crate::digest::Digest;
use crate::manifest::{Blobs, Descriptor};

/// A listing of one image.
const ASK: Duration = Duration::from_secs(30);
/// containerd's default root; `CRYOPOD_CONTAINERD_ROOT` names another.
const ROOT: &str = "/var/lib/containerd";
const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";

/// containerd's content store.
pub(super) struct Content(PathBuf);

impl Content {
    /// Asks containerd for an image by its reference.
    pub(super) fn find(
        reference: &str,
        namespace: &str,
        limits: &Limits,
    ) -> Result<(Self, Descriptor), SourceError> {
        let filter = format!("name=={reference}");
        let command = Command::new("ctr").args(["--namespace", namespace, "images", "ls", filter.as_str()]);
        let answer =
            command.run(&limits.at_most(ASK)).map_err(|error| SourceError::Containerd(Box::new(error)))?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let missing =
            || SourceError::NoImage { reference: reference.to_owned(), namespace: namespace.to_owned() };
        let digest = digest_of(&text, reference).ok_or_else(missing)?;
        let root =
            std::env::var_os("CRYOPOD_CONTAINERD_ROOT").map_or_else(|| PathBuf::from(ROOT), PathBuf::from);
        let content = Self(root.join(BLOBS));
        let path = content.0.join(digest.hex());
        let size = path.metadata().map_err(SourceError::io("find", &path))?.len();
        Ok((content, Descriptor { digest: digest.to_string(), size, ..Descriptor::default() }))
    }
}

/// The digest in the line of an image: `REF TYPE DIGEST SIZE …`.
fn digest_of(listing: &str, reference: &str) -> Option<Digest> {
    let line = listing.lines().find(|line| line.split_whitespace().next() == Some(reference))?;
    line.split_whitespace().find_map(|word| word.parse().ok())
}

impl Blobs for Content {
    fn blob(&self, digest: &Digest, _size: u64) -> Result<Box<dyn Read + '_>, SourceError> {
        let path = self.0.join(digest.hex());
        match File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(SourceError::NoBlob {
                digest: *digest,
                place: format!(
                    "{} (containerd was told to discard unpacked layers, or has collected it: pull the image again)",
                    self.0.display()
                ),
            }),
            Err(error) => Err(SourceError::io("open", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_stands_in_the_line_of_the_image() {
        let hex = "ab".repeat(32);
        let listing = format!(
            "REF  TYPE DIGEST SIZE PLATFORMS LABELS\n\
             localhost/busybox:1-x application/vnd.oci.image.manifest.v1+json sha256:{} 1.1 MiB linux/amd64 -\n\
             localhost/busybox:1 application/vnd.oci.image.manifest.v1+json sha256:{hex} 1.1 MiB linux/amd64 -\n",
            "cd".repeat(32)
        );
        assert_eq!(digest_of(&listing, "localhost/busybox:1").unwrap().hex(), hex);
        assert_eq!(digest_of(&listing, "localhost/busybox"), None);
    }
}
