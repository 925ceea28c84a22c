//! Plans by table, and setup on a model of a node that is killed after every single action.

use super::super::containerd::Kind;
use super::super::state::Change;
use super::super::{Edge, Error, drive};
use super::*;

fn wanted() -> Wanted {
    Wanted {
        present: true,
        handlers: vec!["cryopod".into(), "cryopod-lxc".into()],
        snapshotter: "auto".into(),
        sandboxer: "shim".into(),
        restart: true,
        cluster: true,
    }
}

fn gone() -> Wanted {
    Wanted { present: false, ..wanted() }
}

fn fresh() -> Observed {
    Observed {
        distribution: Some(Distribution { kind: Kind::Containerd, unit: "containerd.service" }),
        version: Some((2, 3)),
        main: Some("version = 3\n".into()),
        drop_in: None,
        others: false,
        zfs: true,
        impossible: BTreeMap::new(),
        in_use: BTreeMap::new(),
        state: None,
        unit_since_us: Some(10),
        boot: "b".into(),
        node: Some(NodeView { ready: true, ..NodeView::default() }),
        programs: false,
    }
}

/// A node whose containerd reads its files when it is started.
#[derive(Debug, Clone)]
struct Model {
    seen: Observed,
    now: u64,
    restarts: usize,
    /// Actions until it is killed.
    left: Option<usize>,
    /// A pod that comes at the next label.
    intruder: bool,
}

impl Model {
    fn new(seen: Observed) -> Self {
        // The clock goes on from what the node has seen.
        let now = seen.unit_since_us.unwrap_or_default() + 1000;
        Self { seen, now, restarts: 0, left: None, intruder: false }
    }

    /// What containerd reads now.
    fn on_disk(&self) -> BTreeSet<String> {
        let imported = self
            .seen
            .main
            .as_ref()
            .is_some_and(|main| imports::has(main, &Kind::Containerd.pattern()) == Ok(true));
        let drop_in = self.seen.drop_in.as_deref().filter(|_| imported).unwrap_or_default();
        containerd::handlers(drop_in).unwrap().into_iter().collect()
    }

    fn node(&mut self) -> &mut NodeView {
        self.seen.node.as_mut().unwrap()
    }

    /// The invariants that hold after every action.
    fn check(&self) {
        let node = self.seen.node.as_ref().unwrap();
        if node.labels.get(READY).map(String::as_str) == Some("true") {
            for name in node.labels.keys().filter_map(|key| key.strip_prefix(HANDLER)) {
                assert!(node.handlers.contains(name), "labelled for {name} without the handler: {node:?}");
            }
        }
    }
}

impl Edge for Model {
    fn observe(&mut self) -> Result<Observed, Error> {
        Ok(self.seen.clone())
    }

    fn perform(&mut self, action: &Action) -> Result<(), Error> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Error::NoName)?;
        }
        self.now += 10;
        match action {
            Action::Label(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => self.node().labels.insert(key.clone(), value.clone()),
                        None => self.node().labels.remove(key),
                    };
                }
                if std::mem::take(&mut self.intruder) {
                    self.seen.in_use.insert("cryopod".into(), BTreeSet::from(["pod".to_owned()]));
                }
            }
            Action::Begin(state) => {
                let change = Change { boot: self.seen.boot.clone(), at_us: None };
                self.seen.state = Some(State { changed: Some(change), ..state.clone() });
            }
            Action::Complete(state) => {
                let change = Change { boot: self.seen.boot.clone(), at_us: Some(self.now) };
                self.seen.state = Some(State { changed: Some(change), ..state.clone() });
            }
            Action::Forget => self.seen.state = None,
            Action::BackUp => {}
            Action::WriteDropIn(text) => self.seen.drop_in = Some(text.clone()),
            Action::RemoveDropIn => self.seen.drop_in = None,
            Action::WriteMain(text) => self.seen.main = Some(text.clone()),
            Action::RemoveMain => self.seen.main = None,
            Action::Verify(names) => assert!(names.iter().all(|name| self.on_disk().contains(name))),
            Action::Restart(_) => {
                self.restarts += 1;
                self.seen.unit_since_us = Some(self.now);
                let handlers = self.on_disk();
                self.node().handlers = handlers;
            }
            Action::AskForRestart(unit) => return Err(Error::RestartNeeded { unit: (*unit).to_owned() }),
            Action::AwaitHandlers(names) => {
                assert!(names.iter().all(|name| self.node().handlers.contains(name)));
            }
            Action::AwaitNoHandlers(names) => {
                assert!(!names.iter().any(|name| self.node().handlers.contains(name)));
            }
            Action::StillUnused if self.seen.in_use.is_empty() => {}
            Action::StillUnused => return Err(Error::CameInUse("cryopod".into())),
            Action::RemovePrograms => self.seen.programs = false,
        }
        self.check();
        Ok(())
    }
}

fn go(model: &mut Model, wanted: &Wanted) -> Result<(), Error> {
    drive(model, wanted, |_| {})
}

/// The end of a way, without the times.
fn end(model: &Model) -> Observed {
    let mut seen = model.seen.clone();
    seen.unit_since_us = None;
    if let Some(change) = seen.state.as_mut().and_then(|state| state.changed.as_mut()) {
        change.at_us = change.at_us.map(|_| 0);
    }
    seen
}

/// Nodes to begin with.
fn starts() -> Vec<Observed> {
    let mut installed = Model::new(fresh());
    go(&mut installed, &wanted()).unwrap();
    let other = wanted().handlers[..1].to_vec();
    let mut narrower = Model::new(fresh());
    go(&mut narrower, &Wanted { handlers: other, ..wanted() }).unwrap();
    vec![
        fresh(),
        Observed { main: None, ..fresh() },
        Observed {
            main: Some("version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n".into()),
            ..fresh()
        },
        Observed { drop_in: Some("# by hand\nversion = 3\n".into()), programs: true, ..fresh() },
        Observed { others: true, zfs: false, ..fresh() },
        installed.seen,
        narrower.seen,
    ]
}

#[test]
fn killed_after_any_action_the_next_call_comes_to_the_same_end() {
    for start in starts() {
        for goal in [wanted(), gone()] {
            let mut whole = Model::new(start.clone());
            go(&mut whole, &goal).unwrap();
            for after in 0.. {
                let mut model = Model { left: Some(after), ..Model::new(start.clone()) };
                let killed = go(&mut model, &goal).is_err();
                model.left = None;
                go(&mut model, &goal).unwrap();
                assert_eq!(end(&model), end(&whole), "killed after {after} actions");
                assert!(model.restarts <= 2, "{} restarts", model.restarts);
                let before = (model.seen.clone(), model.restarts);
                go(&mut model, &goal).unwrap();
                assert_eq!((model.seen, model.restarts), before, "another call changes nothing");
                if !killed {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_node_that_is_put_back_is_as_it_was() {
    for start in starts().into_iter().take(5) {
        let mut model = Model::new(start.clone());
        go(&mut model, &wanted()).unwrap();
        assert_ne!(model.seen.drop_in, start.drop_in);
        go(&mut model, &gone()).unwrap();
        // A drop-in of somebody else was kept under another name.
        assert_eq!(model.seen.drop_in, None);
        if !start.others {
            assert_eq!(model.seen.main, start.main);
        }
        assert_eq!((model.seen.state.clone(), model.seen.programs), (None, false));
        assert!(model.node().labels.is_empty() && model.node().handlers.is_empty());
        assert_eq!(model.restarts, 2);
    }
}

#[test]
fn containerd_is_restarted_only_when_something_changed() {
    let mut model = Model::new(fresh());
    go(&mut model, &wanted()).unwrap();
    assert_eq!(model.restarts, 1);
    // kubelet registered the node anew, without our labels.
    model.node().labels.clear();
    go(&mut model, &wanted()).unwrap();
    assert_eq!((model.restarts, model.node().labels.len()), (1, 3));
    // The machine was rebooted in the middle of a change.
    model.seen.state.as_mut().unwrap().changed = Some(Change { boot: "before".into(), at_us: None });
    go(&mut model, &wanted()).unwrap();
    assert_eq!(model.restarts, 1);
}

#[test]
fn without_the_right_to_restart_it_waits_for_somebody_who_does() {
    let (mut model, wanted) = (Model::new(fresh()), Wanted { restart: false, ..wanted() });
    for _ in 0..3 {
        assert!(matches!(go(&mut model, &wanted), Err(Error::RestartNeeded { .. })));
        assert_eq!(model.node().labels.get(READY).map(String::as_str), Some("false"));
    }
    model.now += 10;
    model.perform(&Action::Restart("containerd.service")).unwrap();
    go(&mut model, &wanted).unwrap();
    assert_eq!(model.node().labels.get(READY).map(String::as_str), Some("true"));
    let back = Wanted { present: false, ..wanted };
    assert!(matches!(go(&mut model, &back), Err(Error::RestartNeeded { .. })));
    model.perform(&Action::Restart("containerd.service")).unwrap();
    go(&mut model, &back).unwrap();
    assert!(model.node().labels.is_empty());
}

#[test]
fn a_node_with_pods_is_not_put_back() {
    let mut model = Model::new(fresh());
    go(&mut model, &wanted()).unwrap();
    model.seen.in_use.insert("cryopod-lxc".into(), BTreeSet::from(["0123456789abcdef".to_owned()]));
    let before = model.seen.clone();
    let Err(Error::Refused(Refusal::InUse(what))) = go(&mut model, &gone()) else { panic!("not refused") };
    assert_eq!(what, "cryopod-lxc (1: 0123456789abc)");
    assert_eq!(model.seen, before);
    // One that comes at the last moment: nothing of it is taken away, and no more come.
    model.seen.in_use.clear();
    model.intruder = true;
    assert!(matches!(go(&mut model, &gone()), Err(Error::CameInUse(_))));
    assert_eq!((&model.seen.drop_in, &model.seen.main), (&before.drop_in, &before.main));
    assert_eq!(model.node().labels.get(READY).map(String::as_str), Some("false"));
}

#[test]
fn a_handler_that_is_dropped_stays_until_its_last_pod_is_gone() {
    let mut model = Model::new(fresh());
    go(&mut model, &wanted()).unwrap();
    model.seen.in_use.insert("cryopod-lxc".into(), BTreeSet::from(["a".to_owned()]));
    let fewer = Wanted { handlers: vec!["cryopod".into()], ..wanted() };
    go(&mut model, &fewer).unwrap();
    assert!(model.node().handlers.contains("cryopod-lxc"));
    assert!(!model.node().labels.contains_key("cryopod.dev/handler-cryopod-lxc"), "no new pods");
    assert_eq!((model.restarts, warnings(&fewer, &model.seen).len()), (1, 1));
    model.seen.in_use.clear();
    go(&mut model, &fewer).unwrap();
    assert!(!model.node().handlers.contains("cryopod-lxc"));
}

#[test]
fn a_handler_that_cannot_work_here_is_left_out() {
    let why = "libseccomp.so.2 is missing";
    let impossible = BTreeMap::from([("cryopod-lxc".to_owned(), why.to_owned())]);
    let mut model = Model::new(Observed { impossible: impossible.clone(), ..fresh() });
    go(&mut model, &wanted()).unwrap();
    assert_eq!(model.node().handlers, BTreeSet::from(["cryopod".to_owned()]));
    assert_eq!(model.node().labels.len(), 2);
    let only = Wanted { handlers: vec!["cryopod-lxc".into()], ..wanted() };
    assert!(matches!(plan(&only, &Observed { impossible, ..fresh() }), Err(Refusal::Impossible(_))));
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_done() {
    let k3s = Some(Distribution { kind: Kind::K3s, unit: "k3s.service" });
    let old = Some("version = 2\n".to_owned());
    let too_old = |version| Observed { version, ..fresh() };
    for (seen, word) in [
        (Observed { distribution: None, ..fresh() }, "k3s-agent.service"),
        (too_old(Some((1, 7))), "1.7"),
        (too_old(None), "unknown version"),
        (Observed { main: old, ..fresh() }, "containerd config migrate"),
        (Observed { distribution: k3s.clone(), ..fresh() }, "does not import"),
        (Observed { distribution: k3s, main: None, ..fresh() }, "does not import"),
    ] {
        let refusal = plan(&wanted(), &seen).unwrap_err().to_string();
        assert!(refusal.contains(word), "{refusal}");
    }
    let strange = Wanted { handlers: vec!["runc".into()], ..wanted() };
    assert!(matches!(plan(&strange, &fresh()), Err(Refusal::NoHandler(_))));
}

#[test]
fn in_k3s_only_the_drop_in_is_written_and_its_own_unit_restarted() {
    for (kind, unit, folder) in [
        (Kind::K3s, "k3s.service", "/var/lib/rancher/k3s/agent"),
        (Kind::K3s, "k3s-agent.service", "/var/lib/rancher/k3s/agent"),
        (Kind::Rke2, "rke2-server.service", "/var/lib/rancher/rke2/agent"),
    ] {
        // As it is rendered at each start: nothing in it may be changed.
        let main = format!(
            "version = 3\nimports = [\"{folder}/etc/containerd/config-v3.toml.d/*.toml\"]\nroot = \"{folder}/containerd\"\n"
        );
        let seen = Observed { distribution: Some(Distribution { kind, unit }), main: Some(main), ..fresh() };
        let actions = plan(&wanted(), &seen).unwrap();
        assert!(!actions.iter().any(|it| matches!(it, Action::WriteMain(_))), "{actions:?}");
        assert!(
            actions.iter().any(|it| matches!(it, Action::WriteDropIn(_)))
                && actions.contains(&Action::Restart(unit))
        );
        // The same of the way back.
        let text = actions.iter().find_map(|it| match it {
            Action::WriteDropIn(text) => Some(text.clone()),
            _ => None,
        });
        let state = Some(State::new(&wanted().handlers, Main::Left));
        let actions = plan(&gone(), &Observed { drop_in: text, state, ..seen }).unwrap();
        assert!(actions.contains(&Action::RemoveDropIn) && actions.contains(&Action::Restart(unit)));
        assert!(
            !actions.iter().any(|it| matches!(it, Action::WriteMain(_) | Action::RemoveMain)),
            "{actions:?}"
        );
    }
}

#[test]
fn a_handler_that_somebody_configured_by_hand_is_not_waited_away() {
    let main = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n\
                [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.cryopod]\n";
    let drop_in = Some(format!("{HEAD}\n"));
    let seen = Observed { main: Some(main.into()), drop_in, ..fresh() };
    let actions = plan(&gone(), &seen).unwrap();
    assert!(actions.contains(&Action::AwaitNoHandlers(vec!["cryopod-lxc".into()])), "{actions:?}");
    let only = Wanted { handlers: vec!["cryopod".into()], ..gone() };
    let actions = plan(&only, &seen).unwrap();
    assert!(!actions.iter().any(|it| matches!(it, Action::AwaitNoHandlers(_))), "{actions:?}");
}

#[test]
fn a_handler_that_cannot_work_any_more_stays_for_the_pods_that_it_has() {
    let mut model = Model::new(fresh());
    go(&mut model, &wanted()).unwrap();
    model.seen.in_use.insert("cryopod-lxc".into(), BTreeSet::from(["a".to_owned()]));
    model.seen.impossible.insert("cryopod-lxc".into(), "libseccomp.so.2 is missing".into());
    go(&mut model, &wanted()).unwrap();
    assert!(model.node().handlers.contains("cryopod-lxc"), "its pods could not be ended otherwise");
    assert!(!model.node().labels.contains_key("cryopod.dev/handler-cryopod-lxc"), "no new pods");
}

#[test]
fn the_snapshotter_is_zfs_where_that_works_or_what_is_asked_for() {
    for (asked, zfs, line) in [
        ("auto", true, Some("snapshotter = \"zfs\"")),
        ("auto", false, None),
        ("default", true, None),
        ("overlayfs", true, Some("snapshotter = \"overlayfs\"")),
    ] {
        let wanted = Wanted { snapshotter: asked.into(), ..wanted() };
        let actions = plan(&wanted, &Observed { zfs, ..fresh() }).unwrap();
        let text = actions.iter().find_map(|it| match it {
            Action::WriteDropIn(text) => Some(text.clone()),
            _ => None,
        });
        assert_eq!(text.unwrap().lines().find(|it| it.starts_with("snapshotter")), line, "{asked} {zfs}");
    }
}

#[test]
fn without_a_cluster_no_label_is_touched() {
    let wanted = Wanted { cluster: false, ..wanted() };
    let mut model = Model::new(Observed { node: None, ..fresh() });
    for action in plan(&wanted, &model.observe().unwrap()).unwrap() {
        assert!(!matches!(action, Action::Label(_) | Action::AwaitHandlers(_)), "{action}");
    }
}
