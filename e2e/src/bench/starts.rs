//! Pod start, second container, exec: CRI calls over one connection (`cribench`), handlers in turn.

use serde_json::Value;

use super::{Figure, Sizes, median};
use crate::shell::exec_ok;
use crate::suite::Failure;

/// `pod_start`, `pod_start_same_runtime`, `pod_start_with_pause`, `second_container_start`, `exec`.
pub fn figures(sizes: &Sizes) -> Result<Vec<Figure>, Failure> {
    let of = |handler, key, what: &str, stock, op, target| -> Result<Figure, Failure> {
        let (ours, stock) = pair(handler, stock, op, sizes.runs)?;
        Ok(Figure { key, what: what.into(), unit: "ms", ours, stock, target, middle: median })
    };
    let compare = |key, what, stock, op, target| of("cryopod", key, what, stock, op, target);
    Ok(vec![
        compare(
            "pod_start",
            "RunPodSandbox + CreateContainer + StartContainer: cryopod (crun) against runc.v2 (runc)",
            "runc",
            "pod",
            Some(0.5),
        )?,
        compare("pod_start_same_runtime", "the same, crun on both sides", "runc-crun", "pod", Some(0.85))?,
        of(
            "cryopod-pause",
            "pod_start_with_pause",
            "the same with sandboxer = \"podsandbox\", a pause container on both sides",
            "runc-crun",
            "pod",
            None,
        )?,
        compare(
            "second_container_start",
            "CreateContainer + StartContainer in a running pod, crun on both sides",
            "runc-crun",
            "second",
            None,
        )?,
        compare("exec", "ExecSync of /bin/true, crun on both sides", "runc-crun", "exec", Some(0.8))?,
    ])
}

/// Totals in milliseconds of both handlers.
fn pair(ours: &str, stock: &str, op: &str, runs: usize) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let n = runs.to_string();
    let text = exec_ok(&["cribench", "-handler", ours, "-alternate", stock, "-op", op, "-n", &n])?;
    let totals = |handler: &str| -> Result<Vec<f64>, Failure> {
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).map_err(|e| format!("cribench: {e}"))?;
            if value["handler"] == handler {
                let runs = value["runs"].as_array().cloned().unwrap_or_default();
                return Ok(runs.iter().filter_map(|r| r["total"].as_f64()).collect());
            }
        }
        Err(format!("cribench printed nothing for {handler}: {text}"))
    };
    Ok((totals(ours)?, totals(stock)?))
}
