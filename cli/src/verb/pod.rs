//! Verbs on containers of running pods. Their shim does the work, as if containerd had asked for it, and tells
//! containerd by its events, so that everybody knows the same state.
//!
//! Nothing goes past the shim's own states but the thaw of a whole pod, which is for the emergency that they are wrong.

pub(super) mod exec;

use std::time::Duration;

use cryopod_shim::control::api;
use cryopod_shim::control::client::Client;
use serde_json::json;

use super::lifecycle::several;
use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::pods::{self, Pod};

/// One call of a shim; a freeze may wait for a task in the kernel.
const CALL: Duration = Duration::from_secs(60);
/// For a state that follows what is done already.
const POLITE: Duration = Duration::from_secs(10);

/// What a name means: containers of one pod.
pub(super) struct Target {
    pod: Pod,
    client: Client,
    /// Without the pause container, which nobody means.
    containers: Vec<api::Container>,
    /// Whether a single container is meant, not the pod.
    one: bool,
}

/// The containers of a running pod that are meant; None for a standalone container, or where nothing has that name.
pub(super) fn target(
    context: &Context,
    name: &str,
    container: Option<&str>,
) -> Result<Option<Target>, Error> {
    match context.registry().find(name) {
        Ok(Some(_)) if container.is_some() => return Err(Error::NotAPod { id: name.to_owned() }),
        Ok(Some(_)) => return Ok(None),
        // A pod may be called namespace/name, which no container can be.
        Ok(None) | Err(Error::BadContainerId { .. }) => {}
        Err(error) => return Err(error),
    }
    let (pod, wanted) = match pods::by_name(context, name)? {
        Some(pod) => (pod, container.map(str::to_owned)),
        None => match pods::holding(context, name)? {
            Some((pod, id)) => (pod, Some(id)),
            None => return Ok(None),
        },
    };
    let client = Client::connect(&pod.socket)?;
    let containers = choose(client.info()?.containers, wanted.as_deref(), &pods::display(&pod))?;
    Ok(Some(Target { one: wanted.is_some(), pod, client, containers }))
}

/// The containers that are meant: all but the pause container, or the one of this name or id.
fn choose(
    mut containers: Vec<api::Container>,
    wanted: Option<&str>,
    pod: &str,
) -> Result<Vec<api::Container>, Error> {
    containers.retain(|container| !container.sandbox);
    let Some(wanted) = wanted else { return Ok(containers) };
    let there = names(containers.iter());
    containers.retain(|container| container.id == wanted || container.name == wanted);
    if containers.is_empty() {
        return Err(Error::NoSuchContainer { pod: pod.to_owned(), name: wanted.to_owned(), there });
    }
    Ok(containers)
}

fn names<'a>(containers: impl Iterator<Item = &'a api::Container>) -> String {
    containers.map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Those in this state; of a pod, the others are left as they are.
fn in_state<'a>(
    target: &'a Target,
    state: &str,
    verb: &'static str,
) -> Result<Vec<&'a api::Container>, Error> {
    // Of a single one the shim says better why it cannot be.
    let wanted = |container: &&api::Container| target.one || container.state == state;
    let found: Vec<&api::Container> = target.containers.iter().filter(wanted).collect();
    if found.is_empty() {
        return Err(Error::PodState { pod: pods::display(&target.pod), state: state.to_owned(), verb });
    }
    Ok(found)
}

/// `cryopod pause`: one after the other, so this is no instant of the pod. One that cannot be paused does not keep the
/// others.
pub(super) fn pause(context: &Context, target: &Target) -> Result<u8, Error> {
    let wanted = in_state(target, "running", "pause")?;
    let all = wanted.len();
    let mut paused = Vec::new();
    let mut errors = Vec::new();
    for container in wanted {
        match target.client.pause(&container.id, &context.signals.limits(CALL)) {
            Ok(()) => paused.push(&container.id),
            Err(error) => errors.push(error.into()),
        }
    }
    if !paused.is_empty() {
        let value = json!({ "id": target.pod.pod.id, "status": "paused", "containers": paused });
        context.output.result(&value, |_| String::new())?;
    }
    several(errors, all)
}

/// `cryopod resume`. Of a whole pod it is also what ends an emergency: it ends a capture that hangs, and lets everything
/// run whatever froze it and whatever state the shim takes it to be in.
pub(super) fn resume(context: &Context, target: &Target) -> Result<u8, Error> {
    let mut thawed = Vec::new();
    if target.one {
        for container in &target.containers {
            target.client.resume(&container.id, &context.signals.limits(CALL))?;
            thawed.push(container.id.clone());
        }
    } else {
        // It waits for no lock and no runtime, and ends a capture that holds the containers.
        let answer = target.client.thaw();
        // Those that were paused run now; the shim's state and containerd's have to follow.
        for container in to_follow(&target.containers, answer.as_deref().ok()) {
            if let Err(error) = target.client.resume(&container.id, &context.signals.limits(POLITE)) {
                let (name, id) = (&container.name, &container.id);
                context.output.note(&format!(
                    "{name} runs, but the shim has it as paused: {error}; `cryopod resume {id}` tries again"
                ));
            }
        }
        thawed = answer?;
    }
    let text = if thawed.is_empty() { "nothing was frozen".to_owned() } else { thawed.join("\n") };
    context.output.result(&json!({ "thawed": thawed }), |_| text)?;
    Ok(exit::OK)
}

/// The containers that the shim and containerd have as paused after a thaw. One that is "thawed" runs on purpose:
/// containerd still reads its disk. Where one could not be thawed (None), nobody says which of the others were.
fn to_follow<'a>(
    containers: &'a [api::Container],
    thawed: Option<&[String]>,
) -> impl Iterator<Item = &'a api::Container> {
    let runs = move |id: &String| thawed.is_none_or(|thawed| thawed.contains(id));
    containers.iter().filter(move |container| container.state == "paused" && runs(&container.id))
}

/// `cryopod kill`: to one container, which has to be named where there are several.
pub(super) fn kill(context: &Context, target: &Target, signal: i32, all: bool) -> Result<u8, Error> {
    let id = &only(&target.containers, &pods::display(&target.pod), "kill")?.id;
    // Signals are 1 to 64.
    let number = u32::try_from(signal).unwrap_or_default();
    target.client.kill(id, number, all, &context.signals.limits(CALL))?;
    context.output.result(&json!({ "id": id, "signal": signal }), |_| String::new())?;
    Ok(exit::OK)
}

/// The one that has not ended; one of a few is never guessed.
fn only<'a>(
    containers: &'a [api::Container],
    pod: &str,
    verb: &'static str,
) -> Result<&'a api::Container, Error> {
    let mut alive = containers.iter().filter(|container| container.state != "stopped");
    match (alive.next(), alive.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            let (pod, state) = (pod.to_owned(), "running".to_owned());
            Err(Error::PodState { pod, state, verb })
        }
        (Some(_), Some(_)) => {
            let alive = containers.iter().filter(|container| container.state != "stopped");
            Err(Error::WhichContainer { pod: pod.to_owned(), there: names(alive) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str, state: &str) -> api::Container {
        let mut container = api::Container::new();
        (container.id, container.name, container.state) = (id.into(), name.into(), state.into());
        container.sandbox = name == "pause";
        container
    }

    fn pod() -> Vec<api::Container> {
        vec![
            container("1", "pause", "running"),
            container("2", "web", "running"),
            container("3", "side", "paused"),
            container("4", "init", "stopped"),
        ]
    }

    #[test]
    fn a_container_is_chosen_by_name_or_id_and_never_the_pause_container() {
        let ids = |wanted| choose(pod(), wanted, "p").map(|all| names(all.iter()));
        assert_eq!(ids(None).unwrap(), "web, side, init");
        assert_eq!(ids(Some("web")).unwrap(), "web");
        assert_eq!(ids(Some("3")).unwrap(), "side");
        for missing in ["pause", "1", "db"] {
            let error = ids(Some(missing)).unwrap_err();
            assert!(matches!(&error, Error::NoSuchContainer { there, .. } if there == "web, side, init"));
        }
    }

    #[test]
    fn a_container_whose_disk_is_still_read_is_never_resumed_with_its_pod() {
        let containers = [
            container("1", "frozen", "paused"),
            container("2", "read", "thawed"),
            container("3", "late", "paused"),
        ];
        let follow = |thawed: Option<&[String]>| names(to_follow(&containers, thawed));
        assert_eq!(follow(None), "frozen, late");
        assert_eq!(follow(Some(&["1".into(), "2".into()])), "frozen");
    }

    #[test]
    fn a_signal_goes_to_the_only_living_container_and_to_none_of_several() {
        let containers = choose(pod(), None, "p").unwrap();
        assert!(
            matches!(only(&containers, "p", "kill"), Err(Error::WhichContainer { there, .. }) if there == "web, side")
        );
        assert_eq!(only(&containers[1..], "p", "kill").unwrap().name, "side");
        assert!(matches!(only(&containers[2..], "p", "kill"), Err(Error::PodState { .. })));
    }
}
