//! The pages of docs/reference that are made from the code: keys of the configuration, codes of refusals, steps of
//! fault injection. `cargo xtask docs --write` writes them, the suite `docs` fails when one is not what it would write.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::definitions::{self, Definition};
use super::picture;
use crate::stream;

const NOTE: &str = "<!-- Written by `cargo xtask docs --write` from the code; changes belong there. -->\n";
const CONFIG_SOURCE: &str = "runtime/src/config.rs";
/// Sections and types of the configuration that are defined elsewhere.
const OTHER_SOURCES: &[&str] = &["runtime/src/config/rule.rs", "checkpoint/src/target.rs"];

/// Path in the repository and text of each page.
pub(super) fn pages(root: &Path, until: Instant) -> Result<Vec<(String, String)>, String> {
    let reference = reference(root, until)?;
    let mut types = Vec::new();
    for source in std::iter::once(&CONFIG_SOURCE).chain(OTHER_SOURCES) {
        let text = fs::read_to_string(root.join(source)).map_err(|error| format!("{source}: {error}"))?;
        types.extend(definitions::parse(&text));
    }
    let mut pages = vec![
        ("docs/reference/config.md".into(), config(&reference["config"], &types)?),
        ("docs/reference/refusals.md".into(), refusals(&reference["refusals"])?),
        ("docs/reference/faults.md".into(), faults(&reference["faults"])?),
        ("docs/reference/objects.md".into(), objects(root, until)?),
    ];
    pages.extend(picture::file(root)?);
    Ok(pages)
}

/// The objects in a cluster, as the agent describes them.
fn objects(root: &Path, until: Instant) -> Result<String, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args([
        "run",
        "--quiet",
        "--package",
        "cryopod-agent",
        "--",
        "crds",
        "--markdown",
    ]);
    let mut text = String::new();
    let end = stream::stream_stdout(cargo, until, |line| {
        text.push_str(line);
        text.push('\n');
    });
    end.map_err(|error| format!("cannot start cargo: {error}"))?.good()?;
    Ok(format!(
        "# Objects\n\n{NOTE}\nGroup `cryopod.dev`, version `v1alpha1`, all of them namespaced. How to use them: \
         [the guide](../guides/objects.md). Names, conditions and reasons of\n`PodCheckpoint` are those of the built-in object that \
         Kubernetes prepares (KEP-5823).\n\n{text}"
    ))
}

/// What the code says about itself.
fn reference(root: &Path, until: Instant) -> Result<Value, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["run", "--quiet", "--package", "cryopod-shim", "--example", "reference"]);
    let mut text = String::new();
    let end = stream::stream_stdout(cargo, until, |line| {
        text.push_str(line);
        text.push('\n');
    });
    end.map_err(|error| format!("cannot start cargo: {error}"))?.good()?;
    serde_json::from_str(&text).map_err(|error| format!("the example `reference`: {error}"))
}

fn config(defaults: &Value, types: &[Definition]) -> Result<String, String> {
    let mut page = format!(
        "# Configuration\n\n{NOTE}\n`/etc/cryopod/config.toml`, then `/etc/cryopod/conf.d/*.toml` in the order of their \
         names; later files win key by key, and\nrules (`[[routing]]`) add up. No file is needed. An unknown key is an error that names the one that was \
         meant. `cryopod config check` checks,\n`cryopod config dump` prints what is in force. Sizes are written \
         `\"64MiB\"`, times `\"300s\"`.\n"
    );
    let sections: Vec<(&Definition, &str)> = types
        .iter()
        .filter_map(|definition| Some((definition, definition.doc.strip_prefix("`[")?.split_once("]`")?.0)))
        .collect();
    if sections.is_empty() {
        return Err(format!("{CONFIG_SOURCE} has no struct whose comment begins with `[section]`"));
    }
    for (definition, section) in &sections {
        let about =
            definition.doc.split_once("]`").map_or("", |(_, rest)| rest).trim_start_matches([':', '.', ' ']);
        write!(page, "\n## `[{section}]`\n\n").map_err(|e| e.to_string())?;
        if !about.is_empty() {
            let mut about = about.to_owned();
            about[..1].make_ascii_uppercase();
            page.push_str(&format!("{about}\n\n"));
        }
        page.push_str("| key | default | meaning |\n|---|---|---|\n");
        for field in &definition.members {
            let kind = field.kind.trim_start_matches("Option<").trim_end_matches('>');
            // A section, or any number of them under free names.
            let inner = kind.rsplit(", ").next().unwrap_or(kind);
            if sections.iter().any(|(other, _)| other.name == inner) {
                continue;
            }
            let values = types.iter().find(|other| other.name == kind).map(values).unwrap_or_default();
            let path = format!("/{}/{}", section.replace('.', "/"), field.name);
            let default = match defaults.pointer(&path) {
                Some(value) => format!("`{value}`"),
                None if field.kind.starts_with("Vec<") => "`[]`".into(),
                None if field.kind.starts_with("BTreeMap<") => "`{}`".into(),
                None if kind == "bool" => "`false`".into(),
                None => String::new(),
            };
            page.push_str(&format!("| `{}` | {default} | {}{values} |\n", field.name, field.doc));
        }
    }
    Ok(page)
}

/// The values of an enum with their meanings, behind the meaning of a key.
fn values(definition: &Definition) -> String {
    let one = |member: &definitions::Member| {
        let mut name = String::new();
        for (at, c) in member.name.char_indices() {
            if c.is_ascii_uppercase() && at > 0 {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        let doc = member.doc.trim_end_matches('.');
        format!("`\"{name}\"` {}{}", doc[..1].to_ascii_lowercase(), &doc[1..])
    };
    // Acronyms stay as they are.
    let list: Vec<String> =
        definition.members.iter().map(one).map(|text| text.replace(" zFS", " ZFS")).collect();
    if list.is_empty() { String::new() } else { format!(" {}.", list.join("; ")) }
}

fn refusals(codes: &Value) -> Result<String, String> {
    let codes = codes.as_object().ok_or("no refusals")?;
    let mut page = format!(
        "# Refusals\n\n{NOTE}\nA checkpoint that cannot be taken is refused, nearly always before anything is touched; what only \
         the dump finds out\nis rolled back. The pod runs on. The message has the code, what is in the way and what to do.\n\n\
         With mode `auto` a refusal of the memory, also for lack of room or by the dump, makes a checkpoint of the disks \
         alone, and says\nso: the pod is frozen once more then, for the disks. With mode `full` it is an error. A refusal of \
         the disks (`copy-…`,\n`volume-…`, `bad-annotation`) is an error in every mode. The exit code is 6, for lack of\nspace 9, see [exit codes](exit-codes.md).\n\n| code | meaning |\n|---|---|\n"
    );
    for (code, meaning) in codes {
        page.push_str(&format!("| `{code}` | {} |\n", meaning.as_str().unwrap_or_default()));
    }
    Ok(page)
}

fn faults(crates: &Value) -> Result<String, String> {
    let crates = crates.as_object().ok_or("no steps")?;
    let mut page = format!(
        "# Fault injection\n\n{NOTE}\nFor tests that try to break a node. A step that is reached looks for the file \
         `/run/cryopod/faults/<step>`; where the folder is\nmissing that costs one `stat`. The file says what happens:\n\n\
         | content | effect |\n|---|---|\n\
         | `error` | the step fails |\n\
         | `kill` | the process kills itself with SIGKILL |\n\
         | `wait` | the step goes on when the file is removed, after 120 s at the latest |\n\
         | `sleep MS` | the step takes so many milliseconds longer |\n"
    );
    for (name, steps) in crates {
        let steps = steps.as_array().ok_or("steps are no list")?;
        page.push_str(&format!("\n## Steps of {name}\n\nIn the order in which an operation meets them:\n\n"));
        for step in steps {
            page.push_str(&format!("- `{}`\n", step.as_str().unwrap_or_default()));
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "/// `[store]`: where things are.\npub struct Store {\n    /// Which store.\n    pub kind: Kind,\n    \
                          /// The ZFS one.\n    pub zfs: Zfs,\n}\n/// `[store.zfs]`.\npub struct Zfs {\n    /// Dataset.\n    \
                          pub root: Option<String>,\n}\n/// `[[rule]]`: rules.\npub struct Rule {\n    /// Labels.\n    \
                          pub labels: BTreeMap<String, Pattern>,\n    /// Others.\n    pub stores: BTreeMap<String, Store>,\n}\n\
                          /// Kinds.\npub enum Kind {\n    /// ZFS or an error.\n    Zfs,\n    \
                          /// Full if possible.\n    FullOrNot,\n}\n";

    #[test]
    fn a_key_has_its_default_its_meaning_and_its_values() {
        let defaults = serde_json::json!({"store": {"kind": "zfs", "zfs": {}}});
        let page = config(&defaults, &definitions::parse(SOURCE)).unwrap();
        let row = "| `kind` | `\"zfs\"` | Which store. `\"zfs\"` ZFS or an error; `\"full-or-not\"` full if possible. |";
        assert!(page.contains(row), "{page}");
        assert!(
            page.contains(
                "## `[store.zfs]`\n\n| key | default | meaning |\n|---|---|---|\n| `root` |  | Dataset. |"
            ),
            "{page}"
        );
        assert!(
            page.contains("## `[[rule]]`\n\nRules.\n\n") && page.contains("| `labels` | `{}` | Labels. |"),
            "{page}"
        );
        assert!(!page.contains("| `zfs` |") && !page.contains("| `stores` |"), "{page}");
        assert!(page.contains("Where things are."), "{page}");
    }
}
