//! What the checkpoint tests have in common: a pod that counts, a new pod made from a checkpoint, volumes as kubelet
//! lays them out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::crictl::{Container, Pod, Spec};
use crate::shell::{exec_ok, ok};
use crate::suite::Failure;
use crate::ticks::{self, Ticks};

/// A pod with one container that counts.
pub struct Counting {
    /// The pod.
    pub pod: Pod,
    /// Its container.
    pub container: Container,
    /// The container's specification, for restores.
    pub spec: Spec,
    /// What it had counted when the test got it.
    pub before: Ticks,
}

/// Starts one.
pub fn counting(handler: &str) -> Result<Counting, Failure> {
    counting_with(handler, &[], Spec::counter("counter"))
}

/// Starts one with annotations of its pod.
pub fn counting_with(handler: &str, notes: &[(&str, &str)], spec: Spec) -> Result<Counting, Failure> {
    let pod = Pod::run_with(handler, "source", &annotations(notes), &json!({}))?;
    let container = pod.start(&spec)?;
    let before = ticks::beyond(&container, 3)?;
    Ok(Counting { pod, container, spec, before })
}

/// A new pod with one container, made from a checkpoint.
pub fn restore(
    handler: &str,
    name: &str,
    checkpoint: &str,
    spec: &Spec,
) -> Result<(Pod, Container), Failure> {
    let pod = restored_pod(handler, name, checkpoint, &[])?;
    let container = pod.start(spec)?;
    Ok((pod, container))
}

/// The sandbox of a pod that is to be restored; its containers come back as they are started.
pub fn restored_pod(
    handler: &str,
    name: &str,
    checkpoint: &str,
    notes: &[(&str, &str)],
) -> Result<Pod, Failure> {
    let mut notes = annotations(notes);
    notes.insert("cryopod.dev/restore-from".into(), checkpoint.into());
    Pod::run_with(handler, name, &notes, &json!({}))
}

fn annotations(notes: &[(&str, &str)]) -> BTreeMap<String, String> {
    notes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A directory of the host that a pod uses; removed when dropped.
pub struct Volume {
    host: PathBuf,
    container: &'static str,
    dataset: Option<String>,
}

impl Volume {
    /// An emptyDir of the pod, as kubelet makes it.
    pub fn empty_dir(pod: &Pod, container: &'static str) -> Result<Self, Failure> {
        Self::at(format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/v", pod.uid()), container)
    }

    /// An emptyDir on a dataset of its own.
    pub fn on_zfs(pod: &Pod, container: &'static str) -> Result<Self, Failure> {
        let mut volume = Self::empty_dir(pod, container)?;
        let dataset = format!("tank/volume-{}", pod.uid());
        exec_ok(&["zfs", "create", "-o", &format!("mountpoint={}", volume.host.display()), &dataset])?;
        volume.dataset = Some(dataset);
        Ok(volume)
    }

    /// A directory of the host, as hostPath gives it.
    pub fn host_path(pod: &Pod, container: &'static str) -> Result<Self, Failure> {
        Self::at(format!("/srv/{}", pod.uid()), container)
    }

    fn at(host: String, container: &'static str) -> Result<Self, Failure> {
        std::fs::create_dir_all(&host).map_err(|e| format!("{host}: {e}"))?;
        Ok(Self { host: host.into(), container, dataset: None })
    }

    /// On the host.
    pub fn path(&self) -> &std::path::Path {
        &self.host
    }

    /// The mount in a CRI `ContainerConfig`.
    pub fn mount(&self) -> Value {
        json!({"mounts": [{"container_path": self.container, "host_path": self.host}]})
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Some(dataset) = &self.dataset
            && let Err(e) =
                ok(&format!("for i in 1 2 3 4 5; do zfs destroy -r {dataset} && exit; sleep 1; done; exit 1"))
        {
            eprintln!("clean-up: {e}");
        }
        // The pod's own folder, with the volume in it.
        let path = self.host.display().to_string();
        let top = path.split("/volumes/").next().unwrap_or(&path).to_owned();
        if let Err(e) = std::fs::remove_dir_all(&top) {
            eprintln!("clean-up: {top}: {e}");
        }
    }
}
