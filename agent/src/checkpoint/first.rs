//! When the agent has looked at every checkpoint that was its node's when it started: what a restart costs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use kube::runtime::reflector::ObjectRef;

use crate::api::PodCheckpoint;
use crate::metrics::Metrics;

type Ref = ObjectRef<PodCheckpoint>;

/// Looks that are still to come.
pub(super) struct FirstLooks {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

enum State {
    /// The objects are being listed; these were looked at already.
    Listing(HashSet<Ref>),
    /// These are left, of so many.
    Left(HashSet<Ref>, usize),
    Over,
}

impl FirstLooks {
    /// None yet. The time is counted from the agent's start, as its metrics know it.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::new(State::Listing(HashSet::new())), metrics }
    }

    /// All that there are.
    pub(super) fn listed(&self, all: impl Iterator<Item = Ref>) {
        self.change(|state| {
            if let State::Listing(looked) = state {
                let all: HashSet<Ref> = all.collect();
                let total = all.len();
                let left = all.into_iter().filter(|object| !looked.contains(object)).collect();
                *state = State::Left(left, total);
            }
        });
    }

    /// One was looked at.
    pub(super) fn looked(&self, object: Ref) {
        self.change(|state| match state {
            State::Listing(looked) => {
                looked.insert(object);
            }
            State::Left(left, _) => {
                left.remove(&object);
            }
            State::Over => {}
        });
    }

    /// What is deleted is not waited for.
    pub(super) fn keep(&self, is_there: impl Fn(&Ref) -> bool) {
        self.change(|state| {
            if let State::Left(left, _) = state {
                left.retain(is_there);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut state);
        if let State::Left(left, total) = &*state
            && left.is_empty()
        {
            let time = self.metrics.synced();
            tracing::info!(
                objects = total,
                seconds = time.as_secs_f64(),
                "looked at all checkpoints of this node"
            );
            *state = State::Over;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Text;

    fn object(name: &str) -> Ref {
        Ref::new(name).within("default")
    }

    fn is_over(metrics: &Metrics) -> bool {
        let mut text = Text::default();
        metrics.render(&mut text);
        text.into_string().contains("\ncryopod_agent_initial_sync_seconds ")
    }

    #[test]
    fn it_is_over_when_each_that_was_listed_was_looked_at_whatever_comes_later() {
        let metrics = Arc::new(Metrics::default());
        let first = FirstLooks::new(Arc::clone(&metrics));
        first.looked(object("a"));
        first.listed(["a", "b", "c"].map(object).into_iter());
        first.looked(object("new"));
        first.looked(object("b"));
        first.looked(object("b"));
        assert!(!is_over(&metrics), "c is left");
        first.keep(|object| object.name != "c");
        assert!(is_over(&metrics), "c was deleted");
    }

    #[test]
    fn without_objects_it_is_over_with_the_list() {
        let metrics = Arc::new(Metrics::default());
        FirstLooks::new(Arc::clone(&metrics)).listed(std::iter::empty());
        assert!(is_over(&metrics));
    }
}
