//! Names and passwords as docker's `config.json` has them, one per registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config::or_default;
use crate::source::SourceError;

/// Docker's own name for its registry, in that file.
const DOCKER: &str = "https://index.docker.io/v1/";

/// A name and a password; never shown.
pub(super) struct Login {
    user: String,
    password: String,
}

impl Login {
    /// The header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default, deserialize_with = "or_default")]
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
}

/// The credentials for a registry; a file that was named has to be there.
pub(super) fn find(registry: &str, file: Option<&Path>) -> Result<Option<Login>, SourceError> {
    let path = match file.map(Path::to_owned).or_else(usual) {
        Some(path) => path,
        None => return Ok(None),
    };
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => return Ok(None),
        other => other.map_err(SourceError::io("read", &path))?,
    };
    let odd = |reason: &str| SourceError::Odd { path: path.clone(), reason: reason.to_owned() };
    // The parser's own words could quote what is in the file.
    let config: Config = serde_json::from_slice(&text).map_err(|_| odd("it is no config.json of docker"))?;
    login(&config, registry).map_err(odd)
}

fn usual() -> Option<PathBuf> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    dir.or_else(home).map(|dir| dir.join("config.json"))
}

fn login(config: &Config, registry: &str) -> Result<Option<Login>, &'static str> {
    let names = [registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    let mut names = names.to_vec();
    if registry == "docker.io" {
        names.push(DOCKER.to_owned());
    }
    let found = config
        .auths
        .iter()
        .find(|(name, _)| names.iter().any(|known| known == name.trim_end_matches('/') || known == *name));
    let Some((_, auth)) = found.filter(|(_, auth)| !auth.auth.is_empty()) else { return Ok(None) };
    let bad = "its entry for the registry cannot be read";
    let text = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(bad)?;
    let (user, password) = text.split_once(':').ok_or(bad)?;
    Ok(Some(Login { user: user.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_gets_its_own_credentials_and_no_others() {
        let text = format!(
            r#"{{"auths":{{"r.example:5000":{{"auth":"{0}"}},"{DOCKER}":{{"auth":"{0}"}},"bad":{{"auth":"%"}}}},"credsStore":"x"}}"#,
            STANDARD.encode("me:pass:word")
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        let found = login(&config, "r.example:5000").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("me", "pass:word"));
        assert!(login(&config, "docker.io").unwrap().is_some());
        assert!(login(&config, "r.example").unwrap().is_none());
        assert!(login(&config, "bad").is_err());
    }
}
