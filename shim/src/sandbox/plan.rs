//! What a CRI sandbox configuration asks for: pure, from message to plan.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::target::PodIdentity;
use cryopod_runtime::cgroup::Cgroup;
use cryopod_runtime::routing::Subject;
use cryopod_runtime::spec::Spec;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};

use crate::proto::cri::PodSandboxConfig;
use crate::rpc::Failure;

/// `NamespaceMode` of the CRI.
const POD: i32 = 0;
const NODE: i32 = 2;

/// The configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Options of an unknown type.
    #[error("sandbox options of type {0:?}; expected runtime.v1.PodSandboxConfig")]
    Type(String),
    /// A broken message.
    #[error("sandbox options: {0}")]
    Decode(#[from] protobuf::Error),
    /// No mode of CRI that a user namespace can have.
    #[error("namespace mode {0} is none that a user namespace can have: POD (0) or NODE (2)")]
    UserNamespaceMode(i32),
    /// What only the pause container does.
    #[error(
        "a user namespace on the host's network needs sandboxer = \"podsandbox\"; set hostUsers: true, or use that \
         sandboxer"
    )]
    UserNamespace,
}

impl Failure for PlanError {
    fn kind(&self) -> Kind {
        match self {
            PlanError::Type(_) | PlanError::Decode(_) | PlanError::UserNamespaceMode(_) => {
                Kind::InvalidArgument
            }
            PlanError::UserNamespace => Kind::Unimplemented,
        }
    }
}

/// Everything that a sandbox needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// For the process that holds the namespaces.
    pub holder: HolderPlan,
    /// For the files.
    pub names: Names,
    /// cgroup of the pod.
    pub cgroup: Option<Cgroup>,
    /// Who the pod is.
    pub identity: PodIdentity,
    /// What rules of the configuration are asked about.
    pub subject: Subject,
}

/// What the holder does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderPlan {
    /// Network namespace to join; `None` for the host's.
    pub netns: Option<PathBuf>,
    /// Whether the pod lives in the user namespace that owns `netns`.
    pub user: bool,
    /// A UTS namespace with this host name; `None` for the host's.
    pub hostname: Option<String>,
    /// Whether the pod has its own IPC namespace.
    pub ipc: bool,
    /// Whether all containers share one PID namespace, whose PID 1 the holder is.
    pub pid: bool,
    /// Kernel settings inside these namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// What goes into the pod's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Contents of /etc/hostname.
    pub hostname: String,
    /// Contents of /etc/resolv.conf; `None` for the host's.
    pub resolv_conf: Option<String>,
    /// Whether the pod has its own /dev/shm.
    pub own_shm: bool,
}

/// Understands the options of CreateSandbox; `host` is the node's name.
///
/// # Errors
/// See [`PlanError`].
pub fn read(id: &str, options: Option<&Any>, netns: &str, host: &str) -> Result<Plan, PlanError> {
    let config = match options {
        None => PodSandboxConfig::new(),
        Some(any) if any.type_url.ends_with("runtime.v1.PodSandboxConfig") => {
            PodSandboxConfig::parse_from_bytes(&any.value)?
        }
        Some(any) if any.type_url.is_empty() && any.value.is_empty() => PodSandboxConfig::new(),
        Some(any) => return Err(PlanError::Type(any.type_url.clone())),
    };
    let linux = &config.linux;
    let namespaces = &linux.security_context.namespace_options;
    if let Some(userns) = namespaces.userns_options.as_ref()
        && userns.mode != POD
        && userns.mode != NODE
    {
        return Err(PlanError::UserNamespaceMode(userns.mode));
    }
    let host_network = namespaces.network == NODE;
    let user = namespaces
        .userns_options
        .as_ref()
        .is_some_and(|userns| userns.mode == POD && !userns.uids.is_empty());
    if user && (host_network || netns.is_empty()) {
        return Err(PlanError::UserNamespace);
    }
    let hostname = if config.hostname.is_empty() { host.to_owned() } else { config.hostname.clone() };
    let resolv_conf = config.dns_config.as_ref().map(|dns| {
        let mut text = String::new();
        if !dns.searches.is_empty() {
            text.push_str(&format!("search {}\n", dns.searches.join(" ")));
        }
        dns.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        if !dns.options.is_empty() {
            text.push_str(&format!("options {}\n", dns.options.join(" ")));
        }
        text
    });
    let metadata = &config.metadata;
    let known = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
    let pairs = |map: &HashMap<String, String>| map.clone().into_iter().collect();
    Ok(Plan {
        subject: Subject {
            namespace: known(&metadata.namespace),
            pod: known(&metadata.name),
            image: None,
            labels: pairs(&config.labels),
            annotations: pairs(&config.annotations),
        },
        holder: HolderPlan {
            netns: (!host_network && !netns.is_empty()).then(|| netns.into()),
            user,
            hostname: (!host_network).then(|| hostname.clone()),
            ipc: namespaces.ipc != NODE,
            // The default of the message is POD; kubelet says CONTAINER for ordinary pods.
            pid: linux.is_some() && namespaces.pid == POD && linux.security_context.is_some(),
            sysctls: linux.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        },
        names: Names { hostname, resolv_conf, own_shm: namespaces.ipc != NODE },
        cgroup: pod_cgroup(&linux.cgroup_parent),
        identity: PodIdentity {
            id: id.to_owned(),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
        },
    })
}

/// `/kubepods/pod1` or, with systemd, `kubepods-pod1.slice`.
fn pod_cgroup(parent: &str) -> Option<Cgroup> {
    if parent.is_empty() {
        return None;
    }
    let systemd = parent.ends_with(".slice");
    let path = if systemd { format!("{parent}:x:x") } else { format!("{parent}/x") };
    Spec::from_value(serde_json::json!({"linux": {"cgroupsPath": path}})).cgroup("x", systemd).parent()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cri;

    fn options(config: &PodSandboxConfig) -> Any {
        let mut any = Any::new();
        any.type_url = "runtime.v1.PodSandboxConfig".to_owned();
        any.value = config.write_to_bytes().unwrap();
        any
    }

    fn with(namespaces: cri::NamespaceOption) -> PodSandboxConfig {
        let mut config = PodSandboxConfig::new();
        config.hostname = "web-0".to_owned();
        let mut linux = cri::LinuxPodSandboxConfig::new();
        linux.cgroup_parent = "/kubepods/pod1".to_owned();
        let mut security = cri::LinuxSandboxSecurityContext::new();
        security.namespace_options = Some(namespaces).into();
        linux.security_context = Some(security).into();
        config.linux = Some(linux).into();
        config
    }

    fn modes(network: i32, pid: i32, ipc: i32) -> cri::NamespaceOption {
        cri::NamespaceOption { network, pid, ipc, ..Default::default() }
    }

    #[test]
    fn an_ordinary_pod_has_its_own_network_ipc_and_name() {
        let plan = read("id", Some(&options(&with(modes(0, 1, 0)))), "/run/netns/x", "node").unwrap();
        assert_eq!(plan.holder.netns.as_deref(), Some(std::path::Path::new("/run/netns/x")));
        assert_eq!(plan.holder.hostname.as_deref(), Some("web-0"));
        assert!(plan.holder.ipc && !plan.holder.pid && plan.names.own_shm);
        assert_eq!(plan.cgroup.unwrap().relative(), "/kubepods/pod1");
    }

    #[test]
    fn rules_are_asked_about_what_cri_says_of_the_pod() {
        let mut config = with(modes(0, 1, 0));
        config.labels.insert("app".to_owned(), "web".to_owned());
        config.annotations.insert("example.com/isolation".to_owned(), "strict".to_owned());
        config.metadata =
            Some(cri::PodSandboxMetadata { name: "web-0".to_owned(), ..Default::default() }).into();
        let subject = read("id", Some(&options(&config)), "", "node").unwrap().subject;
        assert_eq!((subject.pod.as_deref(), subject.namespace, subject.image), (Some("web-0"), None, None));
        assert_eq!(subject.labels["app"], "web");
        assert_eq!(subject.annotations["example.com/isolation"], "strict");
    }

    #[test]
    fn host_namespaces_stay_the_hosts() {
        let plan = read("id", Some(&options(&with(modes(2, 2, 2)))), "", "node").unwrap();
        assert_eq!(plan.holder, HolderPlan { hostname: None, ..HolderPlan::default() });
        assert!(!plan.names.own_shm);
    }

    #[test]
    fn a_shared_pid_namespace_is_asked_for_by_pod() {
        assert!(read("id", Some(&options(&with(modes(0, 0, 0)))), "/n", "node").unwrap().holder.pid);
    }

    #[test]
    fn a_systemd_slice_is_unfolded() {
        let mut config = with(modes(0, 1, 0));
        config.linux.as_mut().unwrap().cgroup_parent = "kubepods-burstable-pod1.slice".to_owned();
        let plan = read("id", Some(&options(&config)), "", "node").unwrap();
        assert_eq!(
            plan.cgroup.unwrap().relative(),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
        );
    }

    #[test]
    fn dns_settings_become_a_resolv_conf_as_containerd_writes_it() {
        let mut config = with(modes(0, 1, 0));
        let mut dns = cri::DNSConfig::new();
        dns.servers = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        dns.searches = vec!["a.local".to_owned(), "b.local".to_owned()];
        dns.options = vec!["ndots:5".to_owned()];
        config.dns_config = Some(dns).into();
        let plan = read("id", Some(&options(&config)), "", "node").unwrap();
        assert_eq!(
            plan.names.resolv_conf.as_deref(),
            Some("search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n")
        );
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let mut namespaces = modes(0, 1, 0);
        let mut userns = cri::UserNamespace::new();
        userns.uids.push(cri::IDMapping::new());
        namespaces.userns_options = Some(userns).into();
        let refused = read("id", Some(&options(&with(namespaces))), "", "node").unwrap_err();
        assert_eq!(refused.kind(), Kind::Unimplemented);
        for mode in [1, 3] {
            let mut namespaces = modes(0, 1, 0);
            let mut userns = cri::UserNamespace::new();
            userns.mode = mode;
            namespaces.userns_options = Some(userns).into();
            let refused = read("id", Some(&options(&with(namespaces))), "", "node").unwrap_err();
            assert_eq!(refused.kind(), Kind::InvalidArgument);
        }
        let mut strange = Any::new();
        strange.type_url = "kata.Config".to_owned();
        assert!(matches!(read("id", Some(&strange), "", "node"), Err(PlanError::Type(_))));
    }
}
