//! Waiting for an object with progress: a line that changes where somebody watches, a line every few seconds else. Ctrl-C
//! ends the wait and nothing else.

use std::time::{Duration, Instant};

use cryopod_agent::api::condition::{READY, find};
use cryopod_agent::api::{PodCheckpoint, PodRestore, checkpoint, duration, restore};
use cryopod_agent::size;
use futures_util::{StreamExt, pin_mut};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use crate::error::Error;
use crate::output;

/// Where nobody watches, progress is said so often.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How an object stands.
pub(crate) enum Standing {
    /// Not there yet; the words say how far.
    Going(String),
    /// There.
    Done,
    /// It will not come.
    Failed { reason: String, message: String },
}

/// An object that is waited for.
pub(crate) trait Followed:
    kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static
{
    /// Its kind in words.
    const WHAT: &'static str;
    /// How it stands.
    fn standing(&self) -> Standing;
}

impl Followed for PodCheckpoint {
    const WHAT: &'static str = "checkpoint";

    fn standing(&self) -> Standing {
        use checkpoint::{FAILED, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED};
        let status = self.status.clone().unwrap_or_default();
        let words = match &status.progress {
            Some(at) if at.total_bytes > 0 => {
                let bytes = |bytes: i64| size::format(bytes.unsigned_abs());
                format!("{} {} of {}", at.step, bytes(at.done_bytes), bytes(at.total_bytes))
            }
            Some(at) => at.step.clone(),
            None => String::new(),
        };
        judge(&status.conditions, &[FAILED, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED], words)
    }
}

impl Followed for PodRestore {
    const WHAT: &'static str = "restore";

    fn standing(&self) -> Standing {
        let status = self.status.clone().unwrap_or_default();
        judge(&status.conditions, &[restore::FAILED], String::new())
    }
}

fn judge(conditions: &[Condition], failures: &[&str], words: String) -> Standing {
    match find(conditions, READY) {
        Some(ready) if ready.status == "True" => Standing::Done,
        Some(ready) if failures.contains(&ready.reason.as_str()) => {
            Standing::Failed { reason: ready.reason.clone(), message: ready.message.clone() }
        }
        Some(ready) if words.is_empty() => Standing::Going(ready.message.clone()),
        Some(_) => Standing::Going(words),
        None => Standing::Going("waits for the agent of its node".into()),
    }
}

/// Waits until the object is there or has failed; returns it as it is then.
pub(crate) async fn follow<K: Followed>(
    api: &Api<K>,
    name: &str,
    longest: Option<Duration>,
) -> Result<K, Error> {
    let (what, owned) = (K::WHAT, name.to_owned());
    let line = Line::new(format!("{what} {name}"));
    let watched = async {
        let selected = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(api.clone(), selected).default_backoff().touched_objects();
        pin_mut!(stream);
        while let Some(seen) = stream.next().await {
            let object: K = match seen {
                Ok(object) => object,
                // The API server is away for a moment; the watch begins anew.
                Err(_) => continue,
            };
            if object.meta().deletion_timestamp.is_some() {
                let message = "somebody deleted it".to_owned();
                return Err(Error::Failed {
                    what,
                    name: object.name_any(),
                    reason: "Deleted".into(),
                    message,
                });
            }
            match object.standing() {
                Standing::Done => return Ok(object),
                Standing::Failed { reason, message } => {
                    return Err(Error::Failed { what, name: object.name_any(), reason, message });
                }
                Standing::Going(words) => line.say(&words),
            }
        }
        Err(Error::Detached { what, name: owned.clone() })
    };
    let limit = longest.unwrap_or(Duration::MAX);
    tokio::select! {
        done = watched => done,
        () = tokio::time::sleep(limit.min(Duration::from_secs(u64::from(u32::MAX)))) => {
            Err(Error::TimeOver { what, name: name.to_owned(), time: duration::format(limit) })
        }
        _ = tokio::signal::ctrl_c() => Err(Error::Detached { what, name: name.to_owned() }),
    }
}

/// The line of progress.
struct Line {
    bar: Option<ProgressBar>,
    about: String,
    said: std::cell::RefCell<(Instant, String)>,
}

impl Line {
    fn new(about: String) -> Self {
        let bar = output::is_watched().then(|| {
            let bar = ProgressBar::new_spinner().with_message(about.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let long_ago = Instant::now().checked_sub(SAY_EVERY).unwrap_or_else(Instant::now);
        Self { bar, about, said: std::cell::RefCell::new((long_ago, String::new())) }
    }

    fn say(&self, words: &str) {
        let text = format!("{}: {words}", self.about);
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => {
                let mut said = self.said.borrow_mut();
                if said.1 != text && said.0.elapsed() >= SAY_EVERY {
                    output::note(&text);
                    *said = (Instant::now(), text);
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
