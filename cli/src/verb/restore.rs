//! `cryopod restore`: brings a standalone container back, under its name or another, detached or in the foreground.
//!
//! Nothing that exists is overwritten: the container gets a bundle of its own with the captured root mounted in it;
//! volumes are filled only where they are empty (or the person says so); a name that is taken is an error.

mod origin;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_checkpoint::manifest::MemberRecord;
use cryopod_checkpoint::restore::{LiveRootfs, LiveVolume, PlaceRequest, Placed, place};
use cryopod_checkpoint::target::{DiskRole, TcpPolicy};
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::connections::{self, Verdict};
use cryopod_runtime::node_facts;
use cryopod_runtime::spec::Spec;
use serde_json::{Value, json};

use super::checkpoint::tcp;
use super::checkpoints::LOOK;
use crate::args::{RestoreArgs, TcpArg};
use crate::context::{Context, Opened, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::progress::Progress;
use crate::select;
use crate::standalone::bundle::{Bundle, cgroup_path};
use crate::standalone::registry::Entry;
use crate::standalone::session::{Begin, Session};
use crate::standalone::state::State;
use crate::standalone::stdio::Ends;
use crate::standalone::{self, detached, placement};

/// Settling, copying where there is no ZFS, and the images: bounded by SIGINT before this.
const WHOLE: Duration = Duration::from_secs(3600);

/// Restores.
pub(crate) fn run(context: &Context, args: &RestoreArgs) -> Result<u8, Error> {
    need_root("restore")?;
    let opened = context.open_store(&context.signals.limits(LOOK))?;
    let limits = context.signals.limits(WHOLE);
    let all = opened.store.list(&limits)?;
    let info = select::one(&all, &args.source, args.snapshot.as_deref())?.clone();
    let manifest = opened.store.manifest(&info.id, &limits)?;
    let record = only_member(&info, &manifest.members)?;
    origin::check(&info, args.bundle.as_deref())?;
    let id = args.name.clone().unwrap_or_else(|| record.member.id.clone());
    let entry = context.registry().claim(&id)?;
    let prepared = prepare(context, args, &opened, &info, record, &entry, &limits);
    let (placed, state) = prepared.inspect_err(|_| standalone::discard(context, &entry))?;
    let begin = match &placed.images {
        Some(images) => {
            let spec = Spec::of_bundle(&state.bundle).map_err(cryopod_runtime::error::Error::from);
            let spec = spec.inspect_err(|_| standalone::discard(context, &entry))?;
            let memory = record.memory.as_ref();
            let connected = memory.and_then(|memory| memory.connected.as_deref()).unwrap_or_default();
            let verdict = connections(args.tcp, manifest.tcp, connected, &spec);
            verdict.note.iter().for_each(|note| context.output.note(note));
            Begin::Restore { images: images.clone(), tcp: verdict.tcp }
        }
        None => Begin::Run,
    };
    for note in &placed.notes {
        context.output.note(note);
    }
    if args.attach {
        let pid_file = args.pid_file.clone();
        let session = Session { context, entry: &entry, begin, ends: Ends::Ours, pid_file };
        let alive = session.begin()?;
        // Its images have been read; the checkpoint may go while it runs.
        drop(placed.reading);
        return super::run::stay(context, &session, alive, false);
    }
    let progress = Progress::begin(&context.output, "bringing memory back");
    let started = detached::spawn(context, &entry, begin, args.pid_file.clone());
    drop(progress);
    let pid = started.inspect_err(|_| standalone::discard(context, &entry))?;
    let memory = placed.images.is_some();
    let value = json!({
        "id": id, "checkpoint": info.id, "pid": pid, "bundle": state.bundle,
        "memory": memory, "notes": placed.notes,
    });
    context.output.result(&value, |_| id.clone())?;
    let how = if memory { "goes on where it was" } else { "started afresh on its old disk" };
    context.output.note(&format!("{id} {how} (PID {pid}); its output: {}/log", entry.dir().display()));
    Ok(exit::OK)
}

/// Established TCP connections: an option decides before the choice made at the capture, and both give way to what is
/// possible here, since one connection without its address would make the whole restore fail.
fn connections(asked: Option<TcpArg>, captured: TcpPolicy, connected: &[IpAddr], spec: &Spec) -> Verdict {
    connections::on_restore(asked.map_or(captured, tcp), connected, spec)
}

/// The container of a standalone checkpoint. Pods come back through kubelet, which gives them network and volumes.
fn only_member<'a>(info: &CheckpointInfo, members: &'a [MemberRecord]) -> Result<&'a MemberRecord, Error> {
    match members {
        [only] if info.pod.namespace.is_empty() && joins_nothing(&only.member.spec) => Ok(only),
        _ => Err(Error::RestoresAsPod { id: info.id.clone() }),
    }
}

/// Whether it lives in namespaces of its own, which a restore can make anew.
fn joins_nothing(spec: &Value) -> bool {
    let spec = Spec::from_value(spec.clone());
    ["network", "pid", "ipc", "uts", "mount", "cgroup"].iter().all(|kind| spec.namespace_path(kind).is_none())
}

/// Makes bundle, disk and state.
fn prepare(
    context: &Context,
    args: &RestoreArgs,
    opened: &Opened,
    info: &CheckpointInfo,
    record: &MemberRecord,
    entry: &Entry,
    limits: &Limits,
) -> Result<(Placed, State), Error> {
    let runtime = match &args.runtime {
        Some(runtime) => runtime.clone(),
        None => origin::runtime(context.config()?, &info.id, &record.member.runtime)?,
    };
    let backend = context.backend(Some(&runtime))?;
    let cgroup = cgroup_path(&backend, entry.id());
    let (spec, beside) = match &args.bundle {
        Some(dir) => {
            let theirs = Bundle::open(dir)?;
            let spec = Spec::of_bundle(&theirs.dir).map_err(cryopod_runtime::error::Error::from)?;
            (spec.into_value(), Some(theirs.dir))
        }
        None => (record.member.spec.clone(), None),
    };
    let bundle = make_bundle(entry, spec, beside.as_deref(), &cgroup)?;
    let volumes = volumes(&bundle.dir, record, args)?;
    let mut state = State::new(entry.id(), bundle.dir, bundle.rootfs, runtime, bundle.terminal);
    state.restored_from = Some(info.id.to_string());
    // Before anything is made, so that whoever finds this after a crash knows what to remove.
    state.placed = true;
    entry.begin(&state)?;
    let facts = node_facts::read(&context.config()?.criu.path, limits);
    let request = PlaceRequest {
        checkpoint: &info.id,
        member: &record.member.name,
        container: entry.id(),
        rootfs: LiveRootfs::Tree { path: state.rootfs.clone() },
        volumes: &volumes,
        filled: &[],
        on_filled: &|_| (),
        facts: Some(&facts),
        backend: Some(backend.name()),
        requested_by: None,
    };
    let progress = Progress::begin(&context.output, "placing the disk");
    let placed = place(&opened.store, &context.journal()?, &request, limits)?;
    drop(progress);
    placement::mount_on(opened, &placed.rootfs, &state.rootfs, limits)?;
    Ok((placed, state))
}

/// A bundle of the container's own: this specification, and an empty directory to mount the captured disk on.
fn make_bundle(entry: &Entry, spec: Value, beside: Option<&Path>, cgroup: &str) -> Result<Bundle, Error> {
    let dir = entry.dir().join("bundle");
    let path = dir.join("config.json");
    let spec = adapted(spec, beside, cgroup);
    let written = serde_json::to_vec(&spec).map_err(std::io::Error::from).and_then(|json| {
        std::fs::create_dir_all(dir.join("rootfs"))?;
        std::fs::write(&path, json)
    });
    written.map_err(|source| Error::Write { what: "bundle", path, source })?;
    Bundle::open(&dir)
}

/// The specification for this container: its root; a cgroup of its own, named in full, since runc takes a missing path
/// for one beside its own cgroup and CRIU for one below the root; and sources that do not depend on the directory.
fn adapted(mut spec: Value, beside: Option<&Path>, cgroup: &str) -> Value {
    if let Some(root) = spec.get_mut("root").and_then(Value::as_object_mut) {
        root.insert("path".into(), json!("rootfs"));
    }
    if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
        linux.insert("cgroupsPath".into(), json!(cgroup));
    }
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten();
    for mount in mounts {
        let is_bind = mount
            .get("options")
            .and_then(Value::as_array)
            .is_some_and(|options| options.iter().any(|option| option == "bind" || option == "rbind"));
        if let (true, Some(base), Some(Value::String(source))) = (is_bind, beside, mount.get_mut("source")) {
            *source = base.join(&*source).display().to_string();
        }
    }
    spec
}

/// The directories that captured volumes go back into. They are the bundle's, and must be empty: the captured
/// container may still run and write to its own.
fn volumes(bundle: &Path, record: &MemberRecord, args: &RestoreArgs) -> Result<Vec<LiveVolume>, Error> {
    let mounts = Spec::of_bundle(bundle).map_err(cryopod_runtime::error::Error::from)?.mounts();
    let mut live = Vec::new();
    for disk in &record.member.disks {
        let DiskRole::Volume { destination, name } = &disk.role else { continue };
        let Some(mount) = mounts.iter().find(|mount| mount.is_bind() && mount.destination == *destination)
        else {
            continue;
        };
        // Relative ones are relative to the bundle (config.md); an absolute one stays what it is.
        let source = bundle.join(&mount.source);
        let entries = std::fs::read_dir(&source).map_err(|error| Error::Read {
            what: "volume",
            path: source.clone(),
            source: error,
        })?;
        if entries.count() > 0 && !args.overwrite_volumes {
            return Err(Error::VolumeInUse { name: name.clone(), path: source });
        }
        let destination = destination.clone();
        live.push(LiveVolume { destination, source, replace: args.overwrite_volumes });
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn connections_are_kept_as_the_option_says_else_as_the_capture_chose() {
        let spec = Spec::from_value(json!({ "linux": { "namespaces": [{ "type": "network" }] } }));
        let connected = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let tcp = |asked, captured| connections(asked, captured, &connected, &spec).tcp;
        assert_eq!(tcp(None, TcpPolicy::Close), TcpPolicy::Close);
        assert_eq!(tcp(None, TcpPolicy::Keep), TcpPolicy::Keep);
        assert_eq!(tcp(Some(TcpArg::Keep), TcpPolicy::Close), TcpPolicy::Keep);
        assert_eq!(tcp(Some(TcpArg::Close), TcpPolicy::Keep), TcpPolicy::Close);
    }

    #[test]
    fn a_copy_gets_a_root_and_a_cgroup_of_its_own_and_keeps_its_mounts() {
        let spec = json!({
            "root": { "path": "old", "readonly": true },
            "linux": { "cgroupsPath": "/a/b", "x": 1 },
            "mounts": [
                { "type": "proc", "source": "proc" },
                { "source": "data", "options": ["rbind"] },
                { "source": "/srv", "options": ["bind"] }
            ]
        });
        let expected = json!({
            "root": { "path": "rootfs", "readonly": true },
            "linux": { "cgroupsPath": "/cryopod-web", "x": 1 },
            "mounts": [
                { "type": "proc", "source": "proc" },
                { "source": "/b/data", "options": ["rbind"] },
                { "source": "/srv", "options": ["bind"] }
            ]
        });
        let made = adapted(spec, Some(Path::new("/b")), "/cryopod-web");
        assert_eq!(made, expected);
    }

    #[test]
    fn a_container_of_a_pod_is_known_by_the_namespaces_it_joins() {
        let own = json!({ "linux": { "namespaces": [{ "type": "network" }, { "type": "pid" }] } });
        assert!(joins_nothing(&own));
        let joined = json!({ "linux": { "namespaces": [{ "type": "network", "path": "/run/netns/x" }] } });
        assert!(!joins_nothing(&joined));
    }
}
