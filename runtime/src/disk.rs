//! Which disks of a container belong to its checkpoint: its root, and the writable volumes.
//!
//! Every mount of the spec falls into one [`Class`]. What kubelet or containerd makes for each pod anew (hosts,
//! resolv.conf, tokens, secrets, config maps) and what cannot be written is *live*: the restored pod has its own. All
//! other writable volumes are part of the truth (DESIGN §6): captured, skipped or refused, never forgotten silently.

use std::io;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_checkpoint::target::{Disk, DiskRole, DiskSource};
use cryopod_zfs::DatasetName;

use crate::config::{VolumePolicy, VolumeSection};
use crate::error::of_io;
use crate::mountinfo::MountTable;
use crate::spec::{self, Mount, Spec};

/// Refusal code: a writable volume for which nobody decided.
pub const VOLUME_REFUSED: &str = "volume-refused";
/// Refusal code: a writable single file cannot be captured.
pub const VOLUME_NOT_A_DIRECTORY: &str = "volume-not-a-directory";
/// Refusal code: an annotation with an unknown value.
pub const BAD_ANNOTATION: &str = "bad-annotation";

/// Why the disks of a container are not known.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A path of the container is not there.
    #[error("cannot look at {}: {source}", path.display())]
    Path {
        /// Root or volume.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A dataset has a name that ZFS would not accept.
    #[error("{} is on a dataset named '{dataset}': {reason}", path.display())]
    Dataset {
        /// Where it is mounted.
        path: PathBuf,
        /// As in mountinfo.
        dataset: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A volume stands in the way.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl DiskError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Path { source, .. } => of_io(source),
            Self::Dataset { .. } => Kind::Internal,
            Self::Refused(_) => Kind::FailedPrecondition,
        }
    }
}

/// What a mount of the spec is to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Comes from the live request: not captured, not missed.
    Live,
    /// emptyDir of the pod, or its /dev/shm.
    EmptyDir,
    /// Any other writable directory.
    Other,
    /// A writable file of the host.
    File,
}

/// The captured disks of a container, the root first.
pub fn of_container(
    spec: &Spec,
    rootfs: &Path,
    table: &MountTable,
    defaults: &VolumeSection,
) -> Result<Vec<Disk>, DiskError> {
    let mut disks =
        vec![Disk { name: "rootfs".into(), role: DiskRole::Rootfs, source: source(rootfs, table)? }];
    let annotated = policy_annotation(spec)?;
    for mount in spec.mounts() {
        let class = classify(&mount, kind_of(&mount.source));
        let policy = match class {
            Class::Live => continue,
            Class::EmptyDir => annotated.unwrap_or(defaults.empty_dir),
            Class::Other | Class::File => annotated.unwrap_or(defaults.other),
        };
        match (policy, class) {
            (VolumePolicy::Skip, _) => {}
            (VolumePolicy::Refuse, _) => return Err(refused(&mount).into()),
            (VolumePolicy::Capture, Class::File) => return Err(not_a_directory(&mount).into()),
            (VolumePolicy::Capture, _) => disks.push(Disk {
                name: format!("volume-{}", disks.len() - 1),
                role: DiskRole::Volume { destination: mount.destination.clone(), name: volume_name(&mount) },
                source: source(&mount.source, table)?,
            }),
        }
    }
    Ok(disks)
}

/// How the contents of a directory are captured: its own dataset, its overlay layer, or file by file.
pub fn source(path: &Path, table: &MountTable) -> Result<DiskSource, DiskError> {
    let failed = |source| DiskError::Path { path: path.to_owned(), source };
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let tree = DiskSource::Tree { path: path.clone() };
    let Some(mount) = table.at(&path) else { return Ok(tree) };
    // A bind of something inside a dataset is only a part of what a snapshot would hold.
    let whole = mount.root == Path::new("/");
    Ok(match mount.kind.as_str() {
        "zfs" if whole => {
            let dataset = mount.source.parse::<DatasetName>().map_err(|reason| DiskError::Dataset {
                path: path.clone(),
                dataset: mount.source.clone(),
                reason: reason.to_string(),
            })?;
            DiskSource::Zfs { dataset, mountpoint: path }
        }
        "overlay" if whole => match mount.option("upperdir") {
            Some(upper) => DiskSource::Overlay { upper: upper.into(), merged: path },
            None => tree,
        },
        _ => tree,
    })
}

/// What a volume's source is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A socket, device or pipe: nothing that has contents.
    Special,
}

fn kind_of(source: &Path) -> SourceKind {
    match std::fs::metadata(source) {
        Ok(meta) if meta.is_dir() => SourceKind::Directory,
        Ok(meta) if meta.is_file() => SourceKind::File,
        // Gone or unreadable: the runtime has it mounted, so the worst is assumed.
        Err(_) => SourceKind::Directory,
        Ok(_) => SourceKind::Special,
    }
}

/// What a mount is to a checkpoint.
pub fn classify(mount: &Mount, source: SourceKind) -> Class {
    if !mount.is_bind() || mount.is_read_only() || source == SourceKind::Special {
        return Class::Live;
    }
    let path = mount.source.to_string_lossy();
    let of_kubelet = path.contains("/pods/") && path.contains("/kubelet/");
    let of_sandbox = path.contains("/sandboxes/");
    if source == SourceKind::File {
        let made_for_the_pod = of_kubelet || of_sandbox || is_pod_file(&mount.destination);
        return if made_for_the_pod { Class::Live } else { Class::File };
    }
    if path.contains("/volumes/kubernetes.io~empty-dir/") || mount.destination == Path::new("/dev/shm") {
        return Class::EmptyDir;
    }
    let rewritten = ["projected", "secret", "configmap", "downward-api"];
    if of_kubelet
        && rewritten.iter().any(|plugin| path.contains(&format!("/volumes/kubernetes.io~{plugin}/")))
    {
        return Class::Live;
    }
    Class::Other
}

/// Files that every engine makes anew for each pod.
fn is_pod_file(destination: &Path) -> bool {
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"]
        .iter()
        .any(|known| destination == Path::new(known))
}

/// The emptyDir's name where it is one, else the destination.
fn volume_name(mount: &Mount) -> String {
    let path = mount.source.to_string_lossy();
    let name = path.split("/volumes/kubernetes.io~empty-dir/").nth(1).and_then(|rest| rest.split('/').next());
    name.map_or_else(|| mount.destination.display().to_string(), str::to_owned)
}

fn policy_annotation(spec: &Spec) -> Result<Option<VolumePolicy>, Refusal> {
    match spec.annotation(spec::annotation::VOLUMES) {
        None => Ok(None),
        Some("capture") => Ok(Some(VolumePolicy::Capture)),
        Some("skip") => Ok(Some(VolumePolicy::Skip)),
        Some("refuse") => Ok(Some(VolumePolicy::Refuse)),
        Some(other) => Err(Refusal::new(
            BAD_ANNOTATION,
            format!("annotation {} is '{other}'", spec::annotation::VOLUMES),
            "set it to capture, skip or refuse",
        )),
    }
}

fn refused(mount: &Mount) -> Refusal {
    Refusal::new(
        VOLUME_REFUSED,
        format!("volume {} ({}) is writable", mount.destination.display(), mount.source.display()),
        format!(
            "annotate the pod with {}: capture to make it part of the checkpoint, or skip to leave it out",
            spec::annotation::VOLUMES
        ),
    )
}

fn not_a_directory(mount: &Mount) -> Refusal {
    Refusal::new(
        VOLUME_NOT_A_DIRECTORY,
        format!("volume {} is the single file {}", mount.destination.display(), mount.source.display()),
        format!(
            "mount its directory, mount it read-only, or annotate the pod with {}: skip",
            spec::annotation::VOLUMES
        ),
    )
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
