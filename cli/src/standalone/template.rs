//! A container of a template: a bundle of its own, whose root is a clone of the template and whose process is what the
//! image says. Clone and bundle go with the container.

use std::path::Path;

use cryopod_command::Limits;
use cryopod_image::{RunConfig, TemplateName, Templates, user};
use serde_json::{Value, json};

use super::bundle::{Bundle, cgroup_path};
use super::placement;
use super::registry::Entry;
use super::state::State;
use crate::context::Context;
use crate::error::Error;
use crate::verb::default_spec;

/// Where runtimes and the image's own tools look for how it wants to be ended (OCI image specification, conversion.md).
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
/// The template that a container is of.
const TEMPLATE: &str = "dev.cryopod.template";

/// Makes clone, bundle and state for a container whose name is taken; `arguments` take the place of the image's command.
/// What is made before an error goes with [`super::dispose`].
pub(crate) fn prepare(
    context: &Context,
    entry: &Entry,
    name: &TemplateName,
    arguments: &[String],
    runtime: String,
    limits: &Limits,
) -> Result<(), Error> {
    let backend = context.backend(Some(&runtime))?;
    let dir = entry.dir().join("bundle");
    let rootfs = dir.join("rootfs");
    let write = |path: &Path, source| Error::Write { what: "bundle", path: path.to_owned(), source };
    std::fs::create_dir_all(&rootfs).map_err(|source| write(&rootfs, source))?;
    let mut state = State::new(entry.id(), dir.clone(), rootfs.clone(), runtime, false);
    // Before anything is made, so that whoever finds this after a crash knows what to remove.
    state.placed = true;
    entry.begin(&state)?;
    let opened = context.open_store(limits)?;
    let (template, placed) = Templates::of(&opened.store).make_root(name, entry.id(), limits)?;
    placement::mount_on(&opened, &placed, &rootfs, limits)?;
    let argv = template.config.argv(arguments);
    if argv.is_empty() {
        return Err(Error::NoCommand { template: name.clone() });
    }
    let identity = user::resolve(&rootfs, &template.config.user)
        .map_err(|reason| Error::TemplateUser { template: name.clone(), reason })?;
    let spec = spec(&template.config, name, &argv, &identity, entry.id(), &cgroup_path(&backend, entry.id()));
    let path = dir.join("config.json");
    let json = serde_json::to_vec(&spec).map_err(std::io::Error::from);
    json.and_then(|json| std::fs::write(&path, json)).map_err(|source| write(&path, source))?;
    Bundle::open(&dir).map(drop)
}

/// What is written by `cryopod spec`, with what the image says in it. Volumes of the image stay in its root, so that they
/// are captured with it.
fn spec(
    config: &RunConfig,
    name: &TemplateName,
    argv: &[String],
    identity: &user::Identity,
    id: &str,
    cgroup: &str,
) -> Value {
    let mut spec = default_spec(argv, false);
    spec["process"]["user"] =
        json!({ "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups });
    spec["process"]["env"] = json!(config.environment());
    let directory = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    spec["process"]["cwd"] = json!(directory);
    spec["hostname"] = json!(id);
    spec["linux"]["cgroupsPath"] = json!(cgroup);
    let mut annotations = serde_json::Map::new();
    annotations.insert(TEMPLATE.to_owned(), json!(name));
    if !config.stop_signal.is_empty() {
        annotations.insert(STOP_SIGNAL.to_owned(), json!(config.stop_signal));
    }
    for (label, value) in &config.labels {
        annotations.entry(label.clone()).or_insert_with(|| json!(value));
    }
    spec["annotations"] = Value::Object(annotations);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_what_the_image_says() {
        let config = RunConfig {
            entrypoint: vec!["/e".into()],
            env: vec!["A=b".into()],
            working_dir: "/w".into(),
            stop_signal: "SIGQUIT".into(),
            labels: [("l".into(), "m".into()), (TEMPLATE.into(), "another".into())].into(),
            ..RunConfig::default()
        };
        let identity = user::Identity { uid: 7, gid: 8, groups: vec![9] };
        let argv = config.argv(&["x".into()]);
        let made = spec(&config, &"web".parse().unwrap(), &argv, &identity, "web-1", "/cryopod-web-1");
        let spec: oci_spec::runtime::Spec = serde_json::from_value(made).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_deref(), Some(&["/e".to_owned(), "x".to_owned()][..]));
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.cwd().to_str(), Some("/w"));
        assert!(process.env().as_ref().unwrap().iter().any(|pair| pair == "A=b"));
        let annotations = spec.annotations().as_ref().unwrap();
        assert_eq!(annotations.get(TEMPLATE).map(String::as_str), Some("web"));
        assert_eq!(annotations.get(STOP_SIGNAL).map(String::as_str), Some("SIGQUIT"));
    }
}
