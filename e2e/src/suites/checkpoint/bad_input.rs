//! Bad input, as people and programs give it: a clear error, the documented exit code, nothing lost, nothing left, no
//! panic.

use std::path::Path;

use serde_json::Value;

use super::Case;
use crate::cryopod::Checkpoint;
use crate::shell::{self, Finished, exec, sh};
use crate::story::{counting, restored_pod};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("bad_bundles_are_refused_and_leave_nothing", true, bundles),
    ("a_spec_with_unknown_fields_runs", true, unknown_fields),
    ("bad_configurations_are_refused_with_their_place", true, configurations),
    ("a_store_that_is_somebody_s_is_refused_and_left_as_it_is", true, somebodys),
    ("a_recovery_with_another_root_leaves_a_capture_in_progress_alone", false, another_root),
    ("names_that_are_paths_are_refused", true, names),
    ("streams_that_are_no_export_are_refused", true, streams),
    ("without_rights_the_error_says_so", true, rights),
    ("a_checkpoint_whose_memory_is_gone_is_damaged_and_not_restored", true, no_memory),
];

const WORK: &str = "/run/cryopod-e2e/bad";
/// A complete bundle to be spoilt.
const MAKE: &str = "rm -rf $W && mkdir -p $W/rootfs/bin && cp /bin/busybox $W/rootfs/bin/ && \
                    ln -s busybox $W/rootfs/bin/true && cryopod spec --bundle $W -- /bin/true";

/// Runs `cryopod -o json` with arguments of a shell, in which `$W` is the work directory.
fn cryopod(args: &str) -> Result<Finished, Failure> {
    sh(&format!("W={WORK}; cryopod -o json {args}"))
}

fn prepare(script: &str) -> Result<(), Failure> {
    shell::ok(&format!("W={WORK}; {MAKE} && {script}")).map(drop)
}

/// The command was refused with one of these codes, in JSON, with these words.
fn refused(args: &str, codes: &[i32], words: &[&str]) -> Result<(), Failure> {
    let done = cryopod(args)?;
    let said = done.stderr.trim();
    ensure(codes.contains(&done.code), || {
        format!("`cryopod {args}` ended with {}, not one of {codes:?}: {said}{}", done.code, done.stdout)
    })?;
    ensure(!said.contains("panicked"), || format!("`cryopod {args}` panics: {said}"))?;
    let last = said.lines().last().unwrap_or_default();
    let error: Value =
        serde_json::from_str(last).map_err(|e| format!("`cryopod {args}` writes no JSON: {e}: {said}"))?;
    let message = format!("{} {}", error["error"]["message"], error["error"]["advice"]);
    for word in words {
        ensure(message.contains(word), || format!("`cryopod {args}` does not say {word:?}: {said}"))?;
    }
    Ok(())
}

fn bundles() -> Result<(), Failure> {
    let spoil = |how: &str, codes: &[i32], words: &[&str]| -> Result<(), Failure> {
        prepare(how)?;
        refused("run --bundle $W spoilt", codes, words).map_err(|e| format!("after `{how}`: {e}"))?;
        let state = cryopod("state spoilt")?;
        ensure(state.code == 3, || format!("after `{how}` the container exists: {}", state.stdout))
    };
    // `run` keeps 125 for its own failures: every other code is the process's.
    spoil("rm $W/config.json", &[125], &["config.json"])?;
    spoil("echo '{' > $W/config.json", &[125], &["config.json"])?;
    spoil("echo '[]' > $W/config.json", &[125], &["config.json"])?;
    spoil("sed -i 's/\"args\"/\"orgs\"/' $W/config.json", &[125], &[])?;
    spoil("rm -r $W/rootfs", &[125], &["rootfs"])?;
    spoil("rm $W/rootfs/bin/true", &[125], &["true"])?;
    spoil("head -c 100000000 /dev/zero > $W/config.json", &[125], &["config.json"])?;
    refused("run --bundle /nonexistent spoilt", &[125], &["/nonexistent"])?;
    refused("create --bundle /nonexistent spoilt", &[3, 5], &["/nonexistent"])?;
    shell::ok(&format!("rm -r {WORK}")).map(drop)
}

/// runtime-spec, Extensibility: unknown properties must be ignored.
fn unknown_fields() -> Result<(), Failure> {
    prepare("sed -i '1s/{/{\"future\":{\"x\":[1]},/' $W/config.json")?;
    let done = cryopod("run --bundle $W future")?;
    ensure(done.code == 0, || format!("it ended with {}: {}", done.code, done.stderr))?;
    shell::ok(&format!("rm -r {WORK}")).map(drop)
}

fn configurations() -> Result<(), Failure> {
    let with = |text: &str, codes: &[i32], words: &[&str]| -> Result<(), Failure> {
        std::fs::create_dir_all(WORK).map_err(|e| format!("{WORK}: {e}"))?;
        std::fs::write(Path::new(WORK).join("c.toml"), text).map_err(|e| format!("{WORK}: {e}"))?;
        refused("--config $W/c.toml checkpoints list", codes, words).map_err(|e| format!("{text:?}: {e}"))
    };
    with("[stoer]\nkind = \"zfs\"\n", &[5], &["c.toml", "stoer", "store"])?;
    with("[store]\nkind = \"zsf\"\n", &[5], &["c.toml", "zfs"])?;
    with("[checkpoint]\ntimeout = -1\n", &[5], &["c.toml"])?;
    with("[store\n", &[5], &["c.toml"])?;
    with("\u{0}", &[5], &["c.toml"])?;
    with("[store.zfs]\nroot = \"nopool/cryopod\"\n", &[3, 6, 11], &["nopool"])?;
    with("[store.zfs]\nroot = \"tank/../rpool\"\n", &[5], &["tank/../rpool"])?;
    refused("--config /nonexistent.toml checkpoints list", &[3, 5], &["/nonexistent.toml"])?;
    shell::ok(&format!("rm -r {WORK}")).map(drop)
}

/// A root in which somebody keeps checkpoints of another kind: `recover` at boot would take them for drafts.
fn somebodys() -> Result<(), Failure> {
    let made = "mkdir -p $W/ml/checkpoints/llama-7b; echo weights > $W/ml/checkpoints/llama-7b/model; \
                zfs create -p tank/e2e-ml/checkpoints/llama-7b; \
                printf '[store]\\nkind = \"zfs\"\\n[store.zfs]\\nroot = \"tank/e2e-ml\"\\n' > $W/zfs.toml; \
                printf '[store]\\nkind = \"dir\"\\n[store.dir]\\npath = \"%s/ml\"\\n' $W > $W/dir.toml";
    shell::ok(&format!("W={WORK}; rm -rf $W; mkdir -p $W; {made}"))?;
    for verb in ["recover", "checkpoints list"] {
        refused(&format!("--config $W/zfs.toml {verb}"), &[6], &["tank/e2e-ml", "cryopod:kind=root"])?;
        refused(&format!("--config $W/dir.toml {verb}"), &[6], &["/ml", "touch"])?;
    }
    let left = shell::ok("zfs list -H -o name -r tank/e2e-ml | wc -l")?;
    ensure(left == "3", || format!("there are {left} datasets"))?;
    shell::ok(&format!("W={WORK}; test -s $W/ml/checkpoints/llama-7b/model; ls -A $W/ml | wc -l"))
        .and_then(|entries| ensure(entries == "1", || format!("there are {entries} entries")))?;
    // An empty one that a person has made is taken.
    shell::ok("zfs destroy -r tank/e2e-ml && zfs create tank/e2e-ml")?;
    let listed = cryopod("--config $W/zfs.toml checkpoints list")?;
    ensure(listed.code == 0, || listed.stderr.clone())?;
    let mark = shell::ok("zfs get -H -o value cryopod:kind tank/e2e-ml")?;
    ensure(mark == "root", || format!("its mark is {mark}"))?;
    shell::ok(&format!("zfs destroy -r tank/e2e-ml; rm -r {WORK}")).map(drop)
}

/// A trial beside a running node has its own journal, and no locks of its own for a store that it shares.
fn another_root() -> Result<(), Failure> {
    const DRAFT: &str = "tank/cryopod/checkpoints/e2e-trial";
    // The store is there, with its locks.
    let listed = cryopod("checkpoints list")?;
    ensure(listed.code == 0, || listed.stderr.clone())?;
    shell::ok(&format!(
        "zfs create -o canmount=off -o cryopod:kind=checkpoint \
         -o cryopod:id=e2e-trial -o cryopod:state=capturing {DRAFT}"
    ))?;
    let there = || Ok::<_, Failure>(sh(&format!("zfs list {DRAFT}"))?.code == 0);
    // As its capture would.
    let lock = "/run/cryopod/locks/draft-e2e-trial.lock";
    let beside = format!("flock {lock} cryopod -o json --root {WORK}/trial recover");
    let done = sh(&beside)?;
    ensure(done.code == 0, || done.stderr.clone())?;
    ensure(there()?, || "the draft of a capture in progress was removed".into())?;
    shell::ok(&format!("rm {lock}; rm -r {WORK}"))?;
    let done = cryopod("recover")?;
    ensure(done.code == 0, || done.stderr.clone())?;
    ensure(!there()?, || "the draft of a dead capture stays".into())
}

fn names() -> Result<(), Failure> {
    for name in ["../../etc/passwd", "a/b", "..", "''", "-- -x", "$(printf 'a\\nb')"] {
        refused(&format!("checkpoints show {name}"), &[2, 3, 5], &[])?;
        refused(&format!("restore {name}"), &[2, 3, 5, 125], &[])?;
        refused(&format!("state {name}"), &[2, 3, 5], &[])?;
        refused(&format!("delete {name}"), &[2, 3, 5], &[])?;
    }
    Ok(())
}

fn streams() -> Result<(), Failure> {
    let made = "rm -rf $W; mkdir -p $W; cd $W; : > empty; echo hello > text; head -c 1000000 /dev/urandom > noise; \
                head -c 1000000 /dev/zero > zeros; mkdir dir";
    shell::ok(&format!("W={WORK}; {made}"))?;
    let before = shell::ok("zfs list -H -o name -t all -r tank/cryopod")?;
    for file in ["empty", "text", "noise", "zeros", "dir"] {
        refused(&format!("checkpoints import $W/{file}"), &[5, 12], &[])?;
    }
    refused("checkpoints import $W/nothing", &[3], &["nothing"])?;
    let after = shell::ok("zfs list -H -o name -t all -r tank/cryopod")?;
    ensure(before == after, || format!("before: {before}\nafter: {after}"))?;
    shell::ok(&format!("rm -r {WORK}")).map(drop)
}

fn rights() -> Result<(), Failure> {
    let nobody =
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cryopod", "-o", "json"];
    for args in [&["checkpoints", "list"][..], &["checkpoint", "x"], &["recover"], &["delete", "x"]] {
        let done = exec(&[&nobody, args].concat())?;
        ensure(done.code == 10, || {
            format!("{args:?} ended with {}: {}{}", done.code, done.stderr, done.stdout)
        })?;
        ensure(done.stderr.contains("permission-denied"), || format!("{args:?}: {}", done.stderr))?;
    }
    Ok(())
}

fn no_memory() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full", "--wait"])?;
    source.pod.remove()?;
    checkpoint.unlock()?;
    let content = checkpoint.content()?;
    shell::ok(&format!("find {} -name 'pages-*.img' -delete", content.display()))?;
    let verified = cryopod(&format!("checkpoints verify {}", checkpoint.id))?;
    ensure(verified.code == 12, || format!("verify ended with {}: {}", verified.code, verified.stderr))?;
    let pod = restored_pod("cryopod", "refused", &checkpoint.id, &[])?;
    match pod.start(&source.spec) {
        Ok(_) => return Err("it was restored".into()),
        Err(error) => ensure(error.contains("pages-"), || format!("the error is {error}"))?,
    }
    pod.remove()?;
    checkpoint.delete().map(drop)
}
