//! What the tool says, without the names it says it of: a pod may be called `encryption-proxy` or `does not exist`,
//! and neither may decide what an error means.
//!
//! libzfs quotes most names (`'%s'`), puts some into brackets (`(%s)`), and prints the rest bare ("destination %s has
//! been modified", libzfs_sendrecv.c); those are names of the call or begin with one. Lists of datasets and usage
//! texts follow some errors and say nothing of the reason.

use crate::Name;

/// The text in lower case and in one line, with every name, list and usage text taken out; quotes and brackets stay.
///
/// `words` is the command line that said it.
pub(super) fn prose(words: &[String], stderr: &str) -> String {
    let names = names(words);
    let lines = stderr.lines().take_while(|line| !line.starts_with("usage:") && !begins_list(line));
    let bare = lines.map(|line| without_names(&without_quoted(line), &names)).collect::<Vec<_>>().join(" ");
    bare.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// "use '-r' to destroy the following datasets:"
fn begins_list(line: &str) -> bool {
    line.trim_end().ends_with(':') && line.contains("the following")
}

/// Blanks what is between quotes and in brackets. Neither can be part of a name (zfs_namecheck.c); a quote within a
/// word is an apostrophe ("it's being held").
fn without_quoted(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['\'', '(']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (open, close) = if from.starts_with('(') { ('(', ')') } else { ('\'', '\'') };
        let inner = from.get(1..).unwrap_or_default();
        let in_word = open == '\'' && out.ends_with(|c: char| c.is_ascii_alphanumeric());
        out.push(open);
        rest = match inner.split_once(close) {
            Some((_, after)) if !in_word => {
                out.push(close);
                after
            }
            _ => inner,
        };
    }
    out.push_str(rest);
    out
}

/// Blanks these names, and what goes on without a space behind one: a snapshot of it, or something below it.
fn without_names(line: &str, names: &[String]) -> String {
    // The one text that ends a bare name which the call need not know, as of `destroy -r`.
    let line = match line.strip_prefix("cannot destroy snapshot ").and_then(|rest| rest.rsplit_once(": ")) {
        Some((_, reason)) => reason,
        None => line,
    };
    let mut line = line.to_owned();
    for name in names {
        while let Some((before, after)) = line.split_once(name.as_str()) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.:/@#%".contains(c);
            line = format!("{before} {}", after.trim_start_matches(is_name));
        }
    }
    line
}

/// The names in a command line, the longest first, since one may begin another. A pool alone is left out: it could be
/// any word of the text.
fn names(words: &[String]) -> Vec<String> {
    let values = words.iter().map(|word| word.strip_prefix("origin=").unwrap_or(word));
    // `zfs destroy` takes the snapshots of a dataset as one word.
    let each = values.flat_map(|word| match word.split_once('@') {
        Some((dataset, leaves)) => leaves.split(',').map(|leaf| format!("{dataset}@{leaf}")).collect(),
        None => vec![word.to_owned()],
    });
    let mut names: Vec<String> =
        each.filter(|word| word.contains(['/', '@', '#']) && word.parse::<Name>().is_ok()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn names_are_taken_out_wherever_the_tool_prints_them() {
        let cases = [
            ("cannot open 'tank/is busy': dataset does not exist", "cannot open '': dataset does not exist"),
            (
                "cannot destroy snapshot tank/a@is busy: it's being held. Run 'zfs holds'",
                "it's being held. run ''",
            ),
            (
                "destination tank/permission denied x has been modified\nsince",
                "destination has been modified since",
            ),
            ("specified origin fs (tank/busy@s) does not exist", "specified origin fs () does not exist"),
            ("umount: /mnt/tank/permission denied x/below: target is busy.", "umount: /mnt/ target is busy."),
            ("cannot do 'it", "cannot do 'it"),
            ("(", "("),
        ];
        let call = words(&["zfs", "destroy", "tank/permission denied x", "tank"]);
        for (text, expected) in cases {
            assert_eq!(prose(&call, text), expected, "{text}");
        }
    }

    #[test]
    fn lists_and_usage_are_no_reasons() {
        let text = "cannot destroy 'tank/a': filesystem has children\nuse '-r' to destroy the following datasets:\n\
                    tank/a/permission denied";
        assert_eq!(prose(&[], text), "cannot destroy '': filesystem has children");
        assert_eq!(prose(&[], "missing argument\nusage:\n\tnot supported"), "missing argument");
    }

    #[test]
    fn a_command_line_gives_its_names_and_no_other_words() {
        let call = words(&[
            "zfs",
            "destroy",
            "-o",
            "origin=tank/o@s",
            "mountpoint=/x",
            "tank/a@s,t t",
            "/tank",
            "busy",
        ]);
        assert_eq!(names(&call), ["tank/a@t t", "tank/o@s", "tank/a@s"]);
    }
}
