//! The `imports` of containerd's main configuration: whether drop-ins of a folder are read, and how to add them to a file that
//! somebody else wrote, so that it can be taken out again.

use toml::Table;

/// What ends a line that we added.
const MARK: &str = "# added by cryopod-agent setup";

/// Why a file is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no TOML.
    #[error("it is no TOML: {0}")]
    Syntax(String),
    /// containerd refuses to import a newer version into an older one.
    #[error(
        "it has version {0}, and a drop-in of version 3 cannot be imported into it: look at `containerd config migrate`"
    )]
    Version(i64),
    /// It is written in a way that this cannot extend.
    #[error("its `imports` cannot be extended safely: add {0:?} to it by hand")]
    Unclear(String),
}

/// Whether the file imports `pattern`.
pub(super) fn has(main: &str, pattern: &str) -> Result<bool, Refused> {
    let table = parse(main)?;
    if let Some(version) = table.get("version").and_then(toml::Value::as_integer).filter(|it| *it < 3) {
        return Err(Refused::Version(version));
    }
    let imports = table.get("imports").and_then(toml::Value::as_array);
    Ok(imports.into_iter().flatten().filter_map(toml::Value::as_str).any(|it| it == pattern))
}

/// The file with `pattern` among its imports.
pub(super) fn with(main: &str, pattern: &str) -> Result<String, Refused> {
    let before = parse(main)?;
    let changed = if before.contains_key("imports") {
        // The list's first line, however many it has: ours goes in front.
        let mut done = false;
        let lines = main.lines().map(|line| match line.split_once('[') {
            Some((key, rest)) if !done && key.trim_end().trim_end_matches('=').trim() == "imports" => {
                done = true;
                format!("{key}[ {MARK}\n  \"{pattern}\", {MARK}\n{rest}")
            }
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    } else {
        // In front of the first table, where a key without one belongs.
        format!("imports = [\"{pattern}\"] {MARK}\n{main}")
    };
    let mut expected = before;
    let list = expected.entry("imports").or_insert_with(|| toml::Value::Array(Vec::new()));
    let unclear = || Refused::Unclear(pattern.to_owned());
    list.as_array_mut().ok_or_else(unclear)?.insert(0, pattern.into());
    match parse(&changed) {
        Ok(after) if after == expected => Ok(changed),
        _ => Err(unclear()),
    }
}

/// The file without what [`with`] added; none if nothing of it is there.
pub(super) fn without(main: &str, pattern: &str) -> Option<String> {
    let whole = format!("imports = [\"{pattern}\"] {MARK}\n");
    if let Some(at) = main.find(&whole) {
        return Some(format!("{}{}", &main[..at], &main[at + whole.len()..]));
    }
    let added = format!("[ {MARK}\n  \"{pattern}\", {MARK}\n");
    let at = main.find(&added)?;
    Some(format!("{}[{}", &main[..at], &main[at + added.len()..]))
}

fn parse(text: &str) -> Result<Table, Refused> {
    text.parse().map_err(|error: toml::de::Error| Refused::Syntax(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "/etc/containerd/conf.d/*.toml";

    #[test]
    fn an_import_is_added_and_taken_out_again() {
        for main in [
            "version = 3\n",
            "# mine\nversion = 3\n\n[plugins.x]\nimports = [\"not this\"]\n",
            "version = 3\nimports = [\"/etc/a.toml\"]\n[debug]\nlevel = \"info\"\n",
            "version = 3\nimports = [\n  \"/etc/a.toml\", # why\n  '/etc/b.toml',\n]\n",
            "version = 3\nimports=[]\n",
        ] {
            assert_eq!(has(main, OURS), Ok(false), "{main}");
            let with = with(main, OURS).unwrap_or_else(|error| panic!("{main}: {error}"));
            assert_eq!(has(&with, OURS), Ok(true), "{with}");
            assert_eq!(without(&with, OURS).as_deref(), Some(main), "{with}");
        }
    }

    #[test]
    fn what_is_not_ours_stays() {
        assert_eq!(without(&format!("imports = [\"{OURS}\"]\n"), OURS), None);
        assert_eq!(without("version = 3\n", OURS), None);
    }

    #[test]
    fn a_file_that_cannot_be_extended_safely_is_refused() {
        assert!(matches!(has("version = 2\n", OURS), Err(Refused::Version(2))));
        assert!(matches!(has("version = \n", OURS), Err(Refused::Syntax(_))));
        assert!(matches!(with("\"imports\" = [\"/a\"]\n", OURS), Err(Refused::Unclear(_))));
        assert!(matches!(with("imports = \"/a\"\n", OURS), Err(Refused::Unclear(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_file_is_broken_by_it(main in "[a-z=\\[\\]\"#,. \n]{0,60}") {
            if let Ok(with) = with(&main, OURS) {
                proptest::prop_assert_eq!(has(&with, OURS), Ok(true));
            }
        }
    }
}
