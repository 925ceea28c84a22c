//! `cryopod audit`: the log of operations on this node, for people.

use std::time::Duration;

use cryopod_checkpoint::audit::{self, Log, Outcome, Record, Verdict};
use cryopod_checkpoint::kind::Kind;
use serde_json::json;

use crate::args::AuditVerb;
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::style::{Palette, Style};
use crate::output::table::Table;
use crate::output::units;

/// Shows or checks it.
pub(crate) fn run(context: &Context, verb: AuditVerb) -> Result<u8, Error> {
    need_root("audit")?;
    let dir = context.audit_dir();
    let log = Log::at(&dir);
    let failed = |source| Error::Read { what: "directory", path: dir.clone(), source };
    match verb {
        AuditVerb::List(args) => {
            let records = audit::records(&log, args.lines).map_err(failed)?;
            context.output.result(&json!(records), |palette| table(&records, palette))?;
        }
        AuditVerb::Verify => {
            let verdict = audit::verify(&log).map_err(failed)?;
            context.output.result(&json!(verdict), |palette| render(&verdict, palette))?;
            if let Some(first) = verdict.breaks.first() {
                let reasons = format!("{} line {}: {}", first.file.display(), first.line, first.what);
                let (failed, all) =
                    (verdict.breaks.len(), usize::try_from(verdict.records).unwrap_or(usize::MAX));
                return Err(Error::Several { failed, all, worst: Kind::DataLoss, reasons });
            }
        }
    }
    Ok(exit::OK)
}

fn render(verdict: &Verdict, palette: Palette) -> String {
    let mut lines = Vec::new();
    for broken in &verdict.breaks {
        lines.push(format!("{} line {}: {}", broken.file.display(), broken.line, broken.what));
    }
    let from = if verdict.first > 1 { format!(" from {} on", verdict.first) } else { String::new() };
    let state = if verdict.breaks.is_empty() { "whole" } else { "broken" };
    lines.push(format!("{} records{from}: {}", verdict.records, palette.paint(Style::Strong, state)));
    if !verdict.head.is_empty() {
        lines.push(format!("head {}", verdict.head));
    }
    lines.join("\n")
}

fn table(records: &[Record], palette: Palette) -> String {
    let mut table = Table::new([">NUMBER", "TIME", "OPERATION", "CHECKPOINT", "POD", "BY", "OUTCOME"]);
    for record in records {
        let pod = record.pod.as_ref().map(|pod| match pod.namespace.as_str() {
            "" => pod.name.clone(),
            namespace => format!("{namespace}/{}", pod.name),
        });
        let by = match (&record.actor.user, &record.actor.login) {
            (Some(user), _) => format!("{} for {user}", record.actor.program),
            (None, Some(login)) => format!("{} (login {login})", record.actor.program),
            (None, None) => record.actor.program.clone(),
        };
        table.row([
            record.number.to_string().into(),
            record.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string().into(),
            format!("{:?}", record.operation).to_lowercase().into(),
            record.checkpoint.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            pod.unwrap_or_default().into(),
            by.into(),
            outcome(record).into(),
        ]);
    }
    if records.is_empty() { "nothing was done yet".to_owned() } else { table.render(palette) }
}

fn outcome(record: &Record) -> String {
    match (record.outcome, record.freeze_us, record.bytes) {
        (Outcome::Failure, ..) => {
            format!("failed: {}", record.message.as_deref().unwrap_or("no reason given"))
        }
        (Outcome::Success, Some(freeze), Some(bytes)) => {
            let freeze = units::duration(Duration::from_micros(freeze));
            format!("done, {}, stood still for {freeze}", units::bytes(bytes))
        }
        (Outcome::Success, ..) => record.message.clone().unwrap_or_else(|| "done".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use cryopod_checkpoint::audit::{Actor, Entry, Operation};

    use super::*;

    #[test]
    fn people_see_who_did_what_and_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::at(dir.path());
        let actor =
            Actor { program: "cryopod".into(), pid: 1, uid: 0, login: Some("1000".into()), user: None };
        let id = "web-1".parse().unwrap();
        let failed: Result<(), &str> = Err("no space");
        log.append(Entry::new(Operation::Delete).checkpoint(&id).result(&failed), actor).unwrap();
        let text = table(&audit::records(&log, 5).unwrap(), Palette::new(false));
        for word in ["delete", "web-1", "cryopod (login 1000)", "failed: no space"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(table(&[], Palette::new(false)), "nothing was done yet");
        assert!(render(&audit::verify(&log).unwrap(), Palette::new(false)).contains("1 records: whole"));
    }
}
