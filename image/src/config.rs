//! What an image's configuration says of the process to run: read from the image, kept with the template, and what the
//! container's init executes (OCI image specification, config.md and conversion.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// The search path of an image that names none (as containerd and docker have it).
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is kept. In JSON the names are ours; those of images are read by [`Document`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Program and first arguments, which arguments of the caller follow.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the whole command; the caller's take their place.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; names are those of the image's own /etc/passwd and /etc/group.
    pub user: String,
    /// Working directory; empty for the root.
    pub working_dir: String,
    /// What asks the process to end; empty for SIGTERM.
    pub stop_signal: String,
    /// Places that the image wants outside of its root.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl RunConfig {
    /// The command with these arguments of the caller's; empty where nobody names one.
    pub fn argv(&self, arguments: &[String]) -> Vec<String> {
        let rest = if arguments.is_empty() { &self.command } else { arguments };
        self.entrypoint.iter().chain(rest).cloned().collect()
    }

    /// The environment, which always has a search path.
    pub fn environment(&self) -> Vec<String> {
        let has_path = self.env.iter().any(|pair| pair.starts_with("PATH="));
        let path = (!has_path).then(|| DEFAULT_PATH.to_owned());
        path.into_iter().chain(self.env.iter().cloned()).collect()
    }
}

/// An image's configuration as it stands in the blob.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Document {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: Config,
    #[serde(default)]
    pub(crate) rootfs: Rootfs,
}

/// Its layers.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Rootfs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<String>,
}

/// Docker's names, with `null` for what is not set.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

impl From<Config> for RunConfig {
    fn from(config: Config) -> Self {
        Self {
            entrypoint: config.entrypoint,
            command: config.cmd,
            env: config.env,
            user: config.user,
            working_dir: config.working_dir,
            stop_signal: config.stop_signal,
            volumes: config.volumes.into_keys().collect(),
            labels: config.labels,
        }
    }
}

/// Go writes `null` for what is empty.
pub(crate) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read_nulls_included() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["a"]},"x":1,
            "config":{"Cmd":null,"Entrypoint":["/e","1"],"Env":["A=b"],"User":"7:8","WorkingDir":"/w","Volumes":{"/v":{}},
            "StopSignal":"SIGQUIT","Labels":{"l":"m"},"ExposedPorts":{"80/tcp":{}}}}"#;
        let document: Document = serde_json::from_str(text).unwrap();
        assert_eq!(document.rootfs.diff_ids, ["a"]);
        let config = RunConfig::from(document.config);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("7:8", "/w"));
        assert_eq!((config.volumes.clone(), config.stop_signal.as_str()), (vec!["/v".to_owned()], "SIGQUIT"));
        assert_eq!(config.argv(&[]), ["/e", "1"]);
        assert_eq!(config.argv(&["2".into()]), ["/e", "1", "2"]);
        assert_eq!(config.environment(), [DEFAULT_PATH, "A=b"]);
        let empty: Document = serde_json::from_str(r#"{"config":null}"#).unwrap();
        assert_eq!(RunConfig::from(empty.config), RunConfig::default());
        assert!(serde_json::from_str::<Document>(r#"{"os":"linux","os":"windows"}"#).is_err());
    }

    #[test]
    fn arguments_take_the_place_of_the_command_and_not_of_the_entrypoint() {
        let config = RunConfig { command: vec!["sh".into()], ..RunConfig::default() };
        assert_eq!(config.argv(&[]), ["sh"]);
        assert_eq!(config.argv(&["true".into()]), ["true"]);
    }
}
