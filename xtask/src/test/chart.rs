//! The suite `chart`, on this host: the chart is rendered with every values file of `charts/cryopod/ci` and held against the
//! schemas of each Kubernetes that is supported; alerts are tested by promtool; each query of alerts and dashboard parses, and
//! asks only for metrics that the reference names.

mod queries;
mod schemas;
mod snapshots;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cryopod_command::{Command, Limits};

use super::outcome::Outcome;
use crate::cache::Cache;
use crate::image::Tools;
use crate::{chart, host, repository};

/// Supported versions of Kubernetes; the schemas have all of them.
const KUBERNETES: &[&str] = &["1.34.0", "1.35.0", "1.36.0", "1.37.0"];
/// Kinds of the Prometheus operator, whose schemas are its own; the rules in them are checked by promtool.
const OPERATOR: &str = "ServiceMonitor,PodMonitor,PrometheusRule";
const PACKAGES: &[(&str, &str)] = &[("promtool", "prometheus"), ("pip3", "python3-pip"), ("unzip", "unzip")];
/// Kinds that the chart uses where the cluster has them, and since when Kubernetes does; rendered as for such a cluster.
const LATER: &[(&str, &str)] = &[("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "1.36.0")];
/// Values that have to be refused, each by the schema.
const WRONG: &[&str] = &[
    "node.distribution=microk8s",
    "agent.port=http",
    "instal.binaries=false",
    "runtimeClasses[0].name=runc",
    "image.pullPolicy=Sometimes",
];

/// Runs it until `until`.
pub(super) fn suite(until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let root = repository::root();
    let mut check = |name: &str, result: Result<(), String>| {
        println!("{}: {name}", if result.is_ok() { "ok" } else { "FAILED" });
        if let Err(why) = &result {
            println!("  {why}");
        }
        outcome.check(name, result);
    };
    match chart::files(&root, until) {
        Err(why) => check("files that are made from others", Err(why)),
        Ok(files) => {
            for (path, text) in files {
                let same = fs::read_to_string(root.join(&path)).is_ok_and(|there| there == text);
                let result =
                    if same { Ok(()) } else { Err("differs; run `cargo xtask docs --write`".into()) };
                check(&format!("{path}: is what it is made from"), result);
            }
        }
    }
    match Bench::prepare(&root, until) {
        Ok(bench) => bench.run(&mut check),
        Err(why) => check("tools and schemas", Err(why)),
    }
    outcome
}

/// What the checks need.
struct Bench {
    root: PathBuf,
    chart: PathBuf,
    helm: PathBuf,
    kubeconform: PathBuf,
    schemas: PathBuf,
    work: tempfile::TempDir,
    limits: Limits,
}

impl Bench {
    fn prepare(root: &Path, until: Instant) -> Result<Self, String> {
        let said = |error: &dyn std::error::Error| crate::report::chain(error);
        let cache = Cache::from_env().map_err(|error| said(&error))?;
        host::install(&cache, PACKAGES).map_err(|error| said(&error))?;
        let program = |tools: &Tools, name: &str| {
            let folder = tools.programs(&cache).map_err(|error| said(&error))?;
            Ok::<_, String>(folder.join(name))
        };
        Ok(Self {
            root: root.to_owned(),
            chart: root.join("charts/cryopod"),
            helm: program(&Tools::HELM, "helm")?,
            kubeconform: program(&Tools::KUBECONFORM, "kubeconform")?,
            schemas: schemas::folder(&cache, KUBERNETES)?,
            work: tempfile::tempdir().map_err(|error| error.to_string())?,
            limits: Limits { deadline: Some(until), cancel: None },
        })
    }

    fn run(&self, check: &mut dyn FnMut(&str, Result<(), String>)) {
        match self.values() {
            Ok(files) => {
                for file in files {
                    self.configuration(file.as_deref(), check);
                }
            }
            Err(why) => check("values files in charts/cryopod/ci", Err(why)),
        }
        for wrong in WRONG {
            let refused = match self.template(None, KUBERNETES[0], &["--set", wrong]) {
                Ok(_) => Err("was taken".to_owned()),
                Err(why) if why.contains("values don't meet the specifications of the schema") => Ok(()),
                Err(why) => Err(format!("refused by something else: {why}")),
            };
            check(&format!("the schema refuses {wrong}"), refused);
        }
        let prometheus = self.root.join("deploy/prometheus");
        for (name, arguments) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
            let command = Command::new("promtool").args([name, "rules", arguments]).current_dir(&prometheus);
            check(&format!("promtool {name} rules {arguments}"), self.quiet(command));
        }
        for (name, result) in queries::checks(&self.root, self.work.path(), &self.limits) {
            check(&name, result);
        }
    }

    /// None for the values as they are, then each file of `ci`.
    fn values(&self) -> Result<Vec<Option<PathBuf>>, String> {
        let folder = self.chart.join("ci");
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with("-values.yaml"));
        files.sort();
        if files.is_empty() {
            return Err("there are none".into());
        }
        Ok(std::iter::once(None).chain(files.into_iter().map(Some)).collect())
    }

    fn configuration(&self, values: Option<&Path>, check: &mut dyn FnMut(&str, Result<(), String>)) {
        let name =
            values.and_then(Path::file_name).map_or("values.yaml".into(), |name| name.to_string_lossy());
        let mut lint =
            Command::new(&self.helm).args(["lint", "--strict", "--quiet", "--kube-version", KUBERNETES[0]]);
        if let Some(values) = values {
            lint = lint.arg("--values").arg(values);
        }
        check(&format!("{name}: helm lint"), self.quiet(lint.arg(&self.chart)));
        for version in KUBERNETES {
            let text = self.template(values, version, &[]);
            if *version == KUBERNETES[0]
                && let Ok(text) = &text
            {
                check(&format!("{name}: only what works on the node is privileged"), privileges(text));
                if snapshots::wanted(&name) {
                    let result = snapshots::compare(&self.root, &name, text);
                    check(&format!("{name}: the life of a node is as it was looked at"), result);
                }
            }
            if values.is_none()
                && let Ok(text) = &text
            {
                check(&format!("{name}: Kubernetes {version} says who asked"), requester(text, version));
            }
            check(
                &format!("{name}: Kubernetes {version}"),
                text.and_then(|text| self.conforms(&text, version)),
            );
        }
    }

    fn template(&self, values: Option<&Path>, version: &str, more: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.helm).args(["template", "cryopod"]).arg(&self.chart);
        command = command.args(["--namespace", "cryopod-system", "--kube-version", version]).args(more);
        for (kind, _) in LATER.iter().filter(|(_, since)| version >= *since) {
            command = command.args(["--api-versions", kind]);
        }
        if let Some(values) = values {
            command = command.arg("--values").arg(values);
        }
        let command = command.stdout(cryopod_command::Stdout::Capture { limit: 16 << 20 });
        let output = command.run(&self.limits).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn conforms(&self, text: &str, version: &str) -> Result<(), String> {
        let file = self.work.path().join("rendered.yaml");
        fs::write(&file, text).map_err(|error| error.to_string())?;
        let location =
            self.schemas.join("{{ .NormalizedKubernetesVersion }}/{{ .ResourceKind }}{{ .KindSuffix }}.json");
        let mut command = Command::new(&self.kubeconform).args(["-strict", "-skip", OPERATOR]);
        command = command.args(["-kubernetes-version", version, "-schema-location"]).arg(location);
        self.quiet(command.arg(file))
    }

    /// Runs it; what it says only if it fails.
    fn quiet(&self, command: Command) -> Result<(), String> {
        let (status, output) = command.status(&self.limits).map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
        let lines: Vec<&str> = said.trim().lines().collect();
        Err(lines[lines.len().saturating_sub(12)..].join("\n  "))
    }
}

/// Who asked is checked everywhere, and set by the API server where that can set it.
fn requester(text: &str, version: &str) -> Result<(), String> {
    let has = |kind: &str| {
        let wanted = [format!("kind: {kind}"), "name: cryopod-requester".to_owned()];
        text.split("\n---\n")
            .any(|object| wanted.iter().all(|line| object.lines().any(|it| it.trim() == line)))
    };
    let sets = LATER.iter().all(|(_, since)| version >= *since);
    match (has("ValidatingAdmissionPolicy"), has("MutatingAdmissionPolicy") == sets) {
        (false, _) => Err("no policy checks the annotation cryopod.dev/requested-by".into()),
        (_, false) => {
            Err(format!("a MutatingAdmissionPolicy is {}", if sets { "missing" } else { "not served there" }))
        }
        _ => Ok(()),
    }
}

/// Every container is either privileged and enters the node, or has no rights at all.
fn privileges(text: &str) -> Result<(), String> {
    let commands = text.matches("command: [/cryopod/cryopod-agent]").count();
    let enter = text.matches("- host\n").count();
    let privileged = text.matches("privileged: true").count();
    let dropped = text.matches("drop: [ALL]").count();
    if privileged != enter {
        return Err(format!("{privileged} containers are privileged, {enter} enter the node"));
    }
    // The pods of `helm test` have a command of their own.
    if privileged + dropped < commands {
        return Err(format!(
            "of {commands} containers {privileged} are privileged and {dropped} have no rights"
        ));
    }
    Ok(())
}
