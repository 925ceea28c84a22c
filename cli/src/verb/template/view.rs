//! Templates as people read them.

use cryopod_image::{Pruned, Stored};
use jiff::Timestamp;

use crate::output::style::Palette;
use crate::output::table::Table;
use crate::output::units;
use crate::verb::fields;

/// The list, by name.
pub(super) fn list(templates: &[Stored], now: Timestamp, palette: Palette) -> String {
    if templates.is_empty() {
        return "no templates; `cryopod template create NAME IMAGE` makes one".into();
    }
    let mut table = Table::new(["NAME", "IMAGE", ">AGE", ">SIZE", ">LAYERS", ">USED BY"]);
    for stored in templates {
        let template = &stored.template;
        table.row([
            template.name.as_str().into(),
            template.image.clone().into(),
            units::age(template.created, now).into(),
            units::bytes(template.bytes).into(),
            template.layers.len().to_string().into(),
            stored.users.len().to_string().into(),
        ]);
    }
    table.render(palette)
}

/// Everything about one.
pub(super) fn show(stored: &Stored, palette: Palette) -> String {
    let (template, config) = (&stored.template, &stored.template.config);
    let words = |words: &[String]| serde_json::to_string(words).unwrap_or_default();
    let mut lines = vec![
        ("name", template.name.to_string()),
        ("image", template.image.clone()),
        ("digest", template.digest.to_string()),
        ("created", template.created.to_string()),
        ("place", stored.place.clone()),
        ("size", format!("{} in {} entries", units::bytes(template.bytes), template.entries)),
        ("its own", units::bytes(stored.used_bytes)),
    ];
    let optional = [
        ("entrypoint", words(&config.entrypoint), config.entrypoint.is_empty()),
        ("command", words(&config.command), config.command.is_empty()),
        ("environment", words(&config.env), config.env.is_empty()),
        ("user", config.user.clone(), config.user.is_empty()),
        ("directory", config.working_dir.clone(), config.working_dir.is_empty()),
        ("stop signal", config.stop_signal.clone(), config.stop_signal.is_empty()),
        ("volumes", config.volumes.join(" "), config.volumes.is_empty()),
    ];
    lines.extend(optional.into_iter().filter(|(_, _, absent)| !absent).map(|(name, value, _)| (name, value)));
    lines.extend(config.labels.iter().map(|(name, value)| ("label", format!("{name}={value}"))));
    lines.extend(template.layers.iter().map(|layer| ("layer", layer.to_string())));
    lines.extend(stored.users.iter().map(|user| ("used by", user.clone())));
    fields(&lines, palette)
}

/// What `prune` did.
pub(super) fn pruned(pruned: &Pruned, dry_run: bool) -> String {
    let mut text = String::new();
    for (what, names) in [("unused layer", &pruned.layers), ("half made", &pruned.half_made)] {
        for name in names {
            text.push_str(&format!("{what}  {name}\n"));
        }
    }
    let count = pruned.layers.len() + pruned.half_made.len();
    let word = if dry_run { "would be deleted" } else { "deleted" };
    text.push_str(&format!("{count} {word}, {}\n", units::bytes(pruned.bytes)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_names_what_it_deletes_and_says_when_it_does_not() {
        let found = Pruned { layers: vec!["tank/x/layers/ab".into()], half_made: Vec::new(), bytes: 2048 };
        assert_eq!(pruned(&found, true), "unused layer  tank/x/layers/ab\n1 would be deleted, 2.0 KiB\n");
        assert_eq!(pruned(&Pruned::default(), false), "0 deleted, 0 B\n");
    }
}
