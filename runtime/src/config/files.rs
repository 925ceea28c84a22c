//! The texts that make up a configuration: found, read, checked one by one and merged.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::{Config, ConfigError, DIRECTORY, unknown};

/// The largest file that is read: a configuration has a few hundred lines.
pub(super) const MAX_FILE: u64 = 1 << 20;

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

/// The texts to merge, with the name under which errors report them.
pub(super) fn texts(sources: &Sources) -> Result<Vec<(String, String)>, ConfigError> {
    let mut texts = Vec::new();
    match &sources.file {
        Some(file) => texts.extend([(file.display().to_string(), read(file)?)]),
        None => {
            let directory = sources.directory.as_deref().unwrap_or(Path::new(DIRECTORY));
            for path in files(directory)? {
                texts.push((path.display().to_string(), read(&path)?));
            }
        }
    }
    if let Some(body) = sources.body.as_deref().filter(|body| !body.trim().is_empty()) {
        texts.push(("runtime options (config_body)".into(), body.to_owned()));
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
pub(super) fn parse(name: &str, text: &str) -> Result<toml::Table, ConfigError> {
    let malformed = |error: toml::de::Error| ConfigError::Malformed {
        place: place(name, text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    };
    let spanned = DeTable::parse(text).map_err(malformed)?;
    if let Some(unknown) = unknown::first(spanned.get_ref()) {
        return Err(ConfigError::UnknownKey {
            place: place(name, text, unknown.offset),
            key: unknown.key,
            nearest: unknown.nearest,
        });
    }
    toml::from_str::<Config>(text).map_err(malformed)?;
    toml::from_str(text).map_err(malformed)
}

fn place(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{name}:{line}:{column}")
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
