//! A test node as a member of the cluster.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::monitoring::AGENT_PORT;
use super::{Error, at, pki};
use crate::cache::Cache;
use crate::node::Node;
use crate::process;
use crate::progress::Step;

const READY: Duration = Duration::from_secs(180);
/// Ports of the node that this host reaches: kubelet's, for the API server, and the agent's, for Prometheus.
const PORTS: [u16; 2] = [10250, AGENT_PORT];

/// Makes the node a Ready member; does nothing that is done already.
pub(super) fn join(cache: &Cache, dir: &Path, programs: &Path, node: &Node, api: u16) -> Result<(), Error> {
    let step = Step::begin(format!("kubelet of '{}'", node.name()), None);
    let (name, address) = (node.name(), node.address());
    if !dir.join("pki").join(format!("node-{name}.crt")).exists() {
        pki::node(dir, name, &address, &step)?;
    }
    forward(cache, dir, node, &step)?;
    let files = dir.join(format!("node-{name}"));
    fs::create_dir_all(&files).map_err(at("make", &files))?;
    for (from, to) in [
        ("ca.crt".to_owned(), "ca.crt"),
        (format!("node-{name}.crt"), "node.crt"),
        (format!("node-{name}.key"), "node.key"),
    ] {
        let from = dir.join("pki").join(from);
        fs::copy(&from, files.join(to)).map_err(at("copy", &from))?;
    }
    let write = |file: &str, text: String| {
        let path = files.join(file);
        fs::write(&path, text).map_err(at("write", &path))
    };
    write("kubelet.conf", kubeconfig(api))?;
    write("config.yaml", config().to_string())?;
    write("kubelet.service", unit(name, &address))?;
    write("service-address.nft", service_address(api, &address))?;
    node.script("rm -rf /etc/kubernetes.new")?;
    node.copy_in(&files, "/etc/kubernetes.new")?;
    let sum = node.script("cat /usr/local/bin/.kubelet.from 2>/dev/null || true")?;
    let built = programs.display().to_string();
    if sum.trim() != built {
        node.copy_in(&programs.join("kubelet"), "/usr/local/bin/kubelet.new")?;
        // One that runs cannot be written to.
        let install =
            "chmod 755 /usr/local/bin/kubelet.new; mv /usr/local/bin/kubelet.new /usr/local/bin/kubelet";
        let from = crate::quote::line([&built]);
        node.script(&format!("{install}; echo {from} > /usr/local/bin/.kubelet.from"))?;
    }
    node.script(INSTALL)?;
    step.done();
    ready(dir, programs, node)
}

/// A kubelet of another cluster, whose certificates are new, is made anew.
const INSTALL: &str = "
rm -rf /etc/kubernetes; mv /etc/kubernetes.new /etc/kubernetes
mv /etc/kubernetes/kubelet.service /etc/systemd/system/kubelet.service
# Left by podman, and read before ours.
rm -f /etc/cni/net.d/*podman*
nft -f /etc/kubernetes/service-address.nft
systemctl daemon-reload
systemctl restart kubelet
";

/// containerd's main file is again as the node was built with it.
const LEAVE: &str = "
systemctl stop kubelet; rm -f /etc/systemd/system/kubelet.service
main=/etc/containerd/config.toml
if test -e $main.before-cluster; then mv $main.before-cluster $main; systemctl restart containerd; fi
";

/// The node is no member any more, and its port not forwarded.
pub(super) fn leave(cache: &Cache, node: &Node) {
    // A node that is being taken down anyway needs none of it.
    node.script(LEAVE).ok();
    for port in PORTS {
        monitor(cache, node, &format!("hostfwd_remove tcp:{}:{port}", node.address())).ok();
    }
    let address = node.address();
    Command::new("ip").args(["route", "del", "local", &address, "dev", "lo", "table", "local"]).output().ok();
}

/// This host reaches kubelet and agent at the node's own address, which this host takes for its own.
fn forward(cache: &Cache, dir: &Path, node: &Node, step: &Step) -> Result<(), Error> {
    let (address, log) = (node.address(), dir.join("log/forward"));
    let mut command = Command::new("ip");
    // With the source 127.0.0.1, which the emulator translates: the node has the address itself, and would drop packets that
    // seem to come from there.
    command.args(["route", "replace", "local", &address, "dev", "lo", "table", "local", "src", "127.0.0.1"]);
    process::logged(command, step, "making the node's address one of this host", &log)?;
    let said = monitor(cache, node, "info usernet").map_err(at("ask", &dir.join("log")))?;
    for port in PORTS.into_iter().filter(|port| !said.contains(&format!("{address} {port}"))) {
        let said = monitor(cache, node, &format!("hostfwd_add tcp:{address}:{port}-:{port}"))
            .map_err(at("ask", &dir.join("log")))?;
        if said.contains("ould not") || said.contains("rror") {
            return Err(Error::Forward { name: node.name().to_owned(), port, said });
        }
    }
    Ok(())
}

/// Says a command to the emulator's monitor. It echoes what is typed with the codes of a terminal, so the answer is what
/// follows the last prompt but one; blanks are squeezed for the caller to look for words.
fn monitor(cache: &Cache, node: &Node, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(cache.sockets().join(format!("{}.monitor", node.name())))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    answer(&mut stream)?;
    stream.write_all(command.as_bytes())?;
    stream.write_all(b"\n")?;
    let said = answer(&mut stream)?;
    let lines: Vec<&str> = said.lines().skip(1).collect();
    Ok(lines.join("\n").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn answer(stream: &mut UnixStream) -> std::io::Result<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..count]);
        if count == 0 || bytes.ends_with(b"(qemu) ") {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

fn kubeconfig(api: u16) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://10.0.2.2:{api}"), "certificate-authority": "/etc/kubernetes/ca.crt",
        }}],
        "users": [{ "name": "node", "user": {
            "client-certificate": "/etc/kubernetes/node.crt", "client-key": "/etc/kubernetes/node.key",
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "node" } }],
    })
    .to_string()
}

fn config() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": "/etc/kubernetes/node.crt", "tlsPrivateKeyFile": "/etc/kubernetes/node.key",
        "failSwapOn": false,
        "serializeImagePulls": false,
        // The node's disks are sparse files and nearly empty.
        "evictionHard": { "memory.available": "50Mi" },
        "imageGCHighThresholdPercent": 100,
        "runtimeRequestTimeout": "10m",
        // Handlers that appear while the cluster runs are seen soon.
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn unit(name: &str, address: &str) -> String {
    format!(
        "[Unit]\nAfter=containerd.service\n[Service]\nExecStart=/usr/local/bin/kubelet \
         --kubeconfig=/etc/kubernetes/kubelet.conf --config=/etc/kubernetes/config.yaml --hostname-override={name} \
         --node-ip={address}\nExecStartPre=-/usr/sbin/nft -f /etc/kubernetes/service-address.nft\nRestart=always\n\
         RestartSec=2\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// There is no kube-proxy: this is all that it would do for the one service that the tests need. What the emulator forwards
/// arrives at another address of the node than that which the agent listens on.
fn service_address(api: u16, address: &str) -> String {
    format!(
        "table ip cryopod-test-cluster\ndelete table ip cryopod-test-cluster\ntable ip cryopod-test-cluster {{\n\
         chain out {{ type nat hook output priority -100; ip daddr 10.96.0.1 tcp dport 443 dnat to 10.0.2.2:{api}; }}\n\
         chain pre {{ type nat hook prerouting priority -100; ip daddr 10.96.0.1 tcp dport 443 dnat to 10.0.2.2:{api};\n\
         ip saddr 10.0.2.2 tcp dport {AGENT_PORT} dnat to {address}:{AGENT_PORT}; }}\n}}\n"
    )
}

fn ready(dir: &Path, programs: &Path, node: &Node) -> Result<(), Error> {
    let end = Instant::now() + READY;
    loop {
        let mut ask = Command::new(programs.join("kubectl"));
        ask.arg("--kubeconfig").arg(dir.join("admin.conf"));
        ask.args(["wait", "--for=condition=Ready", "--timeout=5s", &format!("node/{}", node.name())]);
        match ask.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) if Instant::now() > end => {
                let kubelet =
                    node.script("journalctl -u kubelet --no-pager -n 15 -o cat").unwrap_or_default();
                let said = format!("{}{kubelet}", String::from_utf8_lossy(&output.stderr));
                let (name, seconds) = (node.name().to_owned(), READY.as_secs());
                return Err(Error::NotReady { name, seconds, said });
            }
            _ => thread::sleep(Duration::from_secs(1)),
        }
    }
}
