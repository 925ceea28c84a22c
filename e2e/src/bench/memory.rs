//! Memory of the shim of a one-container pod: PSS, mean over five pods of each side, all running at once. Ours includes
//! the process that holds the pod's namespaces; theirs does not include the pause container.

use std::fs;
use std::path::Path;

use super::{Figure, Sizes, mean};
use crate::crictl::{Pod, Spec};
use crate::suite::Failure;

const PODS: usize = 5;

/// `shim_pss`.
pub fn figures(_: &Sizes) -> Result<Vec<Figure>, Failure> {
    let ours = side("cryopod", "containerd-shim-cryopod-v2")?;
    let stock = side("runc-crun", "containerd-shim-runc-v2")?;
    Ok(vec![Figure {
        key: "shim_pss",
        what: format!("PSS of the shim of a one-container pod, {PODS} pods running (each run is one shim)"),
        unit: "bytes",
        ours,
        stock,
        target: Some(0.2),
        middle: mean,
    }])
}

fn side(handler: &str, program: &str) -> Result<Vec<f64>, Failure> {
    let mut pods = Vec::new();
    for n in 0..PODS {
        let pod = Pod::run(handler, &format!("pss-{n}"))?;
        let container = pod.start(&Spec::sh("c", "sleep 1000"))?;
        pods.push((pod, container));
    }
    // What a shim keeps, not what a start needed for a moment.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let Found { shims: mut found, holders } = pss(program)?;
    if found.len() != PODS {
        return Err(format!("{} processes of {program} for {PODS} pods", found.len()));
    }
    // Any shim with any holder: it is the mean that counts.
    for (shim, holder) in found.iter_mut().zip(holders) {
        *shim += holder;
    }
    for (pod, _) in pods {
        pod.remove()?;
    }
    Ok(found)
}

/// PSS in bytes.
#[derive(Default)]
struct Found {
    shims: Vec<f64>,
    holders: Vec<f64>,
}

/// Of every process whose executable has this name.
fn pss(program: &str) -> Result<Found, Failure> {
    let mut found = Found::default();
    for entry in fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?.flatten() {
        let Ok(exe) = fs::read_link(entry.path().join("exe")) else { continue };
        if exe.file_name().is_none_or(|n| n.to_string_lossy() != program) {
            continue;
        }
        let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let side = if words.contains("hold-namespaces") { &mut found.holders } else { &mut found.shims };
        side.push(pss_of(&entry.path())?);
    }
    Ok(found)
}

/// From `smaps_rollup`.
pub(super) fn pss_of(process: &Path) -> Result<f64, Failure> {
    let path = process.join("smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
        .ok_or_else(|| format!("no Pss in {}", path.display()))?;
    Ok(kib * 1024.0)
}
