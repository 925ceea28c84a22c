//! The peers' tools, built from pinned Go modules in `e2e/tools`: one module per project, so that each is built with
//! exactly the dependencies that it was released with.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Error;
use super::error::at;
use super::layer::{self, Layer};
use crate::cache::Cache;
use crate::progress::Step;
use crate::recipe::Recipe;
use crate::{process, repository};

const REVISION: &str = "1";

/// One module of tools.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Its folder in `e2e/tools`.
    name: &'static str,
    /// Where its programs go in the node.
    pub(super) destination: &'static str,
    /// The variables of the program that tell its version: `{variable}` and the module whose version it is.
    version: Option<(&'static str, &'static str)>,
    /// Test packages that are built as programs: name and package.
    tests: &'static [(&'static str, &'static str)],
}

impl Tools {
    /// What every node has.
    pub(super) const NODE: &[Self] = &[
        Self {
            name: "containerd",
            destination: "usr/local/bin",
            version: Some((
                "github.com/containerd/containerd/v2/version.Version",
                "github.com/containerd/containerd/v2",
            )),
            tests: &[],
        },
        Self {
            name: "cri-tools",
            destination: "usr/local/bin",
            version: Some(("sigs.k8s.io/cri-tools/pkg/version.Version", "sigs.k8s.io/cri-tools")),
            tests: &[("critest", "sigs.k8s.io/cri-tools/cmd/critest")],
        },
        Self { name: "cni", destination: "opt/cni/bin", version: None, tests: &[] },
        Self { name: "registry", destination: "usr/local/bin", version: None, tests: &[] },
        Self { name: "checkpointctl", destination: "usr/local/bin", version: None, tests: &[] },
        Self { name: "cribench", destination: "usr/local/bin", version: None, tests: &[] },
        Self {
            name: "oci-validation",
            destination: "usr/local/lib/oci-validation",
            version: None,
            tests: &[],
        },
    ];

    /// Control plane, kubelet and kubectl.
    pub(crate) const KUBERNETES: Self = Self {
        name: "kubernetes",
        destination: "usr/local/bin",
        version: Some(("k8s.io/component-base/version.gitVersion", "k8s.io/kubernetes")),
        tests: &[],
    };

    /// What `kubectl top` asks.
    pub(crate) const METRICS_SERVER: Self = Self::on_host("metrics-server");

    /// A containerd with the bootstrap of shims as it was before 2.3; nodes get it on demand.
    pub(crate) const OLDER_CONTAINERD: Self = Self {
        name: "containerd-2.2",
        destination: "usr/local/lib/containerd-2.2",
        version: Some((
            "github.com/containerd/containerd/v2/version.Version",
            "github.com/containerd/containerd/v2",
        )),
        tests: &[],
    };

    /// Renders the chart.
    pub(crate) const HELM: Self = Self::on_host("helm");
    /// Holds what it renders against the schemas of Kubernetes.
    pub(crate) const KUBECONFORM: Self = Self::on_host("kubeconform");

    const fn on_host(name: &'static str) -> Self {
        Self { name, destination: "", version: None, tests: &[] }
    }

    /// The folder of the built programs.
    pub(crate) fn programs(&self, cache: &Cache) -> Result<PathBuf, Error> {
        Ok(self.layer(cache)?.dir)
    }

    /// What the names of its layers begin with.
    pub(super) fn prefix(&self) -> String {
        format!("{}-", self.name)
    }

    fn module(&self) -> PathBuf {
        repository::root().join("e2e/tools").join(self.name)
    }

    /// The built programs.
    pub(super) fn layer(&self, cache: &Cache) -> Result<Layer, Error> {
        let module = self.module();
        let mut recipe =
            Recipe::default().text(REVISION).path(&module.join("go.mod"))?.path(&module.join("go.sum"))?;
        // A tool of our own has its source here.
        let own = module.join("main.go");
        if own.exists() {
            recipe = recipe.path(&own)?;
        }
        let key = format!("{}{}", self.prefix(), recipe.text(format!("{self:?}")).key());
        layer::ensure(cache, "tools", &key, |dir| {
            let step = Step::begin(format!("compiling {} for the node", self.name), Some("2 minutes"));
            let log = cache.root().join(format!("log/tools-{}.log", self.name));
            let flags = self.linker_flags()?;
            let go = |arguments: &[&str]| {
                let mut command = Command::new("go");
                command.current_dir(&module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
                // Debian's Go stays with itself unless it is told otherwise.
                command.env("GOTOOLCHAIN", "auto");
                command.args(arguments);
                process::logged(command, &step, &format!("compiling {}", self.name), &log)
            };
            let out = format!("{}/", dir.display());
            let common = ["-trimpath", "-buildvcs=false", "-ldflags", &flags];
            go(&[&["build"], &common[..], &["-o", &out, "tool"]].concat())?;
            for (program, package) in self.tests {
                go(&[&["test", "-c"], &common[..], &["-o", &format!("{out}{program}"), package]].concat())?;
                // The `tool` line is there to pin the module; the plain build of a test package is a dummy.
            }
            step.done();
            Ok(())
        })
    }

    fn linker_flags(&self) -> Result<String, Error> {
        let mut flags = "-s -w".to_owned();
        if let Some((variable, module)) = self.version {
            let path = self.module().join("go.mod");
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            let version = text.lines().map(|line| line.trim().trim_start_matches("require "));
            let version = version.filter_map(|line| line.strip_prefix(module)?.strip_prefix(' '));
            if let Some(version) = version.filter_map(|rest| rest.split(' ').next()).next() {
                flags.push_str(&format!(" -X {variable}={version}"));
            }
        }
        Ok(flags)
    }
}
