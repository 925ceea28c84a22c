use super::super::facts::{Cni, Handler};
use super::*;

/// A node on which everything works.
fn healthy() -> Facts {
    Facts {
        root: true,
        kernel: "6.12.107+deb13-cloud-amd64".into(),
        cgroup: Some(["cpu", "io", "memory", "pids"].map(String::from).into()),
        config_error: None,
        default_runtime: "crun".into(),
        runtimes: vec![
            Runtime { name: "crun".into(), version: Ok("crun version 1.21".into()), checkpoint: true },
            Runtime { name: "runc".into(), version: Err("not found".into()), checkpoint: false },
        ],
        criu: Criu { version: Some(Ok("4.1.1".into())), check: Some(Ok(())) },
        zfs: Zfs {
            module: Some("2.3.9".into()),
            tools: Some(Ok("2.3.9".into())),
            pools: vec![("rpool".into(), "ONLINE".into())],
        },
        store: Some(Ok(Store {
            kind: "zfs".into(),
            why: "pool rpool is imported".into(),
            place: "rpool/cryopod".into(),
            free: Some(50 << 30),
        })),
        containerd: Containerd {
            version: Some(Ok("containerd github.com/containerd/containerd/v2 v2.3.4".into())),
            config: Some(Ok(ContainerdConfig {
                handlers: vec![Handler {
                    name: "cryopod".into(),
                    snapshotter: Some("zfs".into()),
                    annotations: true,
                }],
                snapshotter: "overlayfs".into(),
                enable_criu: Some(true),
            })),
            shim: Some("/usr/bin/containerd-shim-cryopod-v2".into()),
        },
        cni: Cni { plugins: 12, networks: 1 },
        unfinished: Some(Ok(vec![])),
        leftovers: vec![],
    }
}

/// The level of a check after one thing has changed, and that it comes with advice unless it is fine.
fn level(check: &str, change: impl FnOnce(&mut Facts)) -> Level {
    let mut facts = healthy();
    change(&mut facts);
    let findings = judge(&facts);
    let of_check: Vec<&Finding> = findings.iter().filter(|finding| finding.check == check).collect();
    for finding in &of_check {
        assert_eq!(finding.advice.is_some(), finding.level != Level::Ok, "{finding:?}");
    }
    of_check.iter().map(|finding| finding.level).max().unwrap_or_else(|| panic!("no check {check}"))
}

#[test]
fn a_healthy_node_has_nothing_but_ok() {
    let findings = judge(&healthy());
    for finding in &findings {
        assert_eq!(finding.level, Level::Ok, "{finding:?}");
    }
    assert_eq!(worst(&findings), Level::Ok);
}

#[test]
fn what_makes_the_main_job_impossible_fails() {
    assert_eq!(level("kernel", |f| f.kernel = "4.19.0".into()), Level::Fail);
    assert_eq!(level("cgroup", |f| f.cgroup = None), Level::Fail);
    assert_eq!(level("config", |f| f.config_error = Some("unknown key".into())), Level::Fail);
    assert_eq!(level("runtime", |f| f.runtimes[0].version = Err("not found".into())), Level::Fail);
    assert_eq!(level("criu", |f| f.criu.version = Some(Ok("3.17.1".into()))), Level::Fail);
    assert_eq!(level("criu", |f| f.criu.version = Some(Err("not found".into()))), Level::Fail);
    assert_eq!(level("criu check", |f| f.criu.check = Some(Err("no".into()))), Level::Fail);
    assert_eq!(level("zfs pools", |f| f.zfs.pools[0].1 = "SUSPENDED".into()), Level::Fail);
    assert_eq!(level("store", |f| f.store = Some(Err("no pool".into()))), Level::Fail);
    assert_eq!(
        level("containerd", |f| f.containerd.version = Some(Ok("containerd v1.7.24".into()))),
        Level::Fail
    );
    assert_eq!(level("shim", |f| f.containerd.shim = None), Level::Fail);
    let no_handler = |f: &mut Facts| f.containerd.config = Some(Ok(ContainerdConfig::default()));
    assert_eq!(level("handler", no_handler), Level::Fail);
    assert_eq!(level("journal", |f| f.unfinished = Some(Err("no rights".into()))), Level::Fail);
}

#[test]
fn what_works_worse_than_it_could_warns() {
    assert_eq!(level("rights", |f| f.root = false), Level::Warn);
    assert_eq!(level("kernel", |f| f.kernel = "6.1.0-18-amd64".into()), Level::Warn);
    assert_eq!(level("cgroup", |f| f.cgroup = Some(vec!["cpu".into(), "pids".into()])), Level::Warn);
    assert_eq!(level("runtime", |f| f.runtimes[0].checkpoint = false), Level::Warn);
    assert_eq!(level("zfs", |f| f.zfs.module = None), Level::Warn);
    assert_eq!(level("zfs", |f| f.zfs.tools = Some(Err("not found".into()))), Level::Warn);
    assert_eq!(level("zfs pools", |f| f.zfs.pools.clear()), Level::Warn);
    assert_eq!(level("zfs pools", |f| f.zfs.pools[0].1 = "DEGRADED".into()), Level::Warn);
    assert_eq!(level("cni", |f| f.cni.networks = 0), Level::Warn);
    assert_eq!(level("journal", |f| f.unfinished = Some(Ok(vec!["op-1".into()]))), Level::Warn);
    assert_eq!(level("leftovers", |f| f.leftovers.push("a dead shim".into())), Level::Warn);
    let small = |f: &mut Facts| {
        if let Some(Ok(store)) = &mut f.store {
            store.free = Some(1 << 20);
        }
    };
    assert_eq!(level("space", small), Level::Warn);
}

fn with_handler(change: impl FnOnce(&mut ContainerdConfig)) -> impl FnOnce(&mut Facts) {
    move |facts| {
        if let Some(Ok(config)) = &mut facts.containerd.config {
            change(config);
        }
    }
}

#[test]
fn a_handler_that_works_by_halves_warns() {
    assert_eq!(level("handler", with_handler(|c| c.handlers[0].annotations = false)), Level::Warn);
    assert_eq!(level("handler", with_handler(|c| c.handlers[0].snapshotter = None)), Level::Warn);
    assert_eq!(level("cri checkpoint", with_handler(|c| c.enable_criu = Some(false))), Level::Warn);
}

#[test]
fn overlay_is_fine_where_there_is_no_zfs() {
    let no_zfs = |f: &mut Facts| {
        f.zfs.pools.clear();
        with_handler(|c| c.handlers[0].snapshotter = None)(f);
    };
    assert_eq!(level("handler", no_zfs), Level::Ok);
}

#[test]
fn a_node_without_containerd_is_no_failure() {
    let mut facts = healthy();
    facts.containerd = Containerd { version: Some(Err("not found".into())), ..Containerd::default() };
    facts.cni = Cni::default();
    assert_eq!(worst(&judge(&facts)), Level::Ok);
}

#[test]
fn versions_are_found_in_what_tools_print() {
    let cases = [
        ("crun version 1.21", Some((1, 21, 0))),
        ("containerd github.com/containerd/containerd/v2 v2.3.4", Some((2, 3, 4))),
        ("4.1.1", Some((4, 1, 1))),
        ("6.12.107+deb13", Some((6, 12, 107))),
        ("no number", None),
    ];
    for (text, found) in cases {
        assert_eq!(version(text), found, "{text}");
    }
}
