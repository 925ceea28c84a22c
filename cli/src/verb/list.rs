//! `cryopod list` and `cryopod state`: standalone containers, and the pods whose shims run.

mod pod;

use jiff::Timestamp;
use serde::Serialize;

use crate::args::{IdArgs, ListArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::output::style::{Palette, Style};
use crate::output::table::{Cell, Table};
use crate::output::units;
use crate::pods::{self, Pod};
use crate::standalone;
use crate::standalone::state::{Exit, State, Status};

/// A standalone container as programs get it: the fields of an OCI state under their names, and ours.
#[derive(Debug, Serialize)]
struct ContainerView {
    #[serde(rename = "ociVersion")]
    oci_version: &'static str,
    id: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    bundle: String,
    rootfs: String,
    runtime: String,
    terminal: bool,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

#[derive(Debug, Serialize)]
struct ListView {
    containers: Vec<ContainerView>,
    pods: Vec<Pod>,
}

/// The version of the runtime specification whose words we use.
const OCI_VERSION: &str = "1.2.0";

/// `cryopod list`.
pub(crate) fn list(context: &Context, args: &ListArgs) -> Result<u8, Error> {
    let mut containers = Vec::new();
    for entry in context.registry().all()? {
        match State::load(entry.dir()) {
            Ok(Some(state)) => containers.push(view(context, state)),
            // Just being created or deleted.
            Ok(None) => {}
            Err(error) => context.output.note(&error.to_string()),
        }
    }
    containers.retain(|container| args.all || container.status != Status::Stopped);
    let found = pods::find(&context.root, context.namespace.as_deref())?;
    for leftover in &found.leftovers {
        context.output.note(&format!("{leftover}; `cryopod recover` tidies up"));
    }
    let view = ListView { containers, pods: found.pods };
    context.output.result(&view, |palette| if args.quiet { names(&view) } else { table(&view, palette) })?;
    Ok(exit::OK)
}

/// `cryopod state`.
pub(crate) fn state(context: &Context, args: &IdArgs) -> Result<u8, Error> {
    let entry = match super::lifecycle::find(context, &args.id, "state") {
        Err(Error::IsPod { .. }) => return pod::state(context, &args.id),
        found => found?,
    };
    let view = view(context, entry.state()?);
    context.output.result(&view, |palette| describe(&view, palette))?;
    Ok(exit::OK)
}

fn view(context: &Context, state: State) -> ContainerView {
    let status = standalone::status(context, &state);
    ContainerView {
        oci_version: OCI_VERSION,
        status,
        pid: state.init.filter(|_| status != Status::Stopped).map(|init| init.pid),
        bundle: state.bundle.display().to_string(),
        rootfs: state.rootfs.display().to_string(),
        runtime: state.runtime,
        terminal: state.terminal,
        created: state.created,
        exit: state.exit,
        restored_from: state.restored_from,
        log: state.log.map(|log| log.display().to_string()),
        id: state.id,
    }
}

fn names(view: &ListView) -> String {
    let containers = view.containers.iter().map(|container| container.id.clone());
    containers.chain(view.pods.iter().map(pods::display)).collect::<Vec<_>>().join("\n")
}

fn table(view: &ListView, palette: Palette) -> String {
    if view.containers.is_empty() && view.pods.is_empty() {
        return "nothing runs here; `cryopod run --bundle DIR NAME` starts a container".into();
    }
    let now = Timestamp::now();
    let mut table = Table::new(["KIND", "NAME", "STATUS", ">PID", "RUNTIME", ">AGE", "BUNDLE"]);
    for container in &view.containers {
        table.row([
            "container".into(),
            container.id.clone().into(),
            status_cell(container.status, container.exit),
            container.pid.map_or_else(|| "-".into(), |pid| pid.to_string()).into(),
            container.runtime.clone().into(),
            units::age(container.created, now).into(),
            container.bundle.clone().into(),
        ]);
    }
    for pod in &view.pods {
        table.row([
            "pod".into(),
            pods::display(pod).into(),
            Cell::styled(Style::Success, "running"),
            pod.pid.to_string().into(),
            pod.namespace.clone().into(),
            "-".into(),
            pod.bundle.display().to_string().into(),
        ]);
    }
    table.render(palette)
}

fn status_cell(status: Status, exit: Option<Exit>) -> Cell {
    match (status, exit) {
        (Status::Running, _) => Cell::styled(Style::Success, status.word()),
        (Status::Paused, _) => Cell::styled(Style::Frozen, status.word()),
        (Status::Stopped, Some(exit)) => Cell::styled(Style::Dim, format!("stopped ({})", exit.code)),
        _ => Cell::styled(Style::Dim, status.word()),
    }
}

fn describe(view: &ContainerView, palette: Palette) -> String {
    let mut lines = vec![
        ("id", view.id.clone()),
        ("status", view.status.word().to_owned()),
        ("runtime", view.runtime.clone()),
        ("bundle", view.bundle.clone()),
        ("rootfs", view.rootfs.clone()),
        ("created", view.created.to_string()),
    ];
    lines.extend(view.pid.map(|pid| ("pid", pid.to_string())));
    lines.extend(view.exit.map(|exit| ("exit code", format!("{} at {}", exit.code, exit.at))));
    lines.extend(view.restored_from.clone().map(|id| ("restored from", id)));
    lines.extend(view.log.clone().map(|log| ("log", log)));
    super::fields(&lines, palette)
}
