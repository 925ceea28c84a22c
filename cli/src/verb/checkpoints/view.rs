//! Checkpoints as people read them: the list, and everything about one.

use std::time::Duration;

use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_checkpoint::manifest::{CapturedMode, DiskContent, Manifest, MemberRecord};
use cryopod_checkpoint::timeline::Timeline;
use jiff::Timestamp;

use crate::output::style::{Palette, Style};
use crate::output::table::{Cell, Table};
use crate::output::timeline::{self, Freeze, Phase, View};
use crate::output::{printable, units};
use crate::select::pod_name;
use crate::verb::fields;

/// The list, newest first.
pub(super) fn list(checkpoints: &[CheckpointInfo], now: Timestamp, palette: Palette) -> String {
    if checkpoints.is_empty() {
        return "no checkpoints; `cryopod checkpoint NAME` makes one of a running container or pod".into();
    }
    let mut table = Table::new(["ID", "POD", "MODE", ">AGE", ">MEMORY", ">DISK", "STATE"]);
    for checkpoint in checkpoints {
        table.row([
            Cell::from(checkpoint.id.as_str()),
            pod_name(checkpoint).into(),
            mode(checkpoint.mode).into(),
            units::age(checkpoint.created, now).into(),
            units::bytes(checkpoint.memory_bytes).into(),
            units::bytes(checkpoint.disk_bytes).into(),
            state(checkpoint),
        ]);
    }
    table.render(palette)
}

fn state(checkpoint: &CheckpointInfo) -> Cell {
    let mut words = vec![if checkpoint.settled { "settled" } else { "settling" }];
    if checkpoint.held {
        words.push("held");
    }
    if !checkpoint.sharers.is_empty() {
        words.push("shared");
    }
    let style = if checkpoint.settled { Style::Success } else { Style::Warning };
    Cell::styled(style, words.join(", "))
}

/// The word for a mode.
pub(crate) fn mode(mode: CapturedMode) -> &'static str {
    match mode {
        CapturedMode::Full => "full",
        CapturedMode::Disk => "disk",
    }
}

/// Everything about one.
pub(super) fn show(info: &CheckpointInfo, manifest: &Manifest, palette: Palette) -> String {
    let mut lines = vec![
        ("id", info.id.to_string()),
        ("pod", pod_name(info)),
        ("created", manifest.created.to_string()),
        ("mode", mode_and_why(manifest)),
        ("settled", if info.settled { "yes: independent of its source" } else { "not yet" }.to_owned()),
        ("memory", units::bytes(info.memory_bytes)),
        ("disk", units::bytes(info.disk_bytes)),
        ("node", format!("{}, kernel {}", manifest.node.hostname, manifest.node.kernel)),
        ("criu", manifest.node.criu.clone().unwrap_or_else(|| "none".into())),
        ("made by", manifest.tool.clone()),
    ];
    if info.imported {
        lines.push(("imported", "yes: from a stream, whose sender says whose it is".to_owned()));
    }
    if info.held {
        lines.push(("held", "yes: prune never deletes it".to_owned()));
    }
    if !manifest.labels.is_empty() {
        let labels = manifest.labels.iter().map(|(name, value)| format!("{name}={value}"));
        lines.push(("labels", labels.collect::<Vec<_>>().join(" ")));
    }
    if !info.sharers.is_empty() {
        lines.push(("shared by", info.sharers.join(" ")));
    }
    let mut text = fields(&lines, palette);
    for record in &manifest.members {
        text.push_str(&member(record, palette));
    }
    let view = view(&manifest.timeline);
    text.push_str(&format!("\n{}", timeline::render(&view, palette)));
    text.push_str(&format!("    {}\n", timeline::summary(&view, palette)));
    text
}

/// `full`, or `disk` with the reason why mode `auto` left the memory out.
pub(crate) fn mode_and_why(manifest: &Manifest) -> String {
    match &manifest.memory_refused {
        None => mode(manifest.mode).to_owned(),
        Some(refusal) => {
            format!("{}, without memory: {} [{}]", mode(manifest.mode), refusal.text, refusal.code)
        }
    }
}

fn member(record: &MemberRecord, palette: Palette) -> String {
    let member = &record.member;
    let title = palette.paint(Style::Strong, &printable(&member.name));
    let image =
        if member.image.is_empty() { String::new() } else { format!(", {}", printable(&member.image)) };
    let mut text = format!("\n{title}  {}{image}\n", printable(&member.runtime));
    if let Some(memory) = &record.memory {
        let bytes: u64 = memory.files.iter().map(|file| file.size).sum();
        let rounds = memory.rounds.len();
        let frozen = units::duration(Duration::from_micros(memory.frozen_us));
        text.push_str(&format!(
            "  memory    {} in {} files, {rounds} round{}, CRIU froze it {frozen}\n",
            units::bytes(bytes),
            memory.files.len(),
            if rounds == 1 { "" } else { "s" },
        ));
    }
    for disk in &record.disks {
        text.push_str(&format!("  {:8}  {}\n", printable(&disk.name), content(&disk.content)));
    }
    text
}

fn content(content: &DiskContent) -> String {
    match content {
        DiskContent::Zfs { guid, base, referenced_bytes, .. } => {
            let base = base.map_or_else(|| "whole".into(), |base| format!("on base {}", base.0));
            format!("ZFS snapshot {}, {} referenced, {base}", guid.0, units::bytes(*referenced_bytes))
        }
        DiskContent::Tree { bytes, entries, layer, .. } => {
            let what = if *layer { "writable layer" } else { "copy" };
            format!("{what} of {entries} entries, {}", units::bytes(*bytes))
        }
        DiskContent::Shared { member, disk } => format!("the same as {disk} of {}", printable(member)),
    }
}

/// A timeline as it is drawn. The freeze begins with the phase that says so.
pub(crate) fn view(recorded: &Timeline) -> View {
    let phases: Vec<Phase> = recorded
        .phases
        .iter()
        .map(|phase| Phase {
            name: phase.name.clone(),
            start: Duration::from_micros(phase.start_us),
            took: Duration::from_micros(phase.duration_us),
        })
        .collect();
    let begin = phases.iter().find(|phase| phase.name.starts_with("freeze")).map(|phase| phase.start);
    let freeze = match (begin, recorded.freeze_us) {
        (None, _) => Freeze::Never,
        // A window that was never closed.
        (Some(begin), 0) => Freeze::ForGood(begin),
        (Some(begin), _) => Freeze::For(begin, recorded.freeze()),
    };
    View { phases, freeze, total: recorded.total() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::tests::info;
    use cryopod_checkpoint::timeline;

    #[test]
    fn the_list_shows_whose_it_is_and_whether_it_stands_alone() {
        let settling =
            CheckpointInfo { settled: false, held: true, ..info("web-2", "default", "web", 6_400) };
        let now = Timestamp::from_second(10_000).unwrap();
        let shown = list(&[settling, info("counter-1", "", "counter", 9_990)], now, Palette::new(false));
        let expected = "ID         POD          MODE   AGE   MEMORY     DISK  STATE\n\
                        web-2      default/web  full  60 m  1.0 MiB  2.0 MiB  settling, held\n\
                        counter-1  counter      full  10 s  1.0 MiB  2.0 MiB  settled\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_freeze_window_begins_with_its_phase() {
        let phase = |name: &str, start_us| timeline::Phase { name: name.into(), start_us, duration_us: 5 };
        let recorded = Timeline {
            phases: vec![phase("prepare", 0), phase("freeze", 10), phase("commit", 30)],
            freeze_us: 15,
            total_us: 40,
            ..Timeline::default()
        };
        let at = Duration::from_micros;
        assert_eq!(view(&recorded).freeze, Freeze::For(at(10), at(15)));
        let stopped = Timeline { freeze_us: 0, ..recorded.clone() };
        assert_eq!(view(&stopped).freeze, Freeze::ForGood(at(10)));
        assert_eq!(view(&Timeline { phases: vec![], ..recorded }).freeze, Freeze::Never);
    }
}
