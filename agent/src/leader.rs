//! One of the agents leads: it does what belongs to no node. By a `Lease`, as Kubernetes' own controllers do.
//!
//! The holder renews every [`RENEW`]; the others take over when it has not for [`DURATION`] by their own clock, counted from
//! when they saw it change, so that clocks of nodes need not agree. A holder that cannot renew stops leading before anybody
//! else may begin. What the leader does is idempotent all the same: two leaders for a moment do no harm.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api::MANAGER;
use crate::context::{Error, optional};

/// How long a lease holds without being renewed; that of Kubernetes' own controllers.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, or looked at.
const RENEW: Duration = Duration::from_secs(3);
/// A holder that could not renew for so long stops; well before [`DURATION`].
const GIVE_UP: Duration = Duration::from_secs(10);

/// What one look at the lease leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Make the lease, in our name.
    Create,
    /// Write it, in our name.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else leads.
    Follow,
}

/// What was last seen of the lease, and since when it is so by our own clock.
#[derive(Debug, Clone)]
pub struct Sight {
    holder: String,
    renewed: Option<Timestamp>,
    since: Instant,
}

/// Decides. Pure; `last` is the sight of the look before.
pub fn turn(lease: Option<&Lease>, me: &str, last: Option<Sight>, now: Instant) -> (Turn, Option<Sight>) {
    let Some(spec) = lease.map(|lease| lease.spec.clone().unwrap_or_default()) else {
        return (Turn::Create, None);
    };
    let holder = spec.holder_identity.unwrap_or_default();
    let renewed = spec.renew_time.map(|time| time.0);
    if holder == me {
        return (Turn::Renew, None);
    }
    if holder.is_empty() {
        return (Turn::Take, None);
    }
    let sight = match last {
        Some(last) if last.holder == holder && last.renewed == renewed => last,
        _ => Sight { holder, renewed, since: now },
    };
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let patience = seconds.map_or(DURATION, Duration::from_secs);
    let turn = if now.duration_since(sight.since) > patience { Turn::Take } else { Turn::Follow };
    (turn, Some(sight))
}

/// When the API server last answered.
pub type Contact = Arc<Mutex<Option<Instant>>>;

/// Who leads, for as long as the process runs.
pub struct Election {
    contact: Contact,
    api: Api<Lease>,
    me: String,
    name: String,
}

impl Election {
    /// Among the agents whose leases are in this namespace. `me` is unique for each process.
    pub fn new(client: Client, namespace: &str, me: String, contact: Contact) -> Self {
        Self { contact, api: Api::namespaced(client, namespace), me, name: format!("{MANAGER}-leader") }
    }

    /// Leads whenever it can: `lead` is started when leadership is won and dropped when it is lost.
    pub async fn run<F, Fut>(self, told: tokio::sync::watch::Sender<bool>, lead: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut leading: Option<tokio::task::JoinHandle<()>> = None;
        let (mut sight, mut renewed) = (None, Instant::now());
        loop {
            let began = Instant::now();
            let looked = tokio::time::timeout(RENEW, self.look(&mut sight)).await;
            if matches!(looked, Ok(Ok(_))) {
                *self.contact.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(began);
            }
            match looked {
                Ok(Ok(true)) => {
                    renewed = began;
                    if leading.is_none() {
                        tracing::info!(me = self.me, "leads");
                        leading = Some(tokio::spawn(lead()));
                    }
                }
                Ok(Ok(false)) => stop(&mut leading, "somebody else leads"),
                Ok(Err(error)) => tracing::debug!(%error, "lease"),
                Err(_) => tracing::debug!("the API server does not answer"),
            }
            if renewed.elapsed() > GIVE_UP {
                stop(&mut leading, "the lease could not be renewed");
            }
            told.send_replace(leading.is_some());
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Whether the lease is ours after this look.
    async fn look(&self, sight: &mut Option<Sight>) -> Result<bool, Error> {
        let lease = optional(self.api.get(&self.name).await.map_err(Error::api("read the leader's lease")))?;
        let (turn, seen) = turn(lease.as_ref(), &self.me, sight.take(), Instant::now());
        *sight = seen;
        let now = MicroTime(Timestamp::now());
        let written = match (turn, lease) {
            (Turn::Follow, _) => return Ok(false),
            (Turn::Create, _) | (_, None) => {
                let lease = Lease {
                    metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                    spec: Some(self.spec(now, None, 0)),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            (turn, Some(mut lease)) => {
                let old = lease.spec.clone().unwrap_or_default();
                let changes = old.lease_transitions.unwrap_or(0);
                lease.spec = Some(match turn {
                    Turn::Renew => self.spec(now, old.acquire_time, changes),
                    _ => self.spec(now, None, changes.saturating_add(1)),
                });
                // The version in it makes a second writer fail.
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written.map_err(Error::api("write the leader's lease")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, now: MicroTime, acquired: Option<MicroTime>, changes: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(changes),
            ..LeaseSpec::default()
        }
    }
}

fn stop(leading: &mut Option<tokio::task::JoinHandle<()>>, why: &str) {
    if let Some(task) = leading.take() {
        tracing::info!(why, "leads no more");
        task.abort();
    }
}

/// A name that no other process has, not even the next one of this node.
pub fn identity(node: &str) -> String {
    format!("{node}_{}_{}", std::process::id(), Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod requests;

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_time_by_our_own_clock() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(turn(None, "me", None, start).0, Turn::Create);
        assert_eq!(turn(Some(&lease("me", 0)), "me", None, start).0, Turn::Renew);
        assert_eq!(turn(Some(&lease("", 0)), "me", None, start).0, Turn::Take);
        // The time that is written in it is years ago: that says nothing.
        let (first, sight) = turn(Some(&lease("other", 0)), "me", None, start);
        assert_eq!(first, Turn::Follow);
        let (second, sight) = turn(Some(&lease("other", 0)), "me", sight, later(15));
        assert_eq!(second, Turn::Follow);
        let (renewed, newer) = turn(Some(&lease("other", 9)), "me", sight.clone(), later(16));
        assert_eq!(renewed, Turn::Follow, "it was renewed");
        assert_eq!(turn(Some(&lease("other", 9)), "me", newer, later(20)).0, Turn::Follow);
        assert_eq!(turn(Some(&lease("other", 0)), "me", sight, later(16)).0, Turn::Take);
    }
}
