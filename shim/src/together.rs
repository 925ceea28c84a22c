//! The containers of a checkpoint come back together.
//!
//! kubelet makes the containers of a pod one after the other, seconds apart. Were each let go at its own restore, the
//! first would work on the shared volume while the memory of the second still says what was there at the instant of
//! the checkpoint: it would find another file, or CRIU would refuse the file whose size has changed. So a restored
//! container stays frozen until the last one of its checkpoint is back. A pod that never asks for all of them, or one
//! that is being stopped, is not kept waiting for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Who comes back with a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Company {
    /// Names of the containers whose memory is in the checkpoint, this one included.
    pub members: BTreeSet<String>,
    /// How long the first of them waits for the last.
    pub patience: Duration,
}

/// What lets a container that is back go on; called once.
pub type LetGo = Box<dyn FnOnce() + Send>;

/// The restored containers of a pod that wait, by checkpoint.
#[derive(Default)]
pub struct Together {
    groups: Mutex<BTreeMap<String, Group>>,
}

enum Group {
    Gathering(BTreeMap<String, LetGo>),
    // Whoever comes later is a restart, and does not wait.
    Over,
}

impl Together {
    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        // Map operations do not panic half-way.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the container `name` has to come back frozen: others of checkpoint `from` are still missing.
    pub fn must_wait(&self, from: &str, name: &str, company: &Company) -> bool {
        let mut others = company.members.iter().filter(|other| *other != name);
        match self.groups().get(from) {
            Some(Group::Over) => false,
            Some(Group::Gathering(back)) => others.any(|other| !back.contains_key(other)),
            None => others.next().is_some(),
        }
    }

    /// The container `name` is back. The last one lets all go; the first one starts the clock.
    pub fn back(self: &Arc<Self>, from: &str, name: &str, company: &Company, let_go: LetGo) {
        if company.members.len() < 2 {
            return let_go();
        }
        let mut groups = self.groups();
        let group = groups.entry(from.to_owned()).or_insert_with(|| {
            self.clone().watch(from.to_owned(), company.patience);
            Group::Gathering(BTreeMap::new())
        });
        let Group::Gathering(back) = group else {
            drop(groups);
            return let_go();
        };
        back.insert(name.to_owned(), let_go);
        if company.members.iter().all(|member| back.contains_key(member)) {
            let ready = std::mem::replace(group, Group::Over);
            drop(groups);
            release(ready);
        }
    }

    /// Lets go whoever waits: the pod is being stopped.
    pub fn give_up(&self) {
        let waiting: Vec<Group> =
            self.groups().values_mut().map(|group| std::mem::replace(group, Group::Over)).collect();
        waiting.into_iter().for_each(release);
    }

    fn watch(self: Arc<Self>, from: String, patience: Duration) {
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let group = self.groups().get_mut(&from).map(|group| std::mem::replace(group, Group::Over));
            if let Some(Group::Gathering(back)) = &group {
                let back = back.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                tracing::warn!(
                    checkpoint = from,
                    back,
                    seconds = patience.as_secs(),
                    "not all containers of the checkpoint were asked for; those that are back go on alone"
                );
            }
            group.into_iter().for_each(release);
        });
    }
}

fn release(group: Group) {
    if let Group::Gathering(back) = group {
        back.into_values().for_each(|let_go| let_go());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn company(names: &[&str]) -> Company {
        Company {
            members: names.iter().map(|&name| name.to_owned()).collect(),
            patience: Duration::from_secs(60),
        }
    }

    fn note(gone: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> LetGo {
        let gone = gone.clone();
        Box::new(move || gone.lock().unwrap().push(name))
    }

    #[tokio::test]
    async fn the_first_waits_frozen_and_the_last_lets_all_go() {
        let (together, gone, two) = (Arc::new(Together::default()), Arc::default(), company(&["a", "b"]));
        assert!(together.must_wait("c", "a", &two));
        together.back("c", "a", &two, note(&gone, "a"));
        assert!(gone.lock().unwrap().is_empty());
        assert!(!together.must_wait("c", "b", &two));
        together.back("c", "b", &two, note(&gone, "b"));
        assert_eq!(*gone.lock().unwrap(), ["a", "b"]);
        // A restart of one of them under `restore-policy: always`.
        assert!(!together.must_wait("c", "a", &two));
        together.back("c", "a", &two, note(&gone, "again"));
        assert_eq!(*gone.lock().unwrap(), ["a", "b", "again"]);
    }

    #[tokio::test]
    async fn a_container_that_is_alone_does_not_wait() {
        let (together, gone) = (Arc::new(Together::default()), Arc::default());
        assert!(!together.must_wait("c", "a", &company(&["a"])));
        together.back("c", "a", &company(&["a"]), note(&gone, "a"));
        assert_eq!(*gone.lock().unwrap(), ["a"]);
    }

    #[tokio::test]
    async fn a_pod_that_does_not_ask_for_all_goes_on_after_a_while() {
        let (together, gone) = (Arc::new(Together::default()), Arc::default());
        let two = Company { patience: Duration::from_millis(50), ..company(&["a", "b"]) };
        together.back("c", "a", &two, note(&gone, "a"));
        assert!(gone.lock().unwrap().is_empty());
        while gone.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!together.must_wait("c", "b", &two));
    }

    #[tokio::test]
    async fn a_pod_that_is_stopped_waits_for_nobody() {
        let (together, gone, two) = (Arc::new(Together::default()), Arc::default(), company(&["a", "b"]));
        together.back("c", "a", &two, note(&gone, "a"));
        together.give_up();
        assert_eq!(*gone.lock().unwrap(), ["a"]);
        assert!(!together.must_wait("c", "b", &two));
    }
}
