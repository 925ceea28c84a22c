//! The same image from every kind of source gives the same tree.

use serde_json::{Value, json};

use super::images::{REGISTRY, WORK};
use super::{Case, create, image};
use crate::cryopod;
use crate::shell;
use crate::suite::{Failure, ensure};

pub(super) const CASES: &[Case] = &[
    ("every_kind_of_source_gives_the_same_tree", true, same),
    ("a_root_file_system_in_an_archive_is_a_template", false, tarball),
    ("a_registry_without_tls_is_used_only_when_asked", true, registry),
];

fn same() -> Result<(), Failure> {
    let image = image("one", "1", &json!({ "Cmd": ["/bin/true"] }))?;
    let oci = image.oci_archive("one")?;
    let docker = image.docker_archive("one")?;
    let layout = image.layout("one")?;
    shell::ok(&format!(
        "ctr -n k8s.io images import --local --no-unpack {oci} || ctr -n k8s.io images import {oci}"
    ))?;
    let sources = [
        format!("oci-archive:{oci}"),
        format!("docker-archive:{docker}:localhost/one:1"),
        docker,
        format!("oci:{layout}:1"),
        "containerd:localhost/one:1".to_owned(),
    ];
    let outcome = sources.iter().try_fold(Value::Null, |tree, source| {
        let created = create("e2e-one", source, &[])?;
        let same = tree.is_null() || tree == created["tree"];
        ensure(created["layers_made"] == 2 && same, || format!("{source} gives {created}, and not {tree}"))?;
        cryopod::ok(&["template", "delete", "e2e-one"])?;
        cryopod::ok(&["template", "prune"])?;
        Ok(created["tree"].clone())
    });
    shell::ok("ctr -n k8s.io images rm localhost/one:1")?;
    outcome.map(drop)
}

fn tarball() -> Result<(), Failure> {
    shell::ok(&format!("cd {WORK} && zstd -q base.tar -o base.tar.zst"))?;
    let plain = create("e2e-plain", &format!("tar:{WORK}/base.tar"), &[])?;
    let packed = create("e2e-packed", &format!("{WORK}/base.tar.zst"), &[])?;
    ensure(packed["layers_shared"] == 1 && packed["tree"] == plain["tree"], || {
        format!("{plain} is not {packed}")
    })?;
    // Without an image there is no command but that of the person.
    let done = shell::sh("cryopod run --template e2e-plain tmpl")?;
    ensure(done.code == 125 && done.stderr.contains("names no command"), || done.stderr.clone())?;
    let look = "cryopod run --template e2e-plain tmpl -- stat -c '%t:%T %a %h' /lib/node /etc/version";
    let said = shell::ok(look)?;
    ensure(said == "1:3 640 1\n0:0 644 2", || format!("its files are {said:?}"))
}

fn registry() -> Result<(), Failure> {
    REGISTRY.start()?;
    let outcome = (|| {
        image("one", "1", &json!({ "Cmd": ["/bin/true"] }))?.push("apps/one")?;
        let name = format!("{}/apps/one:1", REGISTRY.address);
        cryopod::refused(&["template", "create", "e2e-one", &name], 11)?;
        let created = create("e2e-one", &name, &["--plain-http"])?;
        ensure(created["layers_made"] == 2, || format!("create says {created}"))?;
        let digest = created["digest"].as_str().unwrap_or_default().to_owned();
        let pinned = format!("docker://{}/apps/one@{digest}", REGISTRY.address);
        let again = create("e2e-two", &pinned, &["--plain-http"])?;
        ensure(again["tree"] == created["tree"], || format!("{again} is not {created}"))?;
        let absent = format!("{}/apps/none:1", REGISTRY.address);
        cryopod::refused(&["template", "create", "e2e-none", &absent, "--plain-http"], 3).map(drop)
    })();
    REGISTRY.stop()?;
    outcome
}
