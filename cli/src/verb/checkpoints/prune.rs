//! `cryopod checkpoints prune`: deletes what no rule keeps, or says what it would delete.

use cryopod_checkpoint::retention::{self, Plan, Policy, Reason};
use cryopod_checkpoint::store::Pruned;
use jiff::Timestamp;
use serde_json::json;

use super::{DELETE, LOOK, of, several};
use crate::args::PruneArgs;
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::output::style::{Palette, Style};
use crate::output::table::{Cell, Table};

/// Plans, and unless it is a dry run deletes.
pub(super) fn run(context: &Context, args: &PruneArgs) -> Result<u8, Error> {
    need_root("checkpoints prune")?;
    let limits = context.signals.limits(LOOK);
    let store = context.open_store(&limits)?.store;
    let checkpoints = of(store.list(&limits)?, args.pod.as_deref())?;
    let plan = retention::plan(&checkpoints, &policy(args), Timestamp::now());
    let mut errors = Vec::new();
    let mut done = Plan { keep: plan.keep.clone(), delete: Vec::new() };
    for id in &plan.delete {
        if args.dry_run {
            done.delete.push(id.clone());
            continue;
        }
        // The list is old by now: somebody may have restored or held it meanwhile.
        match store.delete_unless_used(id, &context.signals.limits(DELETE)) {
            Ok(Pruned::Deleted(_)) => done.delete.push(id.clone()),
            Ok(Pruned::Kept(reason)) => done.keep.push((id.clone(), reason)),
            Err(error) => errors.push(Error::from(error)),
        }
    }
    let keep: Vec<_> = done.keep.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
    let value = json!({ "dry_run": args.dry_run, "keep": keep, "delete": done.delete });
    context.output.result(&value, |palette| render(&done, args.dry_run, palette))?;
    several(errors, plan.delete.len())
}

fn policy(args: &PruneArgs) -> Policy {
    Policy {
        keep_last: args.keep_last.unwrap_or(0),
        keep_hourly: args.keep_hourly.unwrap_or(0),
        keep_daily: args.keep_daily.unwrap_or(0),
        keep_weekly: args.keep_weekly.unwrap_or(0),
        keep_monthly: args.keep_monthly.unwrap_or(0),
        keep_yearly: args.keep_yearly.unwrap_or(0),
    }
}

fn render(plan: &Plan, dry_run: bool, palette: Palette) -> String {
    let mut table = Table::new(["CHECKPOINT", "", "WHY"]);
    for (id, reason) in &plan.keep {
        let why = reason_text(*reason);
        table.row([Cell::from(id.as_str()), Cell::styled(Style::Success, "keep"), why.into()]);
    }
    let word = if dry_run { "would go" } else { "deleted" };
    for id in &plan.delete {
        table.row([Cell::from(id.as_str()), Cell::styled(Style::Warning, word), "no rule keeps it".into()]);
    }
    let mut text = table.render(palette);
    let (kept, gone) = (plan.keep.len(), plan.delete.len());
    text.push_str(&format!(
        "\n{kept} kept, {gone} {}\n",
        if dry_run { "would be deleted" } else { "deleted" }
    ));
    text
}

fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "there is no rule",
        Reason::Held => "a person holds it",
        Reason::InUse => "something lives on its disks",
        Reason::BeingRead => "a restore or an export reads it",
        Reason::Settling => "not yet independent of its source",
        Reason::Future => "its time is in the future",
        Reason::Last => "keep-last",
        Reason::Hourly => "keep-hourly",
        Reason::Daily => "keep-daily",
        Reason::Weekly => "keep-weekly",
        Reason::Monthly => "keep-monthly",
        Reason::Yearly => "keep-yearly",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_so_in_every_line_that_matters() {
        let plan = Plan {
            keep: vec![("web-2".parse().unwrap(), Reason::Last)],
            delete: vec!["web-1".parse().unwrap()],
        };
        let expected = "CHECKPOINT            WHY\n\
                        web-2       keep      keep-last\n\
                        web-1       would go  no rule keeps it\n\n\
                        1 kept, 1 would be deleted\n";
        assert_eq!(render(&plan, true, Palette::new(false)), expected);
        assert!(render(&plan, false, Palette::new(false)).contains("1 kept, 1 deleted"));
    }
}
