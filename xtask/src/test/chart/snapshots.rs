//! What the chart makes of the life of a node – setup, RuntimeClasses, `helm test`, `helm uninstall` – is held against what
//! somebody has looked at: for the values as they are, for k3s, and for nodes with packages. A template that makes something
//! else shows here what.

use std::fs;
use std::path::Path;

use crate::repository;

/// Templates about the life of a node; others have checks of their own.
const TEMPLATES: &[&str] =
    &["daemonset.yaml", "runtimeclasses.yaml", "uninstall.yaml", "tests/handlers.yaml", "tests/nodes.yaml"];
/// Values files that are looked at; the others differ from these in what is not about a node.
const VALUES: &[&str] = &["values.yaml", "k3s-values.yaml", "packages-values.yaml"];
const FOLDER: &str = "xtask/src/test/chart/snapshots";

/// Whether there is a snapshot for that file of values.
pub(super) fn wanted(values: &str) -> bool {
    VALUES.contains(&values)
}

/// Compares what was rendered with the snapshot; what it is now is kept for whoever wants to take it.
pub(super) fn compare(root: &Path, values: &str, rendered: &str) -> Result<(), String> {
    let path = root.join(FOLDER).join(values);
    let now = life(rendered);
    let before = fs::read_to_string(&path).unwrap_or_default();
    if now == before {
        return Ok(());
    }
    let kept = repository::target().join("snapshots").join(values);
    let keep = || {
        fs::create_dir_all(kept.parent().unwrap_or(root))?;
        fs::write(&kept, &now)
    };
    keep().map_err(|error| format!("{}: {error}", kept.display()))?;
    Err(format!("{}\n  if that is meant: cp {} {FOLDER}/", first_difference(&before, &now), kept.display()))
}

/// The objects of our templates, without what every release changes.
fn life(rendered: &str) -> String {
    let ours = |object: &&str| {
        let source = object.lines().find_map(|line| line.strip_prefix("# Source: cryopod/templates/"));
        source.is_some_and(|source| TEMPLATES.contains(&source))
    };
    let objects: Vec<&str> = rendered.split("---\n").filter(ours).map(str::trim_end).collect();
    (objects.join("\n---\n") + "\n").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

fn first_difference(before: &str, now: &str) -> String {
    let lines =
        before.lines().map(Some).chain(std::iter::repeat(None)).zip(now.lines().map(Some).chain([None]));
    let (number, (was, is)) =
        lines.enumerate().find(|(_, (was, is))| was != is).unwrap_or((now.lines().count(), (None, None)));
    let shown = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("{:?}", line.trim()));
    format!("line {}: was {}, is {}", number + 1, shown(was), shown(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_life_of_a_node_is_taken() {
        let rendered = format!(
            "---\n# Source: cryopod/templates/crds.yaml\na: 1\n---\n# Source: cryopod/templates/daemonset.yaml\nb: {}\n---\n\
             # Source: cryopod/templates/tests/nodes.yaml\nc: 3\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(
            life(&rendered),
            "# Source: cryopod/templates/daemonset.yaml\nb: VERSION\n---\n# Source: cryopod/templates/tests/nodes.yaml\nc: 3\n"
        );
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        assert_eq!(first_difference("a\nb\nc\n", "a\nx\nc\n"), "line 2: was \"b\", is \"x\"");
        assert_eq!(first_difference("", "a\n"), "line 1: was the end, is \"a\"");
        assert_eq!(first_difference("a\nb\n", "a\n"), "line 2: was \"b\", is the end");
    }
}
