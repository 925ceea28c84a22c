//! One exposition of all pods: each shim is asked for its own, and families of the same name become one.
//!
//! A shim is asked on its Control socket by a connection that is kept. All are asked at the same time; one that does not
//! answer in time is left out and counted, so that one stuck pod does not hide the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryopod_shim::control::client::Asking;
use cryopod_shim::discovery::{self, Shim};
use tokio::sync::Mutex;

/// A shim answers within milliseconds; Prometheus gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks shims for their metrics.
#[derive(Debug)]
pub struct Scraper {
    dir: PathBuf,
    kept: Mutex<BTreeMap<PathBuf, Arc<Asking>>>,
    failures: AtomicU64,
}

/// What the shims said.
#[derive(Debug, Default)]
pub struct Scraped {
    /// One exposition.
    pub text: String,
    /// Pods by backend, e.g. `oci/crun`.
    pub backends: BTreeMap<String, u64>,
    /// Shims that did not answer, since the agent's start.
    pub failures: u64,
}

impl Default for Scraper {
    fn default() -> Self {
        Self::of(Path::new(discovery::DIR))
    }
}

impl Scraper {
    /// Of the shims whose files are in this directory.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), kept: Mutex::default(), failures: AtomicU64::new(0) }
    }

    /// Asks all of them.
    pub async fn scrape(&self) -> Scraped {
        let shims = discovery::files(&self.dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the directory of shims cannot be read");
            Vec::new()
        });
        let mut asking = tokio::task::JoinSet::new();
        for shim in &shims {
            let (kept, shim) = (self.connection(shim).await, shim.clone());
            asking.spawn(async move {
                let asked = async {
                    let connection = match kept {
                        Some(connection) => connection,
                        None => Arc::new(Asking::connect(&shim.socket).await?),
                    };
                    let text = connection.metrics().await?;
                    Ok::<_, cryopod_shim::control::client::ClientError>((connection, text))
                };
                let answer = tokio::time::timeout(PATIENCE, asked).await;
                (shim, answer)
            });
        }
        let mut texts = BTreeMap::new();
        let mut alive = BTreeMap::new();
        while let Some(joined) = asking.join_next().await {
            let Ok((shim, answer)) = joined else { continue };
            let socket = shim.socket.clone();
            match answer {
                Ok(Ok((connection, text))) => {
                    alive.insert(socket, connection);
                    texts.insert(shim.pod.id.clone(), text);
                }
                // Its file is left by a shim that was killed; `recover` removes it.
                _ if !is_listening(&socket).await => {}
                Ok(Err(error)) => self.failed(&shim, &error.to_string()),
                Err(_) => self.failed(&shim, "no answer within two seconds"),
            }
        }
        *self.kept.lock().await = alive;
        let mut backends: BTreeMap<String, u64> = BTreeMap::new();
        for text in texts.values() {
            *backends.entry(backend(text).unwrap_or("unknown").to_owned()).or_default() += 1;
        }
        Scraped {
            text: merge(texts.values().map(String::as_str)),
            backends,
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    async fn connection(&self, shim: &Shim) -> Option<Arc<Asking>> {
        self.kept.lock().await.get(&shim.socket).cloned()
    }

    fn failed(&self, shim: &Shim, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(pod = shim.pod.name, namespace = shim.pod.namespace, why, "a shim gives no metrics");
    }
}

async fn is_listening(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}

/// The backend that a shim says its pod has.
fn backend(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("cryopod_pod_info{"))?;
    let (_, rest) = line.split_once("backend=\"")?;
    rest.split_once('"').map(|(backend, _)| backend)
}

/// Puts samples of the same family together, as the format demands: each family's head once, its samples after it. Shims
/// write heads before samples and name samples as their family, but for a histogram's.
pub fn merge<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")) {
                family = rest.split(' ').next().unwrap_or_default();
                let head = &mut families.entry(family).or_default().0;
                let (word, old) = (&line[..6], head.iter().any(|old| old.starts_with(&line[..6])));
                if !old && !word.is_empty() {
                    head.push(line);
                }
            } else if !line.is_empty() && !line.starts_with('#') {
                families.entry(family).or_default().1.push(line);
            }
        }
    }
    let mut merged = String::new();
    for (head, samples) in families.into_values().filter(|(_, samples)| !samples.is_empty()) {
        for line in head.into_iter().chain(samples) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_all_shims_are_one_each() {
        let one =
            "# HELP a A.\n# TYPE a gauge\na{pod=\"1\"} 1\n# HELP b B.\n# TYPE b counter\nb{pod=\"1\"} 2\n";
        let two = "# HELP a A.\n# TYPE a gauge\na{pod=\"2\"} 3\n# HELP c C.\n# TYPE c gauge\n";
        let merged = merge([one, two]);
        let expected = "# HELP a A.\n# TYPE a gauge\na{pod=\"1\"} 1\na{pod=\"2\"} 3\n# HELP b B.\n# TYPE b counter\nb{pod=\"1\"} 2\n";
        assert_eq!(merged, expected, "a family without samples is left out");
    }

    #[test]
    fn the_backend_is_in_the_info() {
        assert_eq!(backend("x 1\ncryopod_pod_info{pod=\"a\",backend=\"lxc\"} 1\n"), Some("lxc"));
        assert_eq!(backend("x 1\n"), None);
    }

    #[tokio::test]
    async fn without_shims_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let scraped = Scraper::of(dir.path()).scrape().await;
        assert_eq!((scraped.text.as_str(), scraped.failures), ("", 0));
    }
}
