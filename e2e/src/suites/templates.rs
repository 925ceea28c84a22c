//! `templates`: images become templates and containers are clones of them, on a real pool, from every kind of source; what
//! is hostile, damaged or in use is refused.

mod hostile;
mod images;
mod killed;
mod sources;

use serde_json::{Value, json};

use crate::cryopod;
use crate::leaks;
use crate::shell::{self, exec, exec_ok};
use crate::suite::{Failure, Suite, ensure, test};
use images::{Image, WORK};

/// A test of this suite: its name, whether every run has it, what it does.
type Case = (&'static str, bool, fn() -> Result<(), Failure>);

const CASES: &[Case] = &[
    ("a_container_of_a_template_runs_what_the_image_says", true, runs),
    ("a_second_image_costs_its_own_layers_only", true, shares),
    ("a_template_in_use_is_not_deleted_and_says_by_whom", true, in_use),
    ("a_flipped_byte_is_found", true, flipped),
    ("a_container_of_a_template_is_checkpointed_and_comes_back", true, comes_back),
    ("without_zfs_templates_are_directories", true, directory),
];

/// The tests.
pub fn suite(full: bool) -> Suite {
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    let rooms = [CASES, sources::CASES, hostile::CASES, killed::CASES];
    for (name, always, body) in rooms.into_iter().flatten().copied() {
        if full || always {
            suite.tests.push(test(name, move || leaks::checked(|| cleaned(body))));
        } else {
            suite.left_out.push(format!("templates {name}"));
        }
    }
    suite
}

/// Runs a test and removes what it made, whatever came of it.
fn cleaned(body: fn() -> Result<(), Failure>) -> Result<(), Failure> {
    images::base()?;
    let outcome = body();
    let removed = remove();
    outcome.and(removed)
}

fn remove() -> Result<(), Failure> {
    shell::sh("cryopod delete --force tmpl tmpl-2")?;
    for config in ["/etc/cryopod/config.toml", "/etc/cryopod/dir.toml"] {
        shell::ok(&format!(
            "for t in $(cryopod --config {config} template ls -q | grep '^e2e-'); do \
             cryopod --config {config} template delete $t || exit; done; \
             cryopod --config {config} template prune; rm -rf {WORK}"
        ))?;
    }
    Ok(())
}

/// The root dataset of the command's store.
fn store() -> Result<String, Failure> {
    let root = shell::ok("cryopod config dump | sed -n 's/^root = \"\\(tank.*\\)\"/\\1/p'")?;
    ensure(root.starts_with("tank"), || format!("the store is not on tank: {root}"))?;
    Ok(root)
}

/// Makes a template; what the command says of it.
pub fn create(name: &str, image: &str, options: &[&str]) -> Result<Value, Failure> {
    cryopod::ok(&[&["template", "create", name, image], options].concat())
}

/// An image with the base and one layer on it.
pub fn image(name: &str, version: &str, config: &Value) -> Result<Image, Failure> {
    images::upper(name, version)?;
    Image::of(&["base", name], config)
}

/// What a container of the template prints; it has to end with `code`.
fn output(template: &str, arguments: &[&str], code: i32) -> Result<String, Failure> {
    let start = [&["cryopod", "run", "--template", template, "tmpl", "--"], arguments].concat();
    let done = exec(&start)?;
    ensure(done.code == code, || {
        format!("run ended with {}, not {code}: {}", done.code, done.stderr.trim())
    })?;
    Ok(done.stdout)
}

fn runs() -> Result<(), Failure> {
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id -un; id -G; pwd; echo $GREETING $PATH; cat /etc/version; exit 7"],
        "User": "web", "WorkingDir": "/home/web", "Env": ["GREETING=hello"], "StopSignal": "SIGQUIT",
        "Volumes": { "/srv": {} }, "Labels": { "org.example.name": "größe" },
    });
    let path = image("one", "1", &config)?.oci_archive("one")?;
    let created = create("e2e-one", &format!("oci-archive:{path}"), &[])?;
    ensure(created["layers_made"] == 2 && created["layers_shared"] == 0, || {
        format!("create says {created}")
    })?;
    let kept = &created["config"];
    let whole = kept["stop_signal"] == "SIGQUIT" && kept["volumes"] == json!(["/srv"]);
    ensure(whole && kept["labels"]["org.example.name"] == "größe", || format!("kept is {kept}"))?;
    let done = exec(&["cryopod", "run", "--template", "e2e-one", "tmpl"])?;
    let expected =
        "web\n1000 4\n/home/web\nhello /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n1\n";
    ensure(done.code == 7 && done.stdout == expected, || {
        format!("run ended with {} and wrote {:?}: {}", done.code, done.stdout, done.stderr.trim())
    })?;
    let said = output("e2e-one", &["ls /srv; stat -c '%a %h' /bin/busybox /etc/also"], 0)?;
    ensure(said == "new\n4755 1\n644 1\n", || format!("its files are {said:?}"))?;
    let shown = cryopod::ok(&["template", "show", "e2e-one"])?;
    ensure(shown["users"] == json!([]) && shown["layers"].as_array().map(Vec::len) == Some(2), || {
        format!("show says {shown}")
    })?;
    cryopod::ok(&["template", "verify", "e2e-one"]).map(drop)
}

fn shares() -> Result<(), Failure> {
    let store = store()?;
    let used = || -> Result<u64, Failure> {
        shell::ok(&format!("zpool sync tank; zfs get -Hpo value used {store}"))?
            .parse()
            .map_err(|e| format!("used: {e}"))
    };
    let before = used()?;
    create("e2e-one", &format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?), &[])?;
    let first = used()? - before;
    let created = create("e2e-two", &format!("oci:{}", image("two", "2", &json!({}))?.layout("two")?), &[])?;
    let second = used()? - before - first;
    ensure(created["layers_made"] == 1 && created["layers_shared"] == 1, || {
        format!("create says {created}")
    })?;
    // The base has 8 MiB that no compression makes smaller.
    ensure(first > 8 << 20 && second < 2 << 20, || {
        format!("the first took {first} bytes, the second {second}")
    })?;
    println!("the first image took {first} bytes, the second one on the same base {second}");
    let pruned = cryopod::ok(&["template", "prune"])?;
    ensure(pruned["layers"] == json!([]), || format!("prune deleted what is used: {pruned}"))?;
    cryopod::ok(&["template", "delete", "e2e-one"])?;
    let pruned = cryopod::ok(&["template", "prune"])?;
    ensure(pruned["layers"].as_array().map(Vec::len) == Some(1), || format!("prune says {pruned}"))?;
    cryopod::ok(&["template", "verify", "e2e-two"]).map(drop)
}

fn in_use() -> Result<(), Failure> {
    create("e2e-one", &format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?), &[])?;
    exec_ok(&["cryopod", "run", "--detach", "--template", "e2e-one", "tmpl", "--", "sleep", "1000"])?;
    let refusal = cryopod::refused(&["template", "delete", "e2e-one"], 6)?;
    ensure(refusal.contains("container tmpl"), || format!("the refusal does not say who: {refusal}"))?;
    let listed = cryopod::ok(&["template", "list"])?;
    ensure(listed[0]["users"] == json!(["container tmpl"]), || format!("list says {listed}"))?;
    cryopod::refused(&["template", "create", "e2e-one", "oci:/nothing"], 4)?;
    shell::ok("cryopod delete --force tmpl")?;
    cryopod::ok(&["template", "delete", "e2e-one"])?;
    cryopod::refused(&["template", "show", "e2e-one"], 3)?;
    let done = exec(&["cryopod", "run", "--template", "e2e-one", "tmpl"])?;
    ensure(done.code == 125 && done.stderr.contains("no template 'e2e-one'"), || done.stderr.clone())?;
    cryopod::refused(&["state", "tmpl"], 3).map(drop)
}

/// A snapshot cannot be changed, so the whole of it is exchanged, with all that it says of itself.
fn flipped() -> Result<(), Failure> {
    create("e2e-one", &format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?), &[])?;
    cryopod::ok(&["template", "verify", "e2e-one"])?;
    shell::ok(&format!(
        "set -e; d={}/templates/e2e-one; s=$d@template; mkdir -p {WORK}/m; \
         zfs get -H -s local -o property,value all $s > {WORK}/props; \
         mount -t zfs $d {WORK}/m; t=$(stat -c @%Y {WORK}/m/usr/lib/large); \
         printf X | dd of={WORK}/m/usr/lib/large bs=1 seek=4000000 conv=notrunc status=none; \
         touch -d $t {WORK}/m/usr/lib/large; umount {WORK}/m; zfs destroy $s; \
         set -- ; while IFS=$(printf '\\t') read -r k v; do set -- \"$@\" -o \"$k=$v\"; done < {WORK}/props; \
         zfs snapshot \"$@\" $s",
        store()?
    ))?;
    let said = cryopod::refused(&["template", "verify", "e2e-one"], 12)?;
    ensure(said.contains("is damaged: its files have hash"), || format!("verify says {said}"))
}

fn comes_back() -> Result<(), Failure> {
    create("e2e-one", &format!("oci:{}", image("one", "1", &json!({}))?.layout("one")?), &[])?;
    let count = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.1; done";
    exec_ok(&["cryopod", "run", "--detach", "--template", "e2e-one", "tmpl", "--", "sh", "-c", count])?;
    shell::ok("sleep 1")?;
    let checkpoint = cryopod::Checkpoint::with("tmpl", &["--mode", "full", "--wait"])?;
    shell::ok("cryopod delete --force tmpl")?;
    // The checkpoint's disk is what it differs by from the template.
    let refusal = cryopod::refused(&["template", "delete", "e2e-one"], 6)?;
    ensure(refusal.contains(&format!("checkpoint {}", checkpoint.id)), || {
        format!("the refusal says {refusal}")
    })?;
    exec_ok(&["cryopod", "restore", &checkpoint.id, "--name", "tmpl-2"])?;
    let read = || shell::ok("cryopod exec tmpl-2 cat /count");
    let before = read()?;
    shell::ok("sleep 1")?;
    ensure(read()? != before, || format!("it does not count beyond {before}"))?;
    shell::ok("cryopod delete --force tmpl-2")?;
    checkpoint.delete().map(drop)
}

fn directory() -> Result<(), Failure> {
    let config = json!({ "Entrypoint": ["/bin/sh", "-c"] });
    let path = image("one", "1", &config)?.oci_archive("one")?;
    let store = |args: &[&str]| cryopod::ok(&[&["--config", "/etc/cryopod/dir.toml"], args].concat());
    store(&["template", "create", "e2e-one", &path])?;
    let run = [
        "cryopod",
        "--config",
        "/etc/cryopod/dir.toml",
        "run",
        "--template",
        "e2e-one",
        "tmpl",
        "--",
        "cat /etc/version; exit 3",
    ];
    let done = exec(&run)?;
    ensure(done.code == 3 && done.stdout == "1\n", || {
        format!("run ended with {}: {}", done.code, done.stderr.trim())
    })?;
    store(&["template", "verify", "e2e-one"])?;
    shell::ok("echo x >> /var/lib/cryopod/directory/templates/e2e-one/rootfs/etc/version")?;
    cryopod::refused(&["--config", "/etc/cryopod/dir.toml", "template", "verify", "e2e-one"], 12)?;
    store(&["template", "delete", "e2e-one"]).map(drop)
}
