//! A Kubernetes cluster for tests: etcd and the control plane run on this host, kubelets in test nodes.
//!
//! ```text
//! host   etcd ◀─ kube-apiserver ◀─ kube-controller-manager, kube-scheduler     <cache>/cluster/{pki,etcd,log,run}
//!          ▲ 10.0.2.2:<port>             │ 10.77.0.<n>:10250, a local route, forwarded by the emulator
//! node   kubelet ────────────────────────┘ and pods, which find the API server at 10.96.0.1:443 by a rule of nftables
//! ```
//! The control plane is not emulated: under emulation it would take most of a test's time and show nothing. Its processes
//! outlive the command, like a node does; `cluster down` ends them.

mod kubelet;
mod monitoring;
mod pki;
mod plane;
mod scale;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::deploy::{self, Profile};
use crate::image::Tools;
use crate::lock::{self, Lock};
use crate::machine::Machine;
use crate::node::{self, Node};
use crate::progress::Step;
use crate::{agent_image, image, process, repository};

/// The image that is installed: of this checkout, whatever its version.
const IMAGE: &str = "localhost/cryopod-agent:test";

/// Takes away what `node deploy` has put into a node, which puts it there again when it is asked to, and our handlers from
/// containerd's main file: the chart's setup has to bring all of it.
const FORGET_DEPLOYED: &str = "
for program in cryopod cryopod-agent cryopod-lxc cryopod-init cryopod-lxc-monitor containerd-shim-cryopod-v2 containerd-shim-cryopod-lxc-v2; do
  readlink /usr/local/bin/$program | grep -q ^/usr/local/lib/cryopod/ || rm -f /usr/local/bin/$program
  rm -f /usr/local/lib/cryopod-deployed/$program
done
systemctl disable --quiet cryopod-recover 2>/dev/null || true
rm -f /etc/systemd/system/cryopod-recover.service
main=/etc/containerd/config.toml
if grep -q '^# Our side' $main; then
  cp $main $main.before-cluster
  sed -i '/^# Our side/,$d' $main
fi
";

/// What `cargo xtask cluster` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Start the control plane if it does not run, and make running nodes members of the cluster.
    Up {
        /// Running nodes (`cargo xtask node up --name …`); none for the control plane alone.
        #[arg(long = "node", value_name = "NAME")]
        nodes: Vec<String>,
    },
    /// Build the agent's image, import it on the nodes, and install the chart from this checkout.
    Install {
        /// Members of the cluster.
        #[arg(long = "node", value_name = "NAME", required = true)]
        nodes: Vec<String>,
    },
    /// Start metrics-server, for `kubectl top`, and a Prometheus that scrapes the agents.
    Monitor {
        /// Members of the cluster whose agents are scraped.
        #[arg(long = "node", value_name = "NAME")]
        nodes: Vec<String>,
    },
    /// End the control plane and throw its state away; nodes stay as they are.
    Down,
    /// Measure the agent with 1,000 checkpoints and 1,000 pods, on an API server of its own; no node is needed.
    Scale,
    /// Print the variables that kubectl and the suite `kube` need, for `eval`.
    Env,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start {program}: {source}")]
    Start { program: &'static str, source: io::Error },
    #[error("{program} has ended; the end of its log, {log}:\n{said}")]
    Ended { program: &'static str, log: PathBuf, said: String },
    #[error("the API server is not ready after {seconds} s; its log: {log}")]
    Late { seconds: u64, log: PathBuf },
    #[error("{program} does not answer after {seconds} s: {answer}; its log: {log}")]
    Silent { program: &'static str, seconds: u64, answer: String, log: PathBuf },
    #[error("the API server does not take the address of metrics-server: {said}")]
    Register { said: String },
    #[error("node {name} did not become Ready within {seconds} s: {said}")]
    NotReady { name: String, seconds: u64, said: String },
    #[error("the agent did not do what is promised, see above")]
    Scale,
    #[error("the emulator of node {name} does not forward port {port}: {said}")]
    Forward { name: String, port: u16, said: String },
    #[error("no cluster runs: `cargo xtask cluster up --node NAME`")]
    Down,
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Host(#[from] crate::host::Error),
    #[error(transparent)]
    AgentImage(#[from] agent_image::Error),
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// Does it.
pub(crate) fn run(cache: &Cache, verb: &Verb) -> Result<(), Error> {
    let cluster = Cluster::new(cache);
    match verb {
        Verb::Up { nodes } => cluster.up(&find(cache, nodes)?),
        Verb::Install { nodes } => cluster.install(&find(cache, nodes)?),
        Verb::Monitor { nodes } => cluster.monitor(&find(cache, nodes)?),
        Verb::Down => cluster.down(),
        Verb::Scale => scale::run(cache, &cluster.programs()?),
        Verb::Env => {
            for (name, value) in cluster.env()? {
                println!("export {name}={}", crate::quote::line([value]));
            }
            Ok(())
        }
    }
}

fn find(cache: &Cache, names: &[String]) -> Result<Vec<Node>, Error> {
    Ok(names.iter().map(|name| Node::find(cache, name)).collect::<Result<_, _>>()?)
}

/// The cluster of this cache.
pub(crate) struct Cluster<'a> {
    cache: &'a Cache,
    dir: PathBuf,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(cache: &'a Cache) -> Self {
        Self { cache, dir: cache.root().join("cluster") }
    }

    /// Programs of Kubernetes, built once.
    fn programs(&self) -> Result<PathBuf, Error> {
        Ok(Tools::KUBERNETES.programs(self.cache)?)
    }

    /// The control plane runs afterwards, and the nodes are Ready members.
    pub(crate) fn up(&self, nodes: &[Node]) -> Result<(), Error> {
        crate::host::prepare_cluster(self.cache)?;
        fs::create_dir_all(&self.dir).map_err(at("make", &self.dir))?;
        let _lock = Lock::take(&self.dir.join(".lock"), "starting or ending the cluster")?;
        let programs = self.programs()?;
        let port = plane::start(&self.dir, &programs)?;
        for node in nodes {
            let step =
                Step::begin(format!("joining node '{}' to the cluster", node.name()), Some("30 seconds"));
            kubelet::join(self.cache, &self.dir, &programs, node, port)?;
            step.done();
        }
        Ok(())
    }

    /// As an operator does it, but that the image comes from here and not from a registry.
    pub(crate) fn install(&self, nodes: &[Node]) -> Result<(), Error> {
        let output = repository::target().join("image");
        let archive = agent_image::build(Profile::Release, IMAGE, &output)?;
        for node in nodes {
            let step = Step::begin(format!("importing the agent's image on node '{}'", node.name()), None);
            node.copy_in(&archive, "/var/lib/agent.tar")?;
            node.script("ctr -n k8s.io images import /var/lib/agent.tar; rm /var/lib/agent.tar")?;
            // The image brings its own, and does not overwrite what somebody has put there by hand.
            node.script(FORGET_DEPLOYED)?;
            step.done();
        }
        let step = Step::begin("installing the chart".to_owned(), Some("2 minutes"));
        let (repository, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
        let mut helm = Command::new("helm");
        helm.args(["upgrade", "--install", "cryopod"]).arg(repository::root().join("charts/cryopod"));
        helm.args(["--namespace", "cryopod-system", "--create-namespace", "--wait", "--timeout", "6m"]);
        helm.args(["--set", "image.pullPolicy=Never"]);
        helm.args(["--set", &format!("image.repository={repository}"), "--set", &format!("image.tag={tag}")]);
        helm.envs(self.env()?);
        process::logged(helm, &step, "installing the chart", &self.dir.join("log/helm"))?;
        // helm counts a DaemonSet as ready when all pods but those that an update may take away are: of one, none.
        let mut rollout = Command::new("kubectl");
        rollout.args([
            "-n",
            "cryopod-system",
            "rollout",
            "status",
            "daemonset/cryopod-agent",
            "--timeout=8m",
        ]);
        rollout.envs(self.env()?);
        process::logged(rollout, &step, "waiting for the agents", &self.dir.join("log/helm"))?;
        step.done();
        Ok(())
    }

    /// `kubectl top` works afterwards, and Prometheus scrapes the agents of the nodes.
    pub(crate) fn monitor(&self, nodes: &[Node]) -> Result<(), Error> {
        if !self.dir.join("admin.conf").exists() {
            return Err(Error::Down);
        }
        crate::host::prepare_monitoring(self.cache)?;
        let metrics_server = Tools::METRICS_SERVER.programs(self.cache)?;
        let _lock = Lock::take(&self.dir.join(".lock"), "starting or ending the cluster")?;
        monitoring::start(&self.dir, &self.programs()?, &metrics_server, nodes)
    }

    /// Nothing of it is left on this host.
    pub(crate) fn down(&self) -> Result<(), Error> {
        if !self.dir.exists() {
            return Ok(());
        }
        let lock = Lock::take(&self.dir.join(".lock"), "starting or ending the cluster")?;
        monitoring::stop(&self.dir);
        plane::stop(&self.dir)?;
        for name in Machine::names(self.cache) {
            if let Ok(node) = Node::find(self.cache, &name) {
                kubelet::leave(self.cache, &node);
            }
        }
        drop(lock);
        fs::remove_dir_all(&self.dir).map_err(at("remove", &self.dir))
    }

    /// What kubectl and the suite `kube` need.
    pub(crate) fn env(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let admin = self.dir.join("admin.conf");
        if !admin.exists() {
            return Err(Error::Down);
        }
        let programs = self.programs()?;
        let helm = Tools::HELM.programs(self.cache)?;
        let path = std::env::var("PATH").unwrap_or_default();
        // kubectl finds its plugins in PATH, by their names.
        let plugin = deploy::built(Profile::Release, "kubectl-cryopod", false);
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).map_err(at("make", &bin))?;
        for name in ["kubectl-cryopod", "kubectl-checkpoint", "kubectl-restore", "kubectl_complete-cryopod"] {
            let link = bin.join(name);
            fs::remove_file(&link).ok();
            symlink(&plugin, &link).map_err(at("link", &link))?;
        }
        let executable = std::env::current_exe().map_err(at("find", Path::new("/proc/self/exe")))?;
        let mut env = vec![
            ("KUBECONFIG", admin.display().to_string()),
            ("PATH", format!("{}:{}:{}:{path}", bin.display(), programs.display(), helm.display())),
            ("CRYOPOD_XTASK", executable.display().to_string()),
            ("CRYOPOD_CLUSTER", self.dir.display().to_string()),
            ("CRYOPOD_CHART", repository::root().join("charts/cryopod").display().to_string()),
        ];
        env.extend(monitoring::prometheus(&self.dir).map(|url| ("CRYOPOD_PROMETHEUS", url)));
        Ok(env)
    }
}
