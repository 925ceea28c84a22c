//! Which checkpoint a person means: an id, the beginning of one, or a container or pod, whose latest it is.
//!
//! Pure; a name that fits several different things is refused, never guessed. What an imported checkpoint says of its pod
//! and its time is its sender's word, so it is meant only by its whole id, or by `--snapshot`.

use cryopod_checkpoint::info::CheckpointInfo;

use crate::error::Error;

/// The checkpoint called `name`; `snapshot` picks another one than the latest of a container or pod.
pub(crate) fn one<'a>(
    checkpoints: &'a [CheckpointInfo],
    name: &str,
    snapshot: Option<&str>,
) -> Result<&'a CheckpointInfo, Error> {
    if let Some(snapshot) = snapshot {
        let series: Vec<&CheckpointInfo> = of_pod(checkpoints, name)?;
        return by_beginning(&series, snapshot)?.ok_or_else(|| none(snapshot));
    }
    let (imported, captured): (Vec<_>, Vec<_>) =
        checkpoints.iter().partition(|checkpoint| checkpoint.imported);
    if let Some(exact) = with_id(&captured, name) {
        return Ok(exact);
    }
    let series = same_pod(&captured, name)?;
    let latest = series.into_iter().max_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
    match (with_id(&imported, name), latest) {
        // A sender chooses its ids too.
        (Some(exact), Some(latest)) => {
            let matches = format!("{} (imported), {}", exact.id, latest.id);
            Err(Error::Ambiguous { name: name.into(), matches })
        }
        (Some(found), None) | (None, Some(found)) => Ok(found),
        (None, None) => match by_beginning(&captured, name)? {
            Some(found) => Ok(found),
            None => Err(only_imported(&imported, name).unwrap_or_else(|| none(name))),
        },
    }
}

/// The refusal, where nothing but imported checkpoints would fit.
fn only_imported(imported: &[&CheckpointInfo], name: &str) -> Option<Error> {
    let fits = |checkpoint: &&&CheckpointInfo| {
        belongs_to(checkpoint, name) || (!name.is_empty() && checkpoint.id.as_str().starts_with(name))
    };
    let ids: Vec<&str> = imported.iter().filter(fits).map(|checkpoint| checkpoint.id.as_str()).collect();
    (!ids.is_empty()).then(|| Error::OnlyImported { name: name.into(), ids: ids.join(", ") })
}

/// Every checkpoint of the container or pod called `name`: by name, namespace/name or id.
pub(crate) fn of_pod<'a>(
    checkpoints: &'a [CheckpointInfo],
    name: &str,
) -> Result<Vec<&'a CheckpointInfo>, Error> {
    let all: Vec<&CheckpointInfo> = checkpoints.iter().collect();
    same_pod(&all, name)
}

fn same_pod<'a>(among: &[&'a CheckpointInfo], name: &str) -> Result<Vec<&'a CheckpointInfo>, Error> {
    let found: Vec<&CheckpointInfo> =
        among.iter().filter(|checkpoint| belongs_to(checkpoint, name)).copied().collect();
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

fn with_id<'a>(among: &[&'a CheckpointInfo], id: &str) -> Option<&'a CheckpointInfo> {
    among.iter().find(|checkpoint| checkpoint.id.as_str() == id).copied()
}

fn by_beginning<'a>(among: &[&'a CheckpointInfo], text: &str) -> Result<Option<&'a CheckpointInfo>, Error> {
    let fits: Vec<&CheckpointInfo> =
        among.iter().filter(|checkpoint| checkpoint.id.as_str().starts_with(text)).copied().collect();
    if let Some(exact) = with_id(&fits, text) {
        return Ok(Some(exact));
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

    fn imported(id: &str, namespace: &str, pod: &str, second: i64) -> CheckpointInfo {
        CheckpointInfo { imported: true, ..info(id, namespace, pod, second) }
    }

    #[test]
    fn an_import_is_never_the_latest_of_what_was_captured_here() {
        let foreign = imported("foreign-1", "default", "web", 32_472_144_000);
        let elsewhere = imported("foreign-2", "other", "counter", 600);
        let all: Vec<CheckpointInfo> = store().into_iter().chain([foreign, elsewhere]).collect();
        let means = |name, snapshot| one(&all, name, snapshot).unwrap().id.to_string();
        assert_eq!(means("web", None), "web-2");
        assert_eq!(means("default/web", None), "web-2");
        // Nor does it make a name ambiguous.
        assert_eq!(means("counter", None), "counter-1");
        assert_eq!(means("foreign-1", None), "foreign-1");
        assert_eq!(means("web", Some("foreign-1")), "foreign-1");
    }

    #[test]
    fn where_only_imports_fit_their_ids_are_named() {
        let all = [imported("cache-1", "default", "cache", 1), imported("cache-2", "default", "cache", 2)];
        for name in ["cache", "default/cache", "cache-", "ca"] {
            let error = one(&all, name, None).unwrap_err();
            let Error::OnlyImported { ids, .. } = error else { panic!("{name}: {error}") };
            assert_eq!(ids, "cache-1, cache-2");
        }
        assert!(matches!(one(&all, "", None), Err(Error::NoCheckpoint { .. })));
    }

    #[test]
    fn an_import_whose_id_is_the_name_of_a_container_is_refused() {
        let all: Vec<CheckpointInfo> = store().into_iter().chain([imported("web", "", "x", 1)]).collect();
        assert!(matches!(one(&all, "web", None), Err(Error::Ambiguous { .. })));
        assert_eq!(one(&all, "default/web", None).unwrap().id.as_str(), "web-2");
    }
}
