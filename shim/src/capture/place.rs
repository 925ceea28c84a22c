//! Putting a checkpoint in place of a new container: at Create, before anything is mounted, and nothing is executed.
//!
//! What was brought back of the pod already ([`super::marks`]) is not brought back again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::fault;
use cryopod_checkpoint::id::{CheckpointId, Reference};
use cryopod_checkpoint::lock::Share;
use cryopod_checkpoint::manifest::Manifest;
use cryopod_checkpoint::restore::{self, LiveRootfs, LiveVolume, PlaceRequest, Replacement, RootfsPlacement};
use cryopod_checkpoint::target::TcpPolicy;
use cryopod_command::Limits;
use cryopod_runtime::disk::{self, Class, SourceKind};
use cryopod_runtime::spec::{ContainerType, Mount as SpecMount, Spec, annotation};
use cryopod_runtime::{connections, node_facts};

use super::{DoorError, Node};
use crate::bundle::Brief;
use crate::capture::marks::Marks;
use crate::mounts::Mount;
use crate::together::Company;

/// What a new container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// CRIU images in a directory, by `CreateTaskRequest.checkpoint`; its root is already what it has to be.
    Images(PathBuf),
    /// A checkpoint of the store, by annotation.
    Checkpoint(Reference),
}

/// How a container is to come to life, and on which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Memory images; `None` to start afresh.
    pub images: Option<PathBuf>,
    /// Who comes back with it.
    pub company: Company,
    /// What is mounted as its root.
    pub mounts: Vec<Mount>,
    /// Whether the store made a root for it, to be forgotten with it.
    pub own_root: bool,
    /// Established TCP connections.
    pub tcp: TcpPolicy,
    /// Keeps the images until they have been read.
    pub reading: Option<Share>,
}

/// What the annotations of a container ask for; nothing when it was restored before.
///
/// # Errors
/// When the checkpoint's name is none.
pub fn wish(marks: &Marks, brief: &Brief, id: &str) -> Result<Option<Wish>, DoorError> {
    let Some(from) = brief.annotation(annotation::RESTORE_FROM).filter(|_| !brief.is_sandbox()) else {
        return Ok(None);
    };
    let checkpoint: Reference = from.parse()?;
    let always = match brief.annotation(annotation::RESTORE_POLICY).unwrap_or("once") {
        "once" => false,
        "always" => true,
        other => {
            let value = other.to_owned();
            return Err(DoorError::Choice {
                what: annotation::RESTORE_POLICY,
                value,
                expected: "once or always",
            });
        }
    };
    if !always && marks.is_started(brief, id) {
        return Ok(None);
    }
    Ok(Some(Wish::Checkpoint(checkpoint)))
}

/// A new container, nothing of which is mounted yet.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'a> {
    /// Its id.
    pub id: &'a str,
    /// The containerd namespace of that id.
    pub namespace: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// What its annotations say.
    pub brief: &'a Brief,
    /// The root that it was given.
    pub given: &'a [Mount],
    /// Name of the backend that will run it.
    pub backend: &'a str,
    /// Bundles of the containers that live in the pod now.
    pub neighbours: &'a [PathBuf],
}

/// Places the checkpoint that the pod names for a new container. A pod of Kubernetes is given none of another namespace:
/// whoever may make pods in one namespace may not for that reason read the memory of those in another.
///
/// # Errors
/// See [`DoorError`]; then the root that was given is as it was.
pub fn place(
    node: &Node,
    marks: &Marks,
    wanted: &Reference,
    new: &Newcomer<'_>,
    limits: &Limits,
) -> Result<Prepared, DoorError> {
    node.recover(limits);
    let Newcomer { id, bundle, given, .. } = *new;
    let spec = Spec::of_bundle(bundle).map_err(cryopod_runtime::error::Error::from)?;
    let name = spec.name(id);
    let namespace = new.brief.pod(id).namespace;
    let checkpoint = &node.store.find(wanted, &namespace, limits)?;
    let manifest = node.store.manifest(checkpoint, limits)?;
    let theirs = &manifest.pod.namespace;
    if !namespace.is_empty() && !theirs.is_empty() && *theirs != namespace {
        return Err(DoorError::Foreign {
            checkpoint: checkpoint.to_string(),
            theirs: theirs.clone(),
            ours: namespace,
        });
    }
    let members = manifest.members.iter().filter(|member| member.memory.is_some());
    let company = Company {
        members: members.map(|member| member.member.name.clone()).collect(),
        patience: Duration::from_secs(node.config.checkpoint.together_timeout.0),
    };
    let fresh = Prepared {
        checkpoint: checkpoint.clone(),
        images: None,
        company,
        mounts: given.to_vec(),
        own_root: false,
        tcp: TcpPolicy::Close,
        reading: None,
    };
    if is_other(&manifest, &spec, name) {
        let known: Vec<&str> = manifest.members.iter().map(|record| record.member.name.as_str()).collect();
        let (checkpoint, known) = (checkpoint.as_str(), known.join(", "));
        tracing::info!(id, name, checkpoint, known, "not in the checkpoint: started afresh");
        return Ok(fresh);
    }
    let policy = volume_policy(&spec)?;
    let mut placing = marks.placing(new.brief, id)?;
    let volumes = volumes(&spec, policy);
    let kept = placing.kept(&volumes, &in_use(new.neighbours));
    let filled = RefCell::new(Vec::new());
    let facts = node_facts::read(&node.config.criu.path, limits);
    let request = PlaceRequest {
        checkpoint,
        member: name,
        container: &restore::container_key(new.namespace, id),
        rootfs: live_rootfs(given, bundle)?,
        volumes: &volumes,
        filled: &kept,
        on_filled: &|volume| filled.borrow_mut().push(volume.clone()),
        facts: Some(&facts),
        backend: Some(new.backend),
        requested_by: new.brief.annotation(annotation::REQUESTED_BY),
    };
    let placed = restore::place(&node.store, &node.journal, &request, limits);
    let noted = placing.filled(&filled.borrow());
    let placed = placed?;
    noted?;
    placing.placed(&volumes)?;
    for note in &placed.notes {
        tracing::info!(id, checkpoint = checkpoint.as_str(), note, "restore");
    }
    fault::step("shim.create.placed")?;
    let mounts = match &placed.rootfs {
        RootfsPlacement::InPlace => given.to_vec(),
        RootfsPlacement::MountInstead(instead) => vec![instead_mount(instead)],
    };
    let own_root = placed.rootfs != RootfsPlacement::InPlace;
    let tcp = connections_here(&manifest, name, &spec, id);
    let reading = Some(placed.reading);
    Ok(Prepared { images: placed.images, mounts, own_root, tcp, reading, ..fresh })
}

/// Whether the container is one of the pod's that the checkpoint does not have, and simply starts: an init container
/// that had done its work, or one that the pod did not have then. Nothing in a spec tells these from an application
/// under a new name. Outside of pods a name is an id, which says nothing about what a container is: there, restoring
/// under another one is a mistake that restore tells.
fn is_other(manifest: &Manifest, spec: &Spec, name: &str) -> bool {
    let of_pod = |spec: &Spec| spec.container_type() == ContainerType::Container;
    manifest.member(name).is_none()
        && of_pod(spec)
        && manifest.members.iter().any(|record| of_pod(&Spec::from_value(record.member.spec.clone())))
}

/// What a pod wants with volumes that are not its own alone, and are not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VolumePolicy {
    Refuse,
    Overwrite,
    Keep,
}

fn volume_policy(spec: &Spec) -> Result<VolumePolicy, DoorError> {
    match spec.annotation(annotation::RESTORE_VOLUMES).unwrap_or("refuse") {
        "refuse" => Ok(VolumePolicy::Refuse),
        "overwrite" => Ok(VolumePolicy::Overwrite),
        "keep" => Ok(VolumePolicy::Keep),
        other => {
            let (value, expected) = (other.to_owned(), "refuse, overwrite or keep");
            Err(DoorError::Choice { what: annotation::RESTORE_VOLUMES, value, expected })
        }
    }
}

/// The directories that captured volumes may be brought back into. An emptyDir is the pod's own, whatever an init
/// container has left there. Any other may be used by somebody else at this moment, even by the pod that was captured.
fn volumes(spec: &Spec, policy: VolumePolicy) -> Vec<LiveVolume> {
    let live = |mount: SpecMount| {
        let own = match disk::classify(&mount, SourceKind::Directory) {
            Class::EmptyDir => true,
            Class::Other if policy == VolumePolicy::Keep => return None,
            Class::Other => policy == VolumePolicy::Overwrite,
            // Read only, or written by kubelet.
            Class::Live | Class::File => return None,
        };
        Some(LiveVolume { destination: mount.destination, source: mount.source, replace: own })
    };
    directories(spec).filter_map(live).collect()
}

/// The directories of the host that a container has mounted.
fn directories(spec: &Spec) -> impl Iterator<Item = SpecMount> + use<> {
    spec.mounts().into_iter().filter(|mount| mount.is_bind() && mount.source.is_dir())
}

/// What containers with these bundles have mounted. One whose bundle is gone has nothing any more.
fn in_use(bundles: &[PathBuf]) -> BTreeSet<PathBuf> {
    let specs = bundles.iter().filter_map(|bundle| Spec::of_bundle(bundle).ok());
    specs.flat_map(|spec| directories(&spec)).map(|mount| mount.source).collect()
}

/// Whether established TCP connections go on in this pod: if its maker wanted it, and all of them can.
fn connections_here(manifest: &Manifest, name: &str, spec: &Spec, id: &str) -> TcpPolicy {
    let memory = manifest.member(name).and_then(|member| member.memory.as_ref());
    let connected = memory.and_then(|memory| memory.connected.as_deref()).unwrap_or_default();
    let verdict = connections::on_restore(manifest.tcp, connected, spec);
    if let Some(note) = verdict.note {
        tracing::info!(id, note, "restore");
    }
    verdict.tcp
}

fn live_rootfs(given: &[Mount], bundle: &Path) -> Result<LiveRootfs, DoorError> {
    let Some(root) = given.iter().find(|mount| mount.target.is_empty()) else {
        return Ok(LiveRootfs::Tree { path: bundle.join("rootfs") });
    };
    let upper = root.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    Ok(match (root.kind.as_str(), upper) {
        ("zfs", _) => LiveRootfs::Zfs { dataset: root.source.parse().map_err(DoorError::StoreRoot)? },
        ("overlay", Some(upper)) => LiveRootfs::Overlay { upper: upper.into() },
        _ => LiveRootfs::Tree { path: root.source.clone().into() },
    })
}

fn instead_mount(instead: &Replacement) -> Mount {
    match instead {
        Replacement::Zfs { dataset } => {
            Mount { kind: "zfs".to_owned(), source: dataset.to_string(), ..Mount::default() }
        }
        Replacement::Bind { path } => Mount {
            kind: "bind".to_owned(),
            source: path.display().to_string(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
            ..Mount::default()
        },
    }
}

#[cfg(test)]
mod foreign;

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn wish(brief: &Brief, id: &str) -> Result<Option<Wish>, DoorError> {
        super::wish(&Marks::at("/nonexistent", "/nonexistent"), brief, id)
    }

    #[test]
    fn only_what_is_the_pods_own_is_replaced_and_nothing_that_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let make = |below: &str| {
            let path = dir.path().join(below);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let empty_dir = make("kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache");
        let claim = make("kubelet/pods/u/volumes/kubernetes.io~csi/pvc/mount");
        let (host, frozen) = (make("srv"), make("frozen"));
        let mount = |to: &str, from: &Path, mode: &str| json!({"destination": to, "source": from, "type": "bind", "options": ["rbind", mode]});
        let spec = |policy: &str| {
            Spec::from_value(json!({
                "annotations": {"cryopod.dev/restore-volumes": policy},
                "mounts": [
                    mount("/cache", &empty_dir, "rw"),
                    mount("/claim", &claim, "rw"),
                    mount("/host", &host, "rw"),
                    mount("/frozen", &frozen, "ro"),
                ],
            }))
        };
        let live = |policy: &str| {
            let spec = spec(policy);
            let live = volumes(&spec, volume_policy(&spec).unwrap());
            live.into_iter().map(|it| (it.destination.display().to_string(), it.replace)).collect::<Vec<_>>()
        };
        let wanted = |claim, host| {
            let all = [("/cache", true), ("/claim", claim), ("/host", host)];
            all.map(|(to, replace)| (to.to_owned(), replace)).to_vec()
        };
        assert_eq!(live("refuse"), wanted(false, false));
        assert_eq!(live("overwrite"), wanted(true, true));
        assert_eq!(live("keep"), [("/cache".to_owned(), true)]);
        let error = volume_policy(&spec("always")).unwrap_err().to_string();
        assert!(error.contains("restore-volumes") && error.contains("keep"), "{error}");
        assert_eq!(directories(&spec("keep")).count(), 4, "all of them may be in use by a neighbour");
    }

    fn brief(annotations: &str) -> Brief {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), format!("{{\"annotations\":{annotations}}}")).unwrap();
        Brief::read(dir.path()).unwrap()
    }

    #[test]
    fn the_annotation_asks_for_a_restore_but_never_of_the_sandbox() {
        let app =
            brief(r#"{"cryopod.dev/restore-from":"web-1","io.kubernetes.cri.container-type":"container"}"#);
        assert_eq!(wish(&app, "c").unwrap(), Some(Wish::Checkpoint("web-1".parse().unwrap())));
        let pause =
            brief(r#"{"cryopod.dev/restore-from":"web-1","io.kubernetes.cri.container-type":"sandbox"}"#);
        assert_eq!(wish(&pause, "c").unwrap(), None);
        assert_eq!(wish(&brief("{}"), "c").unwrap(), None);
    }

    #[test]
    fn wrong_annotations_are_errors_that_name_them() {
        assert!(wish(&brief(r#"{"cryopod.dev/restore-from":"../x"}"#), "c").is_err());
        let policy = brief(r#"{"cryopod.dev/restore-from":"web-1","cryopod.dev/restore-policy":"maybe"}"#);
        let error = wish(&policy, "c").unwrap_err().to_string();
        assert!(error.contains("restore-policy") && error.contains("once or always"), "{error}");
    }

    /// A checkpoint of one container, as CRI or as nobody described it.
    fn checkpoint_of(name: &str, annotations: &serde_json::Value) -> Manifest {
        let sample = include_str!("../../../checkpoint/src/manifest/v1.json");
        let mut manifest: Manifest = serde_json::from_str(sample).unwrap();
        manifest.members.truncate(1);
        manifest.members[0].member.name = name.to_owned();
        manifest.members[0].member.spec = serde_json::json!({"annotations": annotations});
        manifest
    }

    #[test]
    fn a_container_of_a_pod_that_the_checkpoint_does_not_have_starts_afresh() {
        let cri = |name: &str| {
            let annotations = serde_json::json!({
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": name,
            });
            Spec::from_value(serde_json::json!({"annotations": annotations}))
        };
        let pod = checkpoint_of("app", &cri("app").value()["annotations"]);
        assert!(is_other(&pod, &cri("setup"), "setup"), "an init container beside one application");
        assert!(!is_other(&pod, &cri("app"), "app"));
        let standalone = Spec::from_value(serde_json::json!({}));
        assert!(!is_other(&pod, &standalone, "app-2"), "a standalone container is told what there is");
        let alone = checkpoint_of("app-1", &serde_json::json!({}));
        assert!(!is_other(&alone, &cri("setup"), "setup"), "no container of a pod has the name of another's");
    }

    #[test]
    fn the_given_root_is_recognised() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Mount::default()
        };
        let bundle = Path::new("/b");
        let zfs = live_rootfs(&[mount("zfs", "tank/containerd/7", &[])], bundle).unwrap();
        assert_eq!(zfs, LiveRootfs::Zfs { dataset: "tank/containerd/7".parse().unwrap() });
        let overlay =
            live_rootfs(&[mount("overlay", "overlay", &["lowerdir=/l", "upperdir=/u"])], bundle).unwrap();
        assert_eq!(overlay, LiveRootfs::Overlay { upper: "/u".into() });
        assert_eq!(live_rootfs(&[], bundle).unwrap(), LiveRootfs::Tree { path: "/b/rootfs".into() });
        let bind = live_rootfs(&[mount("bind", "/snap/1/fs", &["rbind"])], bundle).unwrap();
        assert_eq!(bind, LiveRootfs::Tree { path: "/snap/1/fs".into() });
    }
}
