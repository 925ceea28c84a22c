//! `cryopod recover`: finishes or undoes what a crash or a kill left behind, and lets unsettled checkpoints settle.
//!
//! Safe at any time and as often as one likes; what a living process is doing is left alone. Containers are thawed before
//! the store is opened, which may fail or take long.

use std::time::Duration;

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::recover::{Failure, Recovery, Report};
use cryopod_runtime::oci::sweep_lxc;
use cryopod_runtime::repair::OciRepair;
use serde_json::{Value, json};

use crate::context::{Context, need_root};
use crate::error::Error;
use crate::output::progress::Progress;
use crate::output::style::{Palette, Style};
use crate::standalone::leftovers;
use crate::{exit, pods, settling};

/// Every repair has its own bound; this only ends a pool that hangs.
const WHOLE: Duration = Duration::from_secs(600);

/// Recovers everything on this node.
pub(crate) fn run(context: &Context) -> Result<u8, Error> {
    need_root("recover")?;
    let limits = context.signals.limits(WHOLE);
    let progress = Progress::begin(&context.output, "looking for what was left");
    let recovery = Recovery::begin(&context.journal()?, &OciRepair)?;
    let opened = context.open_store(&limits);
    let report = match &opened {
        Ok(opened) => recovery.everything(&opened.store, &OciRepair, &limits),
        Err(_) => recovery.without_store(),
    };
    let shims = pods::forget_dead(&context.root)?;
    leftovers::sweep(&context.root);
    let lxc = sweep_lxc(context.config()?, &limits).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was left of LXC containers stays");
        Vec::new()
    });
    drop(progress);
    if let Ok(opened) = &opened {
        for id in &report.unsettled {
            settling::begin(context, opened, id, false)?;
        }
    }
    context.output.result(&view(&report, &shims, &lxc), |palette| render(&report, &shims, &lxc, palette))?;
    opened?;
    if report.failures.is_empty() {
        return Ok(exit::OK);
    }
    let reasons = report.failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("; ");
    let (failed, all) = (report.failures.len(), report.failures.len() + report.operations.len());
    Err(Error::Several { failed, all, worst: Kind::Unavailable, reasons })
}

fn view(report: &Report, shims: &[String], lxc: &[String]) -> Value {
    let damaged: Vec<_> =
        report.damaged.iter().map(|file| json!({ "path": file.path, "reason": file.reason })).collect();
    json!({
        "operations": report.operations,
        "repaired": report.repaired,
        "ended": report.ended,
        "removed": report.removed,
        "settling": report.unsettled,
        "reaped": report.reaped,
        "strangers": report.strangers,
        "dead_shims": shims,
        "lxc_containers": lxc,
        "damaged": damaged,
        "in_progress": report.alive,
        "failures": report.failures.iter().map(Failure::to_string).collect::<Vec<_>>(),
    })
}

fn render(report: &Report, shims: &[String], lxc: &[String], palette: Palette) -> String {
    let mut lines = Vec::new();
    let mut line = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            lines.push(format!("{}  {}", palette.paint(Style::Strong, what), names.join(" ")));
        }
    };
    line("finished or undone", report.operations.clone());
    line("LXC containers removed that were left half-made or of before a boot", lxc.to_vec());
    line("put right", report.repaired.clone());
    line("ended after their checkpoint", report.ended.clone());
    line("unfinished checkpoints removed", report.removed.iter().map(ToString::to_string).collect());
    line("now settling", report.unsettled.iter().map(ToString::to_string).collect());
    line("files of dead shims removed", shims.to_vec());
    line(
        "damaged journal files moved aside",
        report.damaged.iter().map(|d| d.path.display().to_string()).collect(),
    );
    line("in progress, left alone", report.alive.clone());
    line("in the store without a mark of cryopod, left alone", report.strangers.clone());
    if report.reaped > 0 {
        line("leftover pieces freed", vec![report.reaped.to_string()]);
    }
    if lines.is_empty() {
        lines.push("nothing to recover".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_node_is_said_to_be_clean() {
        assert_eq!(render(&Report::default(), &[], &[], Palette::new(false)), "nothing to recover");
        let report = Report { repaired: vec!["web".into()], reaped: 2, ..Report::default() };
        let expected = "put right  web\nleftover pieces freed  2";
        assert_eq!(render(&report, &[], &[], Palette::new(false)), expected);
    }
}
