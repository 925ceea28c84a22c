//! Conditions of our objects: `Ready`, with Kubernetes' rule that the time changes only when the status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition that people wait for: `kubectl wait --for=condition=Ready`.
pub const READY: &str = "Ready";

/// Longest message that a condition takes (apimachinery's validation of `metav1.Condition`).
const MAX_MESSAGE: usize = 32768;

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`, as Kubernetes writes it.
    pub status: &'static str,
    /// One CamelCase word that programs act on.
    pub reason: &'static str,
    /// One or two sentences for people: what happened, and what to do.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "True", reason, message: message.into() }
    }

    /// It does not hold, or not yet.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "False", reason, message: message.into() }
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether `Ready` is true.
pub fn is_ready(conditions: &[Condition]) -> bool {
    find(conditions, READY).is_some_and(|condition| condition.status == "True")
}

/// The reason of `Ready`; empty before there is one.
pub fn reason(conditions: &[Condition]) -> &str {
    find(conditions, READY).map(|condition| condition.reason.as_str()).unwrap_or_default()
}

/// Sets `Ready`; whether anything changed.
pub fn set_ready(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let mut message = verdict.message.clone();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    let mut new = Condition {
        type_: READY.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == READY) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            let changed = *old != new;
            *old = new;
            changed
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let (mut conditions, first, later) = (Vec::new(), Timestamp::UNIX_EPOCH, Timestamp::MAX);
        assert!(set_ready(&mut conditions, &Verdict::no("Pending", "waits"), Some(1), first));
        assert!(
            !set_ready(&mut conditions, &Verdict::no("Pending", "waits"), Some(1), later),
            "the same again"
        );
        assert!(set_ready(&mut conditions, &Verdict::no("Pending", "still waits"), Some(1), later));
        assert_eq!(conditions[0].last_transition_time, Time(first), "still False");
        assert!(set_ready(&mut conditions, &Verdict::yes("Done", ""), Some(1), later));
        assert_eq!((conditions.len(), &conditions[0].last_transition_time), (1, &Time(later)));
        assert!(is_ready(&conditions) && reason(&conditions) == "Done");
    }

    #[test]
    fn a_message_is_cut_where_kubernetes_would_refuse_it_and_never_inside_a_letter() {
        let mut conditions = Vec::new();
        set_ready(&mut conditions, &Verdict::no("Failed", "ä".repeat(20_000)), None, Timestamp::UNIX_EPOCH);
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE);
    }
}
