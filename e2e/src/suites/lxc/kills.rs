//! Processes of ours, and of the container, that are killed while it is made, runs, is captured and comes back.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Case, HANDLER};
use crate::crictl::{Pod, Spec};
use crate::cryopod::{self, Checkpoint};
use crate::shell::{eventually, ok, sh};
use crate::story::{counting, restore, restored_pod};
use crate::suite::{Failure, ensure};
use crate::ticks;

pub const CASES: &[Case] = &[
    ("a_runtime_that_is_killed_while_it_makes_a_container_leaves_nothing", true, || {
        make(&Victim { line: "[c]ryopod-lxc.* create ", name: "cryopod-lxc" })
    }),
    ("an_init_that_is_killed_while_its_container_is_made_leaves_nothing", false, || {
        make(&Victim { line: "[p]id1 [0-9]", name: "*" })
    }),
    ("a_first_process_that_is_killed_ends_the_container_with_137", true, first_process),
    ("a_runtime_that_is_killed_while_it_captures_hurts_nobody", true, || {
        capture(&Victim { line: "[c]ryopod-lxc.* checkpoint ", name: "cryopod-lxc" })
    }),
    ("a_criu_that_is_killed_while_it_captures_hurts_nobody", false, || capture(&CRIU)),
    ("a_runtime_that_is_killed_while_it_restores_can_be_called_again", true, || {
        again(&Victim { line: "[c]ryopod-lxc.* restore ", name: "cryopod-lxc" })
    }),
    ("a_criu_that_is_killed_while_it_restores_can_be_called_again", false, || again(&CRIU)),
];

const LONG: Duration = Duration::from_secs(60);
const WORK: &str = "/run/cryopod-e2e";

/// Who is killed.
struct Victim {
    /// What its command line matches.
    line: &'static str,
    /// Its name for the kernel (`comm`), as a pattern of the shell.
    name: &'static str,
}

const CRIU: Victim = Victim { line: "^([^ ]*/)?[c]riu(:| swrk)", name: "*" };

impl std::fmt::Display for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.line, self.name)
    }
}

/// Kills whatever matches as soon as it is there, until it is dropped.
struct Killer(Child);

impl Killer {
    fn of(Victim { line, name }: &Victim) -> Result<Self, Failure> {
        let killed = format!("{WORK}/killed");
        std::fs::create_dir_all(WORK).map_err(|error| format!("{WORK}: {error}"))?;
        sh(&format!("rm -f {killed}"))?;
        let script = format!(
            "while :; do for p in $(pgrep -f '{line}'); do case $(cat /proc/$p/comm 2>/dev/null) in \
             {name}) kill -KILL $p && echo >> {killed};; esac; done; sleep 0.01; done"
        );
        let child =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child.map(Self).map_err(|error| format!("cannot start the killer: {error}"))
    }

    /// Whether anything was there to be killed.
    fn has_killed(&self) -> bool {
        std::fs::exists(format!("{WORK}/killed")).unwrap_or(false)
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("clean-up: the killer: {error}");
        }
    }
}

/// The process may have done its work before it is found: then the container is whole, and the next one is tried.
fn make(victim: &Victim) -> Result<(), Failure> {
    for _ in 0..6 {
        let pod = Pod::run(HANDLER, "killed")?;
        let spec = Spec::sh("c", "echo here; sleep 1000");
        let killer = Killer::of(victim)?;
        let started = pod.start(&spec);
        let killed = killer.has_killed();
        drop(killer);
        // The pod is none the worse for it.
        let container = match started {
            Ok(container) => container,
            Err(_) => pod.start(&Spec { name: "again".into(), ..spec })?,
        };
        eventually("its output", LONG, || Ok((!container.logs()?.is_empty()).then_some(())))?;
        pod.remove_in_the_end(LONG)?;
        cryopod::ok(&["recover"])?;
        if killed {
            return Ok(());
        }
    }
    Err(format!("nothing that matches {victim} was ever there"))
}

fn first_process() -> Result<(), Failure> {
    let pod = Pod::run(HANDLER, "first")?;
    let container = pod.start(&Spec::sh("c", "sleep 1000"))?;
    ok(&format!("kill -KILL {}", container.pid()?))?;
    let code = container.wait_exit(LONG)?;
    ensure(code == 137, || format!("exit code {code}, not 137"))?;
    pod.remove()
}

fn capture(victim: &Victim) -> Result<(), Failure> {
    let source = counting(HANDLER)?;
    let killer = Killer::of(victim)?;
    let done = cryopod::run(&["checkpoint", "--mode", "full", &source.pod.id])?;
    drop(killer);
    ensure(done.code != 0, || format!("the capture succeeded although {victim} was killed"))?;
    ticks::goes_on(&source.container, &source.before).map_err(|error| format!("I1: {error}"))?;
    cryopod::ok(&["recover"])?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    ticks::goes_on(&source.container, &source.before).map_err(|error| format!("I1: {error}"))?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

fn again(victim: &Victim) -> Result<(), Failure> {
    let source = counting(HANDLER)?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full", "--wait"])?;
    source.pod.remove()?;
    let pod = restored_pod(HANDLER, "broken", &checkpoint.id, &[])?;
    let killer = Killer::of(victim)?;
    let started = pod.start(&source.spec);
    drop(killer);
    ensure(started.is_err(), || format!("the restore succeeded although {victim} was killed"))?;
    pod.remove_in_the_end(LONG)?;
    sh("cryopod recover")?;
    let (pod, restored) = restore(HANDLER, "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}
