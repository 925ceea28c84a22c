//! The page of refusals has every code that the code can give, and no other; advice names keys that exist.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::refusal;
use cryopod_runtime::config::Config;
use cryopod_runtime::criu::advice;
use cryopod_runtime::preflight;

const ROOMS: [&str; 4] = ["checkpoint", "runtime", "shim", "cli"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Sources of the product: files of tests are left out, and what follows `#[cfg(test)]` at the end of a file.
fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.contains("test") || name == "samples" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned());
        }
    }
}

fn all_sources() -> Vec<String> {
    let mut found = Vec::new();
    for room in ROOMS {
        sources(&root().join(room).join("src"), &mut found);
    }
    assert!(found.len() > 100, "only {} files", found.len());
    found
}

/// First argument of every `Refusal::new`, constants resolved; the table of CRIU's reasons is read as it is.
fn codes_in_the_code() -> BTreeSet<String> {
    let sources = all_sources();
    let mut constants = BTreeMap::new();
    for line in sources.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) =
            line.split_once("const ").and_then(|(_, rest)| rest.split_once(": &str = \""))
        else {
            continue;
        };
        constants.insert(name.to_owned(), value.trim_end_matches("\";").to_owned());
    }
    let mut codes = BTreeSet::new();
    for text in &sources {
        for (at, made) in text.match_indices("Refusal::new(") {
            let first = text[at + made.len()..].split(',').next().unwrap().trim();
            match first.strip_prefix('"') {
                Some(literal) => codes.insert(literal.trim_end_matches('"').to_owned()),
                None if first == "reason.code" => false,
                None => codes
                    .insert(constants.get(first).cloned().unwrap_or_else(|| format!("unresolved {first}"))),
            };
        }
    }
    codes.extend(advice::REASONS.iter().filter(|reason| reason.refuses).map(|reason| reason.code.to_owned()));
    codes
}

fn codes_on_the_page() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/reference/refusals.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(code, _)| code.to_owned()).collect()
}

#[test]
fn every_code_stands_on_the_page_and_every_code_of_the_page_can_be_given() {
    let (code, page) = (codes_in_the_code(), codes_on_the_page());
    assert!(code.len() > 20, "{code:?}");
    let missing: Vec<_> = code.difference(&page).collect();
    let invented: Vec<_> = page.difference(&code).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    assert!(invented.is_empty(), "nobody gives: {invented:?}");
}

#[test]
fn no_code_is_described_twice() {
    let all = [preflight::CODES, advice::CODES, refusal::CODES].concat();
    let unique: BTreeSet<&str> = all.iter().map(|(code, _)| *code).collect();
    assert_eq!(unique.len(), all.len());
}

/// A key that is renamed is forgotten in advice first.
#[test]
fn every_key_that_advice_names_exists() {
    let dump: toml::Table = Config::default().dump().unwrap().parse().unwrap();
    let keys = dump["checkpoint"].as_table().unwrap();
    let words = advice::REASONS.iter().flat_map(|reason| reason.advice.split([' ', ',', ':', ';']));
    let named: Vec<&str> = words.filter_map(|word| word.strip_prefix("checkpoint.")).collect();
    assert!(!named.is_empty());
    for key in named {
        assert!(keys.contains_key(key), "checkpoint.{key}");
    }
}
