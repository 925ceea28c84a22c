//! Which checkpoint a person means: an id, the beginning of one, or a container or pod, whose latest it is.
//!
//! Pure; a name that fits several different things is refused, never guessed.

use cryopod_checkpoint::info::CheckpointInfo;

use crate::error::Error;

/// The checkpoint called `name`; `snapshot` picks another one than the latest of a container or pod.
pub(crate) fn one<'a>(
    checkpoints: &'a [CheckpointInfo],
    name: &str,
    snapshot: Option<&str>,
) -> Result<&'a CheckpointInfo, Error> {
    if snapshot.is_none()
        && let Some(exact) = checkpoints.iter().find(|checkpoint| checkpoint.id.as_str() == name)
    {
        return Ok(exact);
    }
    let series = of_pod(checkpoints, name)?;
    match snapshot {
        Some(snapshot) => by_beginning(&series, snapshot)?.ok_or_else(|| none(snapshot)),
        None => {
            match series.into_iter().max_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id))) {
                Some(latest) => Ok(latest),
                None => {
                    let all: Vec<&CheckpointInfo> = checkpoints.iter().collect();
                    by_beginning(&all, name)?.ok_or_else(|| none(name))
                }
            }
        }
    }
}

/// Every checkpoint of the container or pod called `name`: by name, namespace/name or id.
pub(crate) fn of_pod<'a>(
    checkpoints: &'a [CheckpointInfo],
    name: &str,
) -> Result<Vec<&'a CheckpointInfo>, Error> {
    let found: Vec<&CheckpointInfo> =
        checkpoints.iter().filter(|checkpoint| belongs_to(checkpoint, name)).collect();
    let mut namespaces: Vec<&str> =
        found.iter().map(|checkpoint| checkpoint.pod.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    if namespaces.len() > 1 {
        let names = namespaces.iter().map(|namespace| format!("{namespace}/{name}"));
        return Err(Error::Ambiguous { name: name.into(), matches: names.collect::<Vec<_>>().join(", ") });
    }
    Ok(found)
}

/// `namespace/name`, or the name alone for a standalone container.
pub(crate) fn pod_name(checkpoint: &CheckpointInfo) -> String {
    match checkpoint.pod.namespace.as_str() {
        "" => checkpoint.pod.name.clone(),
        namespace => format!("{namespace}/{}", checkpoint.pod.name),
    }
}

fn belongs_to(checkpoint: &CheckpointInfo, name: &str) -> bool {
    let pod = &checkpoint.pod;
    name == pod.name || name == pod.id || (!pod.namespace.is_empty() && name == pod_name(checkpoint))
}

fn by_beginning<'a>(among: &[&'a CheckpointInfo], text: &str) -> Result<Option<&'a CheckpointInfo>, Error> {
    let fits: Vec<&CheckpointInfo> =
        among.iter().filter(|checkpoint| checkpoint.id.as_str().starts_with(text)).copied().collect();
    if let Some(exact) = fits.iter().find(|checkpoint| checkpoint.id.as_str() == text) {
        return Ok(Some(*exact));
    }
    match fits.as_slice() {
        [] => Ok(None),
        [only] if !text.is_empty() => Ok(Some(*only)),
        _ => {
            let ids: Vec<&str> = fits.iter().map(|checkpoint| checkpoint.id.as_str()).collect();
            Err(Error::Ambiguous { name: text.into(), matches: ids.join(", ") })
        }
    }
}

fn none(name: &str) -> Error {
    Error::NoCheckpoint { name: name.chars().take(100).flat_map(char::escape_debug).collect() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cryopod_checkpoint::manifest::CapturedMode;
    use cryopod_checkpoint::target::PodIdentity;

    pub(crate) fn info(id: &str, namespace: &str, pod: &str, second: i64) -> CheckpointInfo {
        CheckpointInfo {
            id: id.parse().unwrap(),
            created: jiff::Timestamp::from_second(second).unwrap(),
            mode: CapturedMode::Full,
            pod: PodIdentity {
                id: format!("{pod}-sandbox"),
                name: pod.into(),
                namespace: namespace.into(),
                uid: String::new(),
            },
            members: vec![pod.into()],
            settled: true,
            imported: false,
            held: false,
            memory_bytes: 1 << 20,
            disk_bytes: 2 << 20,
            sharers: vec![],
        }
    }

    fn store() -> Vec<CheckpointInfo> {
        vec![
            info("web-1", "default", "web", 100),
            info("web-2", "default", "web", 200),
            info("db-1", "prod", "db", 300),
            info("db-2", "test", "db", 400),
            info("counter-1", "", "counter", 500),
        ]
    }

    #[track_caller]
    fn finds(name: &str, snapshot: Option<&str>, id: &str) {
        assert_eq!(one(&store(), name, snapshot).unwrap().id.as_str(), id);
    }

    #[test]
    fn a_name_means_its_latest_checkpoint_and_an_id_itself() {
        finds("web-1", None, "web-1");
        finds("web", None, "web-2");
        finds("default/web", None, "web-2");
        finds("web-sandbox", None, "web-2");
        finds("counter", None, "counter-1");
        finds("cou", None, "counter-1");
    }

    #[test]
    fn a_snapshot_is_looked_for_among_those_of_the_name_only() {
        finds("web", Some("web-1"), "web-1");
        assert!(matches!(one(&store(), "web", Some("counter-1")), Err(Error::NoCheckpoint { .. })));
        assert!(matches!(one(&store(), "web", Some("web-")), Err(Error::Ambiguous { .. })));
    }

    #[test]
    fn what_fits_several_is_refused() {
        assert!(matches!(one(&store(), "db", None), Err(Error::Ambiguous { .. })));
        finds("prod/db", None, "db-1");
        assert!(matches!(one(&store(), "", None), Err(Error::Ambiguous { .. })));
        assert!(matches!(one(&store(), "nothing", None), Err(Error::NoCheckpoint { .. })));
    }
}
