//! The command is killed at every named step: half a template is never listed, the same can be made again at once, and
//! nothing that is half stays.

use serde_json::json;

use super::{Case, create, image};
use crate::cryopod;
use crate::shell;
use crate::suite::{Failure, ensure};

pub(super) const CASES: &[Case] = &[
    ("a_create_that_is_killed_leaves_nothing_for_long", true, creating),
    ("a_removal_that_is_killed_is_gone_on_with", true, removing),
];

/// Steps of `create` on ZFS; that of the sweep needs something to sweep.
const CREATING: [&str; 6] = [
    "template.layer",
    "template.unpack",
    "template.layer-snapshot",
    "template.clone",
    "template.snapshot",
    "template.sweep",
];
/// Steps of the other verbs, and of the directory store.
const OTHERS: [&str; 3] = ["template.rename", "template.delete", "template.prune"];
const DIRECTORY: [&str; 2] = ["--config", "/etc/cryopod/dir.toml"];

/// Runs the command, which is killed at the step.
fn killed_at(step: &str, args: &[&str]) -> Result<(), Failure> {
    shell::ok(&format!("mkdir -p /run/cryopod/faults && echo kill > /run/cryopod/faults/{step}"))?;
    let done = cryopod::run(args);
    shell::ok(&format!(
        "cd /run/cryopod/faults && rm -f {step} {step}.reached && cd / && rmdir /run/cryopod/faults"
    ))?;
    let done = done?;
    ensure(done.code == 137, || format!("{step}: it ended with {}: {}", done.code, done.stderr.trim()))
}

/// Arguments that lead to the directory store.
fn store<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&DIRECTORY[..], args].concat()
}

fn creating() -> Result<(), Failure> {
    let layout = format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?);
    for step in CREATING {
        if step == "template.sweep" {
            killed_at("template.unpack", &["template", "create", "e2e-one", &layout])?;
        }
        killed_at(step, &["template", "create", "e2e-one", &layout])?;
        let listed = cryopod::ok(&["template", "list"])?;
        ensure(listed == json!([]), || format!("{step}: half a template is listed: {listed}"))?;
        create("e2e-one", &layout, &[])?;
        cryopod::ok(&["template", "verify", "e2e-one"])?;
        cryopod::ok(&["template", "delete", "e2e-one"])?;
        let pruned = cryopod::ok(&["template", "prune"])?;
        ensure(pruned["half_made"] == json!([]), || format!("{step}: create left {pruned}"))?;
    }
    Ok(())
}

fn removing() -> Result<(), Failure> {
    let layout = format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?);
    let [rename, delete, prune] = OTHERS;
    killed_at(rename, &store(&["template", "create", "e2e-one", &layout]))?;
    let listed = cryopod::ok(&store(&["template", "list"]))?;
    ensure(listed == json!([]), || format!("half a template is listed: {listed}"))?;
    let pruned = cryopod::ok(&store(&["template", "prune"]))?;
    ensure(pruned["half_made"].as_array().map(Vec::len) == Some(1), || format!("prune says {pruned}"))?;
    create("e2e-one", &layout, &[])?;
    killed_at(delete, &["template", "delete", "e2e-one"])?;
    cryopod::ok(&["template", "verify", "e2e-one"])?;
    cryopod::ok(&["template", "delete", "e2e-one"])?;
    killed_at(prune, &["template", "prune"])?;
    let pruned = cryopod::ok(&["template", "prune"])?;
    ensure(pruned["layers"].as_array().map(Vec::len) == Some(2), || format!("prune says {pruned}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_step_of_the_image_room_is_broken_here() {
        let known: Vec<&str> = CREATING.into_iter().chain(OTHERS).collect();
        for step in cryopod_image::fault::STEPS {
            assert!(known.contains(step), "{step} is in no test");
        }
        assert_eq!(known.len(), cryopod_image::fault::STEPS.len());
    }
}
