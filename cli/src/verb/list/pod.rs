//! `cryopod state` of a running pod, as its shim tells it.

use cryopod_shim::control::api;
use cryopod_shim::control::client::Client;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::output::style::Palette;
use crate::output::table::Table;
use crate::pods::{self, Pod};
use crate::verb::fields;

/// Asks the shim of the pod called `name`.
pub(super) fn state(context: &Context, name: &str) -> Result<u8, Error> {
    let found = match pods::by_name(context, name)? {
        Some(pod) => Some(pod),
        None => pods::holding(context, name)?.map(|(pod, _)| pod),
    };
    let pod = found.ok_or_else(|| Error::NoTarget { name: name.to_owned() })?;
    let info = Client::connect(&pod.socket)?.info()?;
    context.output.result(&view(&pod, &info), |palette| describe(&pod, &info, palette))?;
    Ok(exit::OK)
}

fn view(pod: &Pod, info: &api::InfoResponse) -> Value {
    let containers: Vec<Value> = info
        .containers
        .iter()
        .map(|container| {
            json!({
                "id": container.id,
                "name": container.name,
                "status": container.state,
                "pid": container.pid,
                "backend": container.backend,
                "bundle": container.bundle,
                "sandbox": container.sandbox,
                "restored_from": container.restored_from,
                "execs": container.execs,
            })
        })
        .collect();
    json!({ "pod": pod, "shim_version": info.version, "containers": containers })
}

fn describe(pod: &Pod, info: &api::InfoResponse, palette: Palette) -> String {
    let lines = [
        ("pod", pods::display(pod)),
        ("id", pod.pod.id.clone()),
        ("containerd", pod.namespace.clone()),
        ("shim", format!("{}, PID {}", info.version, pod.pid)),
    ];
    let mut table = Table::new(["CONTAINER", "STATUS", ">PID", "BACKEND", "RESTORED FROM", "ID"]);
    for container in &info.containers {
        table.row([
            container.name.clone().into(),
            container.state.clone().into(),
            container.pid.to_string().into(),
            container.backend.clone().into(),
            container.restored_from.clone().into(),
            container.id.clone().into(),
        ]);
    }
    format!("{}\n{}", fields(&lines, palette), table.render(palette))
}
