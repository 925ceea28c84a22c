//! The texts that make up a configuration: found, read, checked one by one and merged.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, DIRECTORY, Place, Rule, unknown};

/// The largest file that is read: a configuration has a few hundred lines.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The one array: every file adds to it.
const ROUTING: &str = "routing";

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Directory with `config.toml` and `conf.d`; [`DIRECTORY`] if not set.
    pub directory: Option<PathBuf>,
    /// One file instead of the directory (`config_path` of containerd's runtime options); it must exist.
    pub file: Option<PathBuf>,
    /// Text laid over the files (`config_body` of containerd's runtime options).
    pub body: Option<String>,
}

/// One of the texts to merge.
pub(super) struct Text {
    /// Under which errors report it.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
    /// Whether it is there for one handler, by containerd's runtime options, and not for the node.
    pub(super) is_option: bool,
}

/// What a text says.
pub(super) struct Parsed {
    /// Without its rules.
    pub(super) table: toml::Table,
    /// Its rules, with the place of what each says of the backend.
    pub(super) rules: Vec<(Rule, Place)>,
}

/// The texts to merge, in their order.
pub(super) fn texts(sources: &Sources) -> Result<Vec<Text>, ConfigError> {
    let mut texts = Vec::new();
    match &sources.file {
        Some(file) => {
            texts.push(Text { name: file.display().to_string(), text: read(file)?, is_option: true });
        }
        None => {
            let directory = sources.directory.as_deref().unwrap_or(Path::new(DIRECTORY));
            for path in files(directory)? {
                texts.push(Text { name: path.display().to_string(), text: read(&path)?, is_option: false });
            }
        }
    }
    if let Some(body) = sources.body.as_deref().filter(|body| !body.trim().is_empty()) {
        let name = "runtime options (config_body)".to_owned();
        texts.push(Text { name, text: body.to_owned(), is_option: true });
    }
    Ok(texts)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = vec![directory.join("config.toml")];
    let drop_ins = directory.join("conf.d");
    let read_error = |source| ConfigError::Read { path: drop_ins.clone(), source };
    match std::fs::read_dir(&drop_ins) {
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                let path = entry.map_err(read_error)?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    found.push(path);
                }
            }
            found.sort();
            files.append(&mut found);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(read_error(source)),
    }
    files.retain(|path| !matches!(path.try_exists(), Ok(false)));
    Ok(files)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(ConfigError::TooLarge { path: path.to_owned(), size });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Checks one text by itself, so that errors carry its name, line and column.
pub(super) fn parse(name: &str, text: &str) -> Result<Parsed, ConfigError> {
    let malformed = |error: toml::de::Error| ConfigError::Malformed {
        place: place(name, text, error.span().map_or(0, |span| span.start)).to_string(),
        message: error.message().to_owned(),
    };
    let spanned = DeTable::parse(text).map_err(malformed)?;
    if let Some(unknown) = unknown::first(spanned.get_ref()) {
        return Err(ConfigError::UnknownKey {
            place: place(name, text, unknown.offset).to_string(),
            key: unknown.key,
            nearest: unknown.nearest,
        });
    }
    let config = toml::from_str::<Config>(text).map_err(malformed)?;
    let places = offsets(spanned.get_ref());
    let place = |offset| place(name, text, offset);
    let placed = |(rule, (begin, backend))| (Rule { place: place(begin), ..rule }, place(backend));
    let rules = config.routing.into_iter().zip(places).map(placed).collect();
    let mut table: toml::Table = toml::from_str(text).map_err(malformed)?;
    table.remove(ROUTING);
    Ok(Parsed { table, rules })
}

/// Where each rule begins, and where what it says of the backend.
fn offsets(table: &DeTable<'_>) -> Vec<(usize, usize)> {
    let Some(DeValue::Array(rules)) = table.get(ROUTING).map(|rules| rules.get_ref()) else {
        return Vec::new();
    };
    let both = |rule: &toml::Spanned<DeValue<'_>>| {
        let begin = rule.span().start;
        let backend = rule.get_ref().get("backend").map_or(begin, |backend| backend.span().start);
        (begin, backend)
    };
    rules.iter().map(both).collect()
}

fn place(name: &str, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    Place {
        file: name.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
    }
}

pub(super) fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => merge(below, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
