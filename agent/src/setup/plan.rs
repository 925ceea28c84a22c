//! What there is to do on a node, decided from what was seen of it. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Refusal};
use super::containerd::{self, Distribution, HEAD};
use super::observed::{NodeView, Observed};
use super::state::{Main, State};
use super::{HANDLER, READY, imports};

/// How the node should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Ready for pods, or as if we had never been here.
    pub present: bool,
    /// Handlers to offer.
    pub handlers: Vec<String>,
    /// `auto`, `default` or a name.
    pub snapshotter: String,
    /// Who holds a pod's namespaces.
    pub sandboxer: String,
    /// Whether containerd may be restarted by us.
    pub restart: bool,
    /// Whether the node is labelled.
    pub cluster: bool,
}

/// What to tell a person, whatever is done.
pub(super) fn warnings(wanted: &Wanted, observed: &Observed) -> Vec<String> {
    if !wanted.present {
        return Vec::new();
    }
    let missing = observed.impossible.iter().filter(|(name, _)| wanted.handlers.contains(name));
    let missing = missing.map(|(name, why)| format!("{name} is not offered here: {why}"));
    let kept = kept(wanted, observed);
    missing.chain(kept.iter().map(|name| format!("{name} stays until its last pod here has ended"))).collect()
}

/// What there is to do, in this order.
pub(super) fn plan(wanted: &Wanted, observed: &Observed) -> Result<Vec<Action>, Refusal> {
    if let Some(name) = wanted.handlers.iter().find(|name| !containerd::is_handler(name)) {
        return Err(Refusal::NoHandler(name.clone()));
    }
    if wanted.present { install(wanted, observed) } else { remove(wanted, observed) }
}

fn install(wanted: &Wanted, observed: &Observed) -> Result<Vec<Action>, Refusal> {
    let distribution = able(observed)?;
    let offered: Vec<String> =
        wanted.handlers.iter().filter(|name| !observed.impossible.contains_key(*name)).cloned().collect();
    if offered.is_empty() {
        let reasons = observed.impossible.iter().map(|(name, why)| format!("{name}: {why}"));
        return Err(Refusal::Impossible(reasons.collect::<Vec<_>>().join("; ")));
    }
    let mut handlers = offered.clone();
    handlers.extend(kept(wanted, observed));
    let snapshotter = match wanted.snapshotter.as_str() {
        "auto" => observed.zfs.then_some("zfs"),
        "default" => None,
        named => Some(named),
    };
    let drop_in = containerd::drop_in(&handlers, snapshotter, &wanted.sandboxer);
    let (main, fate) = main_with_import(distribution, observed)?;
    let state = State::new(&handlers, fate);

    let mut actions = Vec::new();
    let writes = observed.drop_in.as_ref() != Some(&drop_in) || main.is_some();
    let reads = pending(observed);
    if writes || reads {
        not_ready(wanted, observed, &mut actions);
    }
    if writes {
        actions.push(Action::Begin(state.clone()));
        // Without our first line it is somebody else's.
        if observed.drop_in.as_ref().is_some_and(|there| !there.starts_with(HEAD)) {
            actions.push(Action::BackUp);
        }
        actions.push(Action::WriteDropIn(drop_in));
        actions.extend(main.map(Action::WriteMain));
    }
    // Also after a change that was cut off before it was complete: the files are right, and nobody has asked containerd.
    if writes || (reads && incomplete(observed)) {
        actions.push(Action::Verify(handlers.clone()));
        actions.push(Action::Complete(state));
    }
    if writes || reads {
        actions.push(restart(wanted, distribution));
    }
    if let Some(node) = observed.node.as_ref().filter(|_| wanted.cluster) {
        let sees = node.ready && offered.iter().all(|name| node.handlers.contains(name));
        let labels = label_changes(node, &labels_of(&offered));
        // Once it is labelled, a kubelet that is away for a moment is not waited for.
        if writes || reads || (!sees && !labels.is_empty()) {
            actions.push(Action::AwaitHandlers(offered.clone()));
        }
        let labels = if actions.is_empty() { labels } else { wanted_labels(node, &labels_of(&offered)) };
        if !labels.is_empty() {
            actions.push(Action::Label(labels));
        }
    }
    Ok(actions)
}

fn remove(wanted: &Wanted, observed: &Observed) -> Result<Vec<Action>, Refusal> {
    if !observed.in_use.is_empty() {
        return Err(Refusal::InUse(list(&observed.in_use)));
    }
    let labelled = observed.node.as_ref().is_some_and(|node| wanted.cluster && !node.labels.is_empty());
    let ours = observed.drop_in.as_ref().is_some_and(|text| text.starts_with(HEAD));
    let mut actions = Vec::new();
    if let Some(distribution) = &observed.distribution {
        let main = main_without_import(distribution, observed);
        let writes = ours || main.is_some();
        let reads = pending(observed);
        if writes || reads {
            not_ready(wanted, observed, &mut actions);
            // A pod may have come between the look and the label.
            actions.push(Action::StillUnused);
        }
        if writes {
            let fate = observed.state.as_ref().map_or(Main::Left, |state| state.main);
            let state = State::new(&[], fate);
            actions.push(Action::Begin(state.clone()));
            // First the file that imports, so that no import ever leads nowhere.
            actions.extend(main);
            if ours {
                actions.push(Action::RemoveDropIn);
            }
            actions.push(Action::Complete(state));
        } else if let Some(state) = observed.state.as_ref().filter(|_| reads && incomplete(observed)) {
            actions.push(Action::Complete(state.clone()));
        }
        if writes || reads {
            actions.push(restart(wanted, distribution));
            let gone = not_by_hand(wanted, observed);
            if wanted.cluster && observed.node.is_some() && !gone.is_empty() {
                actions.push(Action::AwaitNoHandlers(gone));
            }
        }
    }
    if observed.programs {
        actions.push(Action::RemovePrograms);
    }
    if observed.state.is_some() || !actions.is_empty() {
        actions.push(Action::Forget);
    }
    // The very last: whoever waits for the node to be clean waits for this.
    if let Some(node) = observed.node.as_ref().filter(|_| labelled) {
        actions.push(Action::Label(node.labels.keys().map(|key| (key.clone(), None)).collect()));
    }
    Ok(actions)
}

/// Handlers that the main configuration does not have by itself: those that somebody has put there stay when ours go.
fn not_by_hand(wanted: &Wanted, observed: &Observed) -> Vec<String> {
    let main = observed.main.as_deref().unwrap_or_default();
    let by_hand = containerd::handlers(main).unwrap_or_default();
    wanted.handlers.iter().filter(|name| !by_hand.contains(name)).cloned().collect()
}

/// The distribution, if drop-ins work there.
fn able(observed: &Observed) -> Result<&Distribution, Refusal> {
    let distribution = observed.distribution.as_ref().ok_or_else(|| {
        let units: Vec<&str> = containerd::UNITS.iter().map(|(_, unit)| *unit).collect();
        Refusal::NoContainerd(units.join(", "))
    })?;
    match observed.version {
        Some((major, _)) if major >= 2 => Ok(distribution),
        Some((major, minor)) => Err(Refusal::TooOld(format!("{major}.{minor}"))),
        None => Err(Refusal::TooOld("of an unknown version".into())),
    }
}

/// The text of the main configuration, if it has to be written, and what that makes of it.
fn main_with_import(
    distribution: &Distribution,
    observed: &Observed,
) -> Result<(Option<String>, Main), Refusal> {
    let kind = distribution.kind;
    let (file, pattern) = (kind.main().to_owned(), kind.pattern());
    let before = observed.state.as_ref().map_or(Main::Left, |state| state.main);
    let Some(main) = &observed.main else {
        if !kind.main_is_a_file() {
            return Err(Refusal::NoImport { file, pattern });
        }
        let text = format!("# Written by `cryopod-agent setup`.\nversion = 3\nimports = [\"{pattern}\"]\n");
        return Ok((Some(text), Main::Created));
    };
    let refused = |why| Refusal::Main { file: file.clone(), why };
    match imports::has(main, &pattern).map_err(refused)? {
        true => Ok((None, before)),
        false if kind.main_is_a_file() => {
            Ok((Some(imports::with(main, &pattern).map_err(refused)?), Main::Imported))
        }
        false => Err(Refusal::NoImport { file, pattern }),
    }
}

/// What takes our import out of the main configuration again, if that is wanted: not while others use the folder.
fn main_without_import(distribution: &Distribution, observed: &Observed) -> Option<Action> {
    let main = observed.main.as_ref().filter(|_| distribution.kind.main_is_a_file() && !observed.others)?;
    match observed.state.as_ref()?.main {
        Main::Left => None,
        Main::Imported => imports::without(main, &distribution.kind.pattern()).map(Action::WriteMain),
        Main::Created => {
            main.starts_with("# Written by `cryopod-agent setup`.").then_some(Action::RemoveMain)
        }
    }
}

/// Whether containerd has not read our last change yet.
fn pending(observed: &Observed) -> bool {
    let change = observed.state.as_ref().and_then(|state| state.changed.as_ref());
    change.is_some_and(|change| !change.is_loaded(&observed.boot, observed.unit_since_us))
}

/// Whether our last change was cut off before all of it was written.
fn incomplete(observed: &Observed) -> bool {
    let change = observed.state.as_ref().and_then(|state| state.changed.as_ref());
    change.is_some_and(|change| change.at_us.is_none())
}

/// Handlers that are not offered any more, since they are not wanted or cannot work, and still have pods here.
fn kept(wanted: &Wanted, observed: &Observed) -> Vec<String> {
    let state = observed.state.as_ref();
    let before = state.into_iter().flat_map(|state| &state.handlers);
    before
        .filter(|name| !wanted.handlers.contains(name) || observed.impossible.contains_key(*name))
        .filter(|name| observed.in_use.contains_key(*name))
        .cloned()
        .collect()
}

fn restart(wanted: &Wanted, distribution: &Distribution) -> Action {
    if wanted.restart { Action::Restart(distribution.unit) } else { Action::AskForRestart(distribution.unit) }
}

/// No new pods from here on, unless that is said already.
fn not_ready(wanted: &Wanted, observed: &Observed, actions: &mut Vec<Action>) {
    if let Some(node) = observed.node.as_ref().filter(|_| wanted.cluster)
        && node.labels.get(READY).map(String::as_str) != Some("false")
    {
        actions.push(Action::Label(BTreeMap::from([(READY.to_owned(), Some("false".to_owned()))])));
    }
}

fn labels_of(handlers: &[String]) -> BTreeMap<String, String> {
    let own = handlers.iter().map(|name| (format!("{HANDLER}{name}"), "true".to_owned()));
    own.chain([(READY.to_owned(), "true".to_owned())]).collect()
}

/// What has to change for the node to have exactly these labels of ours.
fn label_changes(node: &NodeView, labels: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let mut changes = wanted_labels(node, labels);
    changes.retain(|key, value| node.labels.get(key) != value.as_ref());
    changes
}

/// The same with those that it has already: they may have been changed by an action before.
fn wanted_labels(node: &NodeView, labels: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let superfluous =
        node.labels.keys().filter(|key| !labels.contains_key(*key)).map(|key| (key.clone(), None));
    superfluous.chain(labels.iter().map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

/// `cryopod-lxc (3: a, b, …)`.
fn list(in_use: &BTreeMap<String, BTreeSet<String>>) -> String {
    let one = |(name, ids): (&String, &BTreeSet<String>)| {
        let some: Vec<&str> = ids.iter().take(3).map(|id| &id[..id.len().min(13)]).collect();
        let more = if ids.len() > some.len() { ", …" } else { "" };
        format!("{name} ({}: {}{more})", ids.len(), some.join(", "))
    };
    in_use.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
