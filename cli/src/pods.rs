//! Running pods, found by the files that their shims leave in `<root>/shims`.
//!
//! The format is the shim's ([`cryopod_shim::discovery`]). A file whose shim is dead is a leftover and named as such.

use std::io::Read;
use std::path::Path;

use cryopod_shim::control::client::Client;
pub(crate) use cryopod_shim::discovery::Shim as Pod;

use crate::context::Context;
use crate::error::Error;

/// Such a file has a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The shortest beginning of an id that is taken for one, so that a name is not.
const SHORTEST_ID: usize = 6;

/// `namespace/name` as Kubernetes people say it; the id where it has no name.
pub(crate) fn display(pod: &Pod) -> String {
    match (pod.pod.namespace.as_str(), pod.pod.name.as_str()) {
        (_, "") => pod.pod.id.clone(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

/// Whether a person who says `name` may mean this pod.
fn answers_to(pod: &Pod, name: &str) -> bool {
    let unique_prefix = name.len() >= SHORTEST_ID && pod.pod.id.starts_with(name);
    name == pod.pod.id || name == pod.pod.name || name == display(pod) || unique_prefix
}

/// What is in the directory of shims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Pods whose shim lives, by namespace and name.
    pub(crate) pods: Vec<Pod>,
    /// Files without a living shim, or that cannot be read, each with the reason.
    pub(crate) leftovers: Vec<String>,
}

/// Looks through the directory of shims.
pub(crate) fn find(root: &Path, namespace: Option<&str>) -> Result<Found, Error> {
    let dir = root.join("shims");
    let failed = |source| Error::Read { what: "directory", path: dir.clone(), source };
    let listing = match std::fs::read_dir(&dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Found::default();
    for file in listing {
        let path = file.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(None) => {}
            Ok(Some(pod)) if !is_alive(&pod) => {
                found.leftovers.push(format!("shim {} of pod {} is dead", pod.pid, display(&pod)));
            }
            Ok(Some(pod)) if namespace.is_none_or(|wanted| wanted == pod.namespace) => found.pods.push(pod),
            Ok(Some(_)) => {}
            Err(reason) => found.leftovers.push(format!("{}: {reason}", path.display())),
        }
    }
    found.pods.sort_by_key(display);
    found.leftovers.sort();
    Ok(found)
}

/// Removes the files of shims that are dead; returns the ids of their pods.
pub(crate) fn forget_dead(root: &Path) -> Result<Vec<String>, Error> {
    let dir = root.join("shims");
    let mut forgotten = Vec::new();
    let listing = match std::fs::read_dir(&dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(forgotten),
        Err(source) => return Err(Error::Read { what: "directory", path: dir, source }),
    };
    for path in listing.flatten().map(|file| file.path()) {
        if let Ok(Some(pod)) = read(&path)
            && !is_alive(&pod)
            && std::fs::remove_file(&path).is_ok()
        {
            forgotten.push(pod.pod.id);
        }
    }
    forgotten.sort();
    Ok(forgotten)
}

/// Somebody serves its socket; its PID may belong to another process by now.
fn is_alive(pod: &Pod) -> bool {
    std::os::unix::net::UnixStream::connect(&pod.socket).is_ok()
}

/// One file; None when it has gone meanwhile.
fn read(path: &Path) -> Result<Option<Pod>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
}

/// The one pod of that name, id or beginning of an id; None where there is none.
pub(crate) fn by_name(context: &Context, name: &str) -> Result<Option<Pod>, Error> {
    choose(find(&context.root, context.namespace.as_deref())?.pods, name)
}

/// The pod that has a container of this id, or beginning of an id, and the whole id; None where no shim knows it.
pub(crate) fn holding(context: &Context, id: &str) -> Result<Option<(Pod, String)>, Error> {
    if id.len() < SHORTEST_ID {
        return Ok(None);
    }
    let mut matches = Vec::new();
    for pod in find(&context.root, context.namespace.as_deref())?.pods {
        // A shim that ends just now has no container that anybody could mean.
        let Ok(info) = Client::connect(&pod.socket).and_then(|client| client.info()) else { continue };
        let ids = info.containers.into_iter().filter(|container| !container.sandbox).map(|it| it.id);
        matches.extend(ids.filter(|known| known.starts_with(id)).map(|known| (pod.clone(), known)));
    }
    if let Some(exact) = matches.iter().position(|(_, known)| known == id) {
        return Ok(Some(matches.swap_remove(exact)));
    }
    match matches.len() {
        0 | 1 => Ok(matches.pop()),
        _ => {
            let ids: Vec<&str> = matches.iter().map(|(_, known)| known.as_str()).collect();
            Err(Error::Ambiguous { name: id.to_owned(), matches: ids.join(", ") })
        }
    }
}

fn choose(pods: Vec<Pod>, name: &str) -> Result<Option<Pod>, Error> {
    let mut matches: Vec<Pod> = pods.into_iter().filter(|pod| answers_to(pod, name)).collect();
    match matches.len() {
        0 | 1 => Ok(matches.pop()),
        _ => {
            let ids = matches.iter().map(|pod| format!("{} ({})", pod.pod.id, display(pod)));
            Err(Error::Ambiguous { name: name.to_owned(), matches: ids.collect::<Vec<_>>().join(", ") })
        }
    }
}

/// Why a verb for standalone containers does not work on a pod or a container of one; None where it is neither.
pub(crate) fn refusal(context: &Context, name: &str, verb: &str) -> Result<Option<Error>, Error> {
    let (pod, container) = match by_name(context, name)? {
        Some(pod) => (pod, None),
        None => match holding(context, name)? {
            Some((pod, container)) => (pod, Some(container)),
            None => return Ok(None),
        },
    };
    let instead = instead(&pod, container.as_deref(), verb);
    Ok(Some(Error::IsPod { name: display(&pod), namespace: pod.namespace, instead }))
}

/// What does on a pod what `verb` does on a standalone container. kubelet's pods are in one namespace of containerd.
fn instead(pod: &Pod, container: Option<&str>, verb: &str) -> String {
    let (id, is_kube) = (&pod.pod.id, pod.namespace == "k8s.io");
    match (verb, is_kube) {
        ("delete", true) => format!(
            "`kubectl delete pod`, or `crictl stopp {id}` and `crictl rmp {id}`: containerd owns it, and would believe \
             that it still runs"
        ),
        ("delete", false) => format!(
            "`ctr -n {} task rm --force {}`: containerd owns it, and would believe that it still runs",
            pod.namespace,
            container.unwrap_or(id)
        ),
        _ => format!(
            "`cryopod state`, `checkpoint`, `exec`, `pause`, `resume` and `kill` work on pods ({id}); for the rest there are \
             kubectl, crictl and ctr"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, namespace: &str, name: &str) -> Pod {
        Pod {
            version: 1,
            pid: std::process::id(),
            socket: "/run/x.sock".into(),
            namespace: "k8s.io".into(),
            pod: cryopod_shim::discovery::Pod {
                id: id.into(),
                name: name.into(),
                namespace: namespace.into(),
                uid: "u".into(),
            },
            bundle: "/b".into(),
        }
    }

    fn write(root: &Path, pod: &Pod) {
        std::fs::create_dir_all(root.join("shims")).unwrap();
        let path = root.join("shims").join(format!("{}.json", pod.pod.id));
        std::fs::write(path, serde_json::to_vec(pod).unwrap()).unwrap();
    }

    #[test]
    fn a_pod_is_found_by_name_by_both_names_and_by_the_beginning_of_its_id() {
        let pods = vec![pod("abcdef0123", "default", "web"), pod("123456789a", "prod", "db")];
        for name in ["web", "default/web", "abcdef0123", "abcdef"] {
            assert_eq!(choose(pods.clone(), name).unwrap(), Some(pods[0].clone()), "{name}");
        }
        assert_eq!(choose(pods.clone(), "abc").unwrap(), None, "too short to be meant");
        assert_eq!(choose(pods, "prod").unwrap(), None);
    }

    #[test]
    fn a_name_in_two_namespaces_is_not_guessed() {
        let pods = vec![pod("abcdef0123", "default", "web"), pod("123456789a", "prod", "web")];
        assert!(matches!(choose(pods.clone(), "web"), Err(Error::Ambiguous { .. })));
        assert_eq!(choose(pods.clone(), "prod/web").unwrap(), Some(pods[1].clone()));
    }

    #[test]
    fn what_does_it_instead_is_of_the_client_that_owns_the_pod() {
        let kube = pod("abcdef0123", "default", "web");
        assert!(instead(&kube, None, "delete").contains("`crictl stopp abcdef0123`"));
        let other = Pod { namespace: "moby".into(), ..kube };
        assert!(instead(&other, Some("c1"), "delete").contains("`ctr -n moby task rm --force c1`"));
    }

    #[test]
    fn dead_shims_and_broken_files_are_leftovers_and_no_pods() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("live.sock");
        let live = Pod { socket: socket.clone(), ..pod("live", "default", "web") };
        let _served = std::os::unix::net::UnixListener::bind(socket).unwrap();
        write(root.path(), &live);
        write(root.path(), &pod("dead", "default", "old"));
        std::fs::write(root.path().join("shims/broken.json"), "{").unwrap();
        let found = find(root.path(), None).unwrap();
        assert_eq!(found.pods, vec![live]);
        assert_eq!(found.leftovers.len(), 2);
        assert!(find(root.path(), Some("moby")).unwrap().pods.is_empty());
        assert_eq!(forget_dead(root.path()).unwrap(), ["dead"]);
        assert_eq!(
            find(root.path(), None).unwrap().leftovers.len(),
            1,
            "a broken file stays to be looked at"
        );
    }
}
