//! What messages tell people to type exists: every command line that the sources quote is one that we read, and every
//! key of the configuration that a message names is one that is read.
//!
//! An error is found by whoever can use it least: at night, on a node that does not work. So the sources of all rooms
//! are searched, not only what other tests happen to print.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use cryopod_runtime::config::{Config, ConfigError, Sources};

use crate::args::Cli;

/// The rooms whose messages reach people.
const ROOMS: [&str; 6] = ["command", "zfs", "checkpoint", "runtime", "shim", "cli"];

/// What a literal holds of the language itself: a quote in a quote.
const QUOTE: char = '"';

#[test]
fn quoted_command_lines_are_ones_that_we_read() {
    let mut cli = Cli::command();
    // Hands the global options down to the verbs.
    cli.build();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        for line in quoted(&text) {
            seen += 1;
            // The words of another program, which reads them itself.
            let words: Vec<OsString> = format!("cryopod {line}").split(' ').map(OsString::from).collect();
            if matches!(crate::backend::asked(&words), crate::backend::Asked::Lxc(_)) {
                continue;
            }
            if let Err(why) = reads(&cli, &line) {
                wrong.push(format!("{}: `cryopod {line}`: {why}", path.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} quotes were found, so the search is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_in_messages_are_keys_of_the_configuration() {
    let words = words_of_keys();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        for literal in literals(&text) {
            for key in keys(&literal, &words) {
                seen += 1;
                if !is_read(&key) {
                    wrong.push(format!("{}: {key} in {literal:?}", path.display()));
                }
            }
        }
    }
    assert!(seen > 3, "only {seen} keys were found, so the search is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Product code of all rooms: files of tests are left out, and what stands behind `#[cfg(test)]`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for room in ROOMS {
        walk(&root.join(room).join("src"), &mut found);
    }
    found.retain(|(path, _)| !path.ends_with(file!()));
    found
}

fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_test = name == "tests" || name.ends_with("tests.rs");
        if path.is_dir() && !is_test {
            walk(&path, found);
        } else if name.ends_with(".rs") && !is_test {
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.push((path, product.to_owned()));
        }
    }
}

/// What follows `cryopod` in backquotes, in literals as in comments: the help texts are comments.
fn quoted(text: &str) -> Vec<String> {
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        // A literal goes on in the next line.
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !line.ends_with('\\') {
            joined.push('\n');
        }
    }
    let parts = joined.split("`cryopod ").skip(1);
    parts.filter_map(|rest| Some(rest.split_once('`')?.0.to_owned())).collect()
}

/// Whether these are verbs and options that there are. Values and names are anything.
fn reads(cli: &Command, line: &str) -> Result<(), String> {
    let mut command = cli;
    let mut value_expected = false;
    for word in line.split_whitespace() {
        if word == "--" {
            break;
        }
        if let Some(option) = word.strip_prefix('-').filter(|name| !name.is_empty()) {
            let name = option.split('=').next().unwrap_or(option);
            let found = command.get_arguments().find(|argument| match name.strip_prefix('-') {
                Some(long) => argument.get_long() == Some(long),
                None => argument.get_short() == name.chars().next(),
            });
            let argument = found.ok_or_else(|| format!("there is no option -{name}"))?;
            value_expected = argument.get_action().takes_values() && !option.contains('=');
        } else if std::mem::take(&mut value_expected) {
        } else if let Some(verb) = command.find_subcommand(word) {
            command = verb;
        } else if command.has_subcommands() && !is_placeholder(word) {
            return Err(format!("there is no verb {word}"));
        }
    }
    Ok(())
}

fn is_placeholder(word: &str) -> bool {
    word.starts_with(['{', '<', '…']) || word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The literals of Rust code, escapes resolved as far as messages use them.
fn literals(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in joined_literals(text).lines() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        let mut parts = code.replace("'\"'", "''").replace("\\\"", "\u{1}");
        parts.retain(|c| c != '\r');
        let inside = parts.split(QUOTE).skip(1).step_by(2);
        found.extend(inside.map(|literal| literal.replace('\u{1}', "\"")));
    }
    found
}

/// Literals that go on in the next line, in one line.
fn joined_literals(text: &str) -> String {
    let mut joined = String::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = if goes_on { line.trim_start() } else { line };
        goes_on = line.ends_with('\\');
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !goes_on {
            joined.push('\n');
        }
    }
    joined
}

/// Words of a sentence that look like a key: dotted, and beginning with a word of the configuration; or assigned to.
fn keys(literal: &str, words: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    // One word is the name of a file or of a step.
    let all: Vec<&str> = literal.split_whitespace().collect();
    if all.len() < 2 {
        return found;
    }
    for (at, word) in all.iter().enumerate() {
        let word = word.trim_matches(|c: char| !c.is_ascii_lowercase());
        let is_key = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
        let first = word.split('.').next().unwrap_or_default();
        let assigned = all.get(at + 1) == Some(&"=");
        if is_key && words.contains(first) && (word.contains('.') || assigned) {
            found.push(word.to_owned());
        }
    }
    found
}

/// Every word of every key.
fn words_of_keys() -> BTreeSet<String> {
    fn collect(table: &toml::Table, words: &mut BTreeSet<String>) {
        for (key, value) in table {
            words.insert(key.clone());
            if let toml::Value::Table(below) = value {
                collect(below, words);
            }
        }
    }
    let mut words = BTreeSet::new();
    collect(&toml::from_str(&Config::default().dump().unwrap()).unwrap(), &mut words);
    words
}

/// Whether a configuration may have this key and needs no section around it to be found: `runtime.*` is free, so a key
/// below it must be a real one.
fn is_read(key: &str) -> bool {
    let nowhere = tempfile::tempdir().unwrap();
    let directory = Some(nowhere.path().to_owned());
    let sources = Sources { directory, body: Some(format!("{key} = 1\n")), ..Sources::default() };
    let is_section = matches!(key, "store" | "checkpoint" | "volumes" | "log" | "criu" | "runtime");
    !is_section && !matches!(Config::load(&sources), Err(ConfigError::UnknownKey { .. }))
}

#[test]
fn what_does_not_exist_is_found() {
    let mut cli = Cli::command();
    cli.build();
    for right in
        ["list --all", "checkpoints show {id}", "--config {file} checkpoints show", "VERB", "-o json list"]
    {
        assert_eq!(reads(&cli, right), Ok(()), "{right}");
    }
    for wrong in ["doctor --repair", "checkpionts list", "checkpoints lst", "--confg x list"] {
        assert!(reads(&cli, wrong).is_err(), "{wrong}");
    }
    let words = words_of_keys();
    let found = |literal| keys(literal, &words);
    assert_eq!(found("set zfs.root, or store = \"dir\""), ["zfs.root", "store"]);
    assert_eq!(found("raise checkpoint.volume_copy_limit."), ["checkpoint.volume_copy_limit"]);
    assert!(found("use io_type = \"fifo\" in /b/log.json").is_empty());
    assert!(found("runtime.dump").is_empty());
    for key in ["zfs.root", "store", "tcp", "checkpoint.copy_limit", "runtime.defualt"] {
        assert!(!is_read(key), "{key}");
    }
    for key in ["store.zfs.root", "store.kind", "checkpoint.volume_copy_limit", "runtime.default"] {
        assert!(is_read(key), "{key}");
    }
    let text = "let a = \"one \\\n    two\";\n/// \"three\"\nb(\"say \\\"x\\\" = 1\", '\"')";
    assert_eq!(literals(text), ["one two", "say \"x\" = 1"].map(str::to_owned));
}
