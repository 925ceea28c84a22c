//! Pods whose cgroups systemd makes, as kubelet wants it with `cgroupDriver: systemd` (the default of kubeadm).

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::Case;
use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::Checkpoint;
use crate::shell;
use crate::suite::{Failure, ensure};
use crate::ticks;

pub const CASES: &[Case] =
    &[("a_pod_under_a_systemd_slice_is_captured_and_restored_into_a_scope", true, under_a_slice)];

fn slice(name: &str) -> String {
    format!("kubepods-besteffort-pod{name}.slice")
}

fn pod(name: &str, from: Option<&str>) -> Result<Pod, Failure> {
    let notes: BTreeMap<String, String> =
        from.map(|id| ("cryopod.dev/restore-from".to_owned(), id.to_owned())).into_iter().collect();
    Pod::run_with("cryopod", name, &notes, &json!({"linux": {"cgroup_parent": slice(name)}}))
}

fn is_in_its_scope(container: &Container, name: &str) -> Result<(), Failure> {
    let path = format!("/proc/{}/cgroup", container.pid()?);
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let wanted = format!("/{}/cri-containerd-{}.scope", slice(name), container.id);
    // crun makes one more group inside.
    ensure(text.contains(&wanted), || format!("{path}: {text:?} does not name {wanted}"))?;
    let active = shell::ok(&format!("systemctl is-active cri-containerd-{}.scope", container.id))?;
    ensure(active == "active", || format!("its scope is {active}"))
}

/// systemd removes a slice when nothing is in it; kubelet removes those of its pods itself.
fn gone(name: &str) -> Result<(), Failure> {
    shell::ok(&format!(
        "systemctl stop {} kubepods-besteffort.slice kubepods.slice; systemctl reset-failed 'cri-containerd-*' || true",
        slice(name)
    ))
    .map(drop)
}

fn under_a_slice() -> Result<(), Failure> {
    let source = pod("old", None)?;
    let spec = Spec::counter("counter");
    let container = source.start(&spec)?;
    is_in_its_scope(&container, "old")?;
    let before = ticks::beyond(&container, 3)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    ticks::goes_on(&container, &before)?;
    source.remove()?;
    let next = pod("new", Some(&checkpoint.id))?;
    let restored = next.start(&spec)?;
    ticks::goes_on(&restored, &before)?;
    is_in_its_scope(&restored, "new")?;
    // It can be frozen again where it is now.
    let again = Checkpoint::with(&next.id, &["--mode", "full"])?;
    ticks::goes_on(&restored, &before)?;
    next.remove()?;
    gone("old")?;
    gone("new")?;
    again.delete()?;
    checkpoint.delete().map(drop)
}
