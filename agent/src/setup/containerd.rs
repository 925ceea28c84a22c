//! Where containerd is configured, by what runs it, and what our drop-in says.

/// The first line of our drop-in, by which it is known again without the marker.
pub(super) const HEAD: &str = "# Written by `cryopod-agent setup`, which writes it again when it is changed.";

/// What runs containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// `containerd`, `k3s` or `rke2`.
    pub kind: Kind,
    /// The active unit, which a restart is for.
    pub unit: &'static str,
}

/// Where files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A unit of its own.
    Containerd,
    /// Inside k3s.
    K3s,
    /// Inside rke2.
    Rke2,
}

/// What `--distribution` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Choice {
    /// By the active unit.
    Auto,
    /// A unit of its own.
    Containerd,
    /// Inside k3s.
    K3s,
    /// Inside rke2.
    Rke2,
}

/// Units in the order in which they decide: beside a k3s, a containerd of its own is not the kubelet's.
pub(super) const UNITS: &[(Kind, &str)] = &[
    (Kind::K3s, "k3s.service"),
    (Kind::K3s, "k3s-agent.service"),
    (Kind::Rke2, "rke2-server.service"),
    (Kind::Rke2, "rke2-agent.service"),
    (Kind::Containerd, "containerd.service"),
];

impl Choice {
    /// The first unit of the list that is active, of those that are allowed.
    pub(super) fn find(self, is_active: impl Fn(&str) -> bool) -> Option<Distribution> {
        let (kind, unit) = UNITS.iter().find(|(kind, unit)| self.allows(*kind) && is_active(unit))?;
        Some(Distribution { kind: *kind, unit })
    }

    fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Auto => true,
            Self::Containerd => kind == Kind::Containerd,
            Self::K3s => kind == Kind::K3s,
            Self::Rke2 => kind == Kind::Rke2,
        }
    }
}

impl Kind {
    /// The main configuration; with k3s and rke2 the one that they render.
    pub(super) fn main(self) -> &'static str {
        match self {
            Self::Containerd => "/etc/containerd/config.toml",
            Self::K3s => "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        }
    }

    /// The folder of drop-ins.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Containerd => "/etc/containerd/conf.d",
            Self::K3s => "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d",
        }
    }

    /// Our drop-in.
    pub(super) fn drop_in(self) -> String {
        format!("{}/cryopod.toml", self.folder())
    }

    /// The pattern that the main configuration has to import.
    pub(super) fn pattern(self) -> String {
        format!("{}/*.toml", self.folder())
    }

    /// Whether the main configuration is ours to change; k3s and rke2 write theirs anew at each start.
    pub(super) fn main_is_a_file(self) -> bool {
        self == Self::Containerd
    }

    /// The folder of bundles, and of the ZFS snapshotter.
    pub(super) fn run(self) -> &'static str {
        match self {
            Self::Containerd => "/run/containerd",
            Self::K3s | Self::Rke2 => "/run/k3s/containerd",
        }
    }

    /// Where containerd keeps what outlives a boot.
    pub(super) fn root(self) -> &'static str {
        match self {
            Self::Containerd => "/var/lib/containerd",
            Self::K3s => "/var/lib/rancher/k3s/agent/containerd",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/containerd",
        }
    }

    /// Programs that may be its containerd, best first.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Containerd => &["containerd"],
            Self::K3s => &["/var/lib/rancher/k3s/data/current/bin/containerd"],
            Self::Rke2 => &["/var/lib/rancher/rke2/bin/containerd"],
        }
    }
}

/// The drop-in for these handlers.
pub(super) fn drop_in(handlers: &[String], snapshotter: Option<&str>, sandboxer: &str) -> String {
    let mut text = format!("{HEAD}\n# A file with a later name in this folder wins over it.\nversion = 3\n");
    for handler in handlers {
        text.push_str(&format!(
            "\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{handler}]\n\
             runtime_type = \"io.containerd.{handler}.v2\"\n"
        ));
        if let Some(snapshotter) = snapshotter {
            text.push_str(&format!("snapshotter = \"{snapshotter}\"\n"));
        }
        text.push_str(&format!("sandboxer = \"{sandboxer}\"\n"));
        text.push_str("pod_annotations = [\"cryopod.dev/*\"]\ncontainer_annotations = [\"cryopod.dev/*\"]\n");
    }
    text
}

/// Major and minor number in what `containerd --version` prints.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.strip_prefix('v').unwrap_or(word).split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?;
        let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
        Some((major, minor[..digits].parse().ok()?))
    })
}

/// Handlers of a configuration as `containerd config dump` prints it.
pub(super) fn handlers(dump: &str) -> Result<Vec<String>, String> {
    let table: toml::Table = dump.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let runtimes = ["plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes"]
        .iter()
        .try_fold(&toml::Value::Table(table), |value, key| value.get(key))
        .and_then(toml::Value::as_table)
        .map(|runtimes| runtimes.keys().cloned().collect());
    Ok(runtimes.unwrap_or_default())
}

/// Whether a name may be a handler of ours: it becomes part of a file name, a label and a TOML key.
pub(crate) fn is_handler(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let rest = name.strip_prefix("cryopod");
    name.len() <= 40
        && name.chars().all(plain)
        && rest.is_some_and(|rest| {
            rest.is_empty() || rest.len() > 1 && rest.starts_with('-') && !rest.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, expected) in [
            ("containerd github.com/containerd/containerd/v2 v2.3.4 abcdef", Some((2, 3))),
            ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6", Some((1, 7))),
            ("containerd github.com/k3s-io/containerd v2.2.2-bd1.34 0123", Some((2, 2))),
            ("containerd containerd.io 2.0.0-rc.1 x", Some((2, 0))),
            ("something else", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn the_drop_in_is_what_containerd_reads() {
        let text = drop_in(&["cryopod".into(), "cryopod-lxc".into()], Some("zfs"), "shim");
        assert!(text.starts_with(HEAD));
        assert_eq!(handlers(&text), Ok(vec!["cryopod".to_owned(), "cryopod-lxc".to_owned()]));
        assert_eq!(text.matches("snapshotter = \"zfs\"").count(), 2);
        assert!(text.contains("runtime_type = \"io.containerd.cryopod-lxc.v2\""));
        assert!(!drop_in(&["cryopod".into()], None, "shim").contains("snapshotter"));
    }

    #[test]
    fn what_runs_containerd_is_found_by_the_active_unit() {
        let find = |choice: Choice, active: &[&str]| {
            choice.find(|unit| active.contains(&unit)).map(|found| (found.kind, found.unit))
        };
        for (choice, active, expected) in [
            (Choice::Auto, &["containerd.service"][..], Some((Kind::Containerd, "containerd.service"))),
            (Choice::Auto, &["k3s.service"], Some((Kind::K3s, "k3s.service"))),
            // A containerd of docker's beside it is not the kubelet's.
            (
                Choice::Auto,
                &["containerd.service", "k3s-agent.service"],
                Some((Kind::K3s, "k3s-agent.service")),
            ),
            (Choice::Auto, &["rke2-agent.service"], Some((Kind::Rke2, "rke2-agent.service"))),
            // k3s with --container-runtime-endpoint.
            (
                Choice::Containerd,
                &["containerd.service", "k3s.service"],
                Some((Kind::Containerd, "containerd.service")),
            ),
            (Choice::K3s, &["containerd.service"], None),
            (Choice::Auto, &[], None),
        ] {
            assert_eq!(find(choice, active), expected, "{choice:?} {active:?}");
        }
    }

    #[test]
    fn files_of_k3s_are_its_own() {
        let etc = "/var/lib/rancher/k3s/agent/etc/containerd";
        assert_eq!(Kind::K3s.drop_in(), format!("{etc}/config-v3.toml.d/cryopod.toml"));
        assert_eq!(Kind::K3s.pattern(), format!("{etc}/config-v3.toml.d/*.toml"));
        assert!(!Kind::K3s.main_is_a_file() && !Kind::Rke2.main_is_a_file());
        assert_eq!(Kind::Rke2.main(), Kind::K3s.main().replace("k3s", "rke2"));
    }

    #[test]
    fn a_handler_is_ours_or_none() {
        for good in ["cryopod", "cryopod-lxc", "cryopod-crun-debug"] {
            assert!(is_handler(good), "{good}");
        }
        for bad in ["runc", "cryopod-", "cryopodx", "cryopod-a.b", "cryopod-\"x", "cryopod-A", ""] {
            assert!(!is_handler(bad), "{bad}");
        }
    }
}
