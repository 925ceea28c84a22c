//! Finds keys that no one reads, and names the key that was probably meant.
//!
//! A typo in a configuration file must not pass silently: the setting would keep its default and nobody would
//! know. The known keys stand here as a tree, and a test compares it with what the effective configuration prints.

use toml::de::{DeTable, DeValue};

/// Keys of each section; `runtime.*` has free names below it. `routing` is an array of tables.
const SECTIONS: &[(&str, &[&str])] = &[
    ("", &["runtime", "routing", "store", "checkpoint", "volumes", "log", "criu"]),
    ("runtime", &["default"]),
    ("runtime.*", &["path", "root", "extra_args", "systemd_cgroup"]),
    ("routing", &["namespace", "pod", "image", "labels", "annotations", "backend"]),
    ("store", &["kind", "zfs", "dir"]),
    ("store.zfs", &["root"]),
    ("store.dir", &["path"]),
    (
        "checkpoint",
        &[
            "mode",
            "tcp",
            "ghost_limit",
            "pre_dump_min_rss",
            "volume_copy_limit",
            "timeout",
            "together_timeout",
        ],
    ),
    ("volumes", &["empty_dir", "other"]),
    ("log", &["level"]),
    ("criu", &["path"]),
];

/// Tables whose keys are names of other people.
const FREE: &[&str] = &["routing.labels", "routing.annotations"];

/// A key nobody reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Dotted path, e.g. `checkpoint.ghost_limt`.
    pub(super) key: String,
    /// Byte offset of the key in the text.
    pub(super) offset: usize,
    /// The nearest known key of the same section, if one is near.
    pub(super) nearest: Option<String>,
}

/// The first key in reading order that nobody reads.
pub(super) fn first(table: &DeTable<'_>) -> Option<Unknown> {
    let mut found = Vec::new();
    walk(table, "", &mut found);
    found.into_iter().min_by_key(|unknown| unknown.offset)
}

fn walk(table: &DeTable<'_>, section: &str, found: &mut Vec<Unknown>) {
    let known = keys_of(section);
    for (key, value) in table.iter() {
        let name = key.get_ref().as_ref();
        let path = join(section, name);
        match value.get_ref() {
            DeValue::Table(below) if section == "runtime" && !known.contains(&name) => {
                walk(below, "runtime.*", found);
            }
            DeValue::Table(_) if FREE.contains(&path.as_str()) => {}
            DeValue::Table(below) if known.contains(&name) => walk(below, &path, found),
            DeValue::Array(items) if known.contains(&name) => {
                for item in items.iter() {
                    if let DeValue::Table(below) = item.get_ref() {
                        walk(below, &path, found);
                    }
                }
            }
            _ if known.contains(&name) => {}
            _ => found.push(Unknown {
                nearest: nearest(name, known).map(|near| join(section, near)),
                key: path,
                offset: key.span().start,
            }),
        }
    }
}

fn keys_of(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The candidate with the fewest edits, if fewer than half of the word would have to change.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .min()
        .filter(|(edits, _)| *edits <= word.chars().count().div_ceil(2).min(3))
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let above = rows.get(i).map_or(&[][..], Vec::as_slice);
            let mut best =
                (at(above, j) + usize::from(x != y)).min(at(above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped && let Some(earlier) = rows.get(i - 1) {
                best = best.min(at(earlier, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Option<Unknown> {
        let table = DeTable::parse(text).expect("valid TOML");
        first(table.get_ref())
    }

    #[test]
    fn a_typo_names_the_key_that_was_meant() {
        let unknown = check("[checkpoint]\nghost_limt = 1\n").expect("a typo");
        assert_eq!(unknown.key, "checkpoint.ghost_limt");
        assert_eq!(unknown.nearest.as_deref(), Some("checkpoint.ghost_limit"));
        assert_eq!(unknown.offset, "[checkpoint]\n".len());
    }

    #[test]
    fn swapped_letters_count_as_one_mistake() {
        assert_eq!(edits("defualt", "default"), 1);
        assert_eq!(
            check("[runtime]\ndefualt = \"runc\"\n").and_then(|u| u.nearest).as_deref(),
            Some("runtime.default")
        );
    }

    #[test]
    fn a_word_that_is_near_nothing_gets_no_suggestion() {
        assert_eq!(check("colour = 3\n").map(|u| u.nearest), Some(None));
    }

    #[test]
    fn runtimes_have_free_names_and_known_keys() {
        assert_eq!(check("[runtime.youki]\npath = \"/opt/youki\"\n"), None);
        let unknown = check("[runtime.youki]\npaht = \"/opt/youki\"\n").expect("a typo");
        assert_eq!(unknown.nearest.as_deref(), Some("runtime.*.path"));
    }

    #[test]
    fn keys_of_a_rule_are_known_and_those_of_labels_and_annotations_are_free() {
        let rule =
            "[[routing]]\nlabels = { tier = \"web\" }\nannotations.\"a.b/c\" = \"x\"\nbackend = \"runc\"\n";
        assert_eq!(check(rule), None);
        let unknown =
            check(&format!("{rule}[[routing]]\nbackend = \"runc\"\nlabel.tier = \"web\"\n")).expect("a typo");
        assert_eq!(
            (unknown.key.as_str(), unknown.nearest.as_deref()),
            ("routing.label", Some("routing.labels"))
        );
        let inline = check("routing = [{ backend = \"runc\", images = \"x\" }]\n").expect("a typo");
        assert_eq!(inline.nearest.as_deref(), Some("routing.image"));
    }

    #[test]
    fn the_first_of_several_in_reading_order_is_named() {
        assert_eq!(check("zzz = 1\naaa = 2\n").map(|u| u.key).as_deref(), Some("zzz"));
    }
}
