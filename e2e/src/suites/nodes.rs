//! `nodes`: a pod that was captured on one node goes on, on another.
//!
//! `cryopod-e2e nodes-prepare` captures it on the first one, removes it there and leaves a note; `cargo xtask test` boots
//! a second node on the same network and carries note and checkpoint over, the checkpoint through a pipe from `export`
//! to `import`; the suite runs on the second one, which has never seen the pod.

use std::fs;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::crictl::Spec;
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::story::{counting, restore};
use crate::suite::{Failure, Suite, ensure, test};
use crate::ticks::{self, Ticks};

/// Also in xtask/src/test/inside.rs.
const NOTE: &str = "/var/lib/cryopod-e2e/nodes.json";

/// What was there on the first node.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    checkpoint: String,
    last: u64,
    token: String,
}

impl Note {
    fn read() -> Result<Self, Failure> {
        let text =
            fs::read(NOTE).map_err(|e| format!("{NOTE}: {e}; `cryopod-e2e nodes-prepare` writes it"))?;
        serde_json::from_slice(&text).map_err(|e| format!("{NOTE}: {e}"))
    }
}

/// Captures a pod and removes it.
pub fn prepare() -> ExitCode {
    match try_prepare() {
        Ok(()) => {
            println!("1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("nodes-prepare failed: {why}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn try_prepare() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    let Ticks { last, token } = source.before.clone();
    source.pod.remove()?;
    let note = Note { checkpoint: checkpoint.id.clone(), last, token };
    let text = serde_json::to_vec(&note).map_err(|e| e.to_string())?;
    fs::create_dir_all("/var/lib/cryopod-e2e").map_err(|e| format!("{NOTE}: {e}"))?;
    fs::write(NOTE, text).map_err(|e| format!("{NOTE}: {e}"))?;
    // It is exported after this program has ended.
    std::mem::forget(checkpoint);
    Ok(())
}

/// What must hold on the other node; in this order.
pub fn suite(_full: bool) -> Suite {
    let tests = vec![
        test("the_checkpoint_arrived_whole", || {
            cryopod::ok(&["checkpoints", "verify", &Note::read()?.checkpoint]).map(drop)
        }),
        test("it_goes_on_where_it_was", goes_on),
        test("deleted_it_leaves_nothing", deleted),
    ];
    Suite { tests, left_out: Vec::new() }
}

fn goes_on() -> Result<(), Failure> {
    let note = Note::read()?;
    let (pod, container) = restore("cryopod", "moved", &note.checkpoint, &Spec::counter("counter"))?;
    ticks::goes_on(&container, &Ticks { last: note.last, token: note.token })?;
    pod.remove()
}

fn deleted() -> Result<(), Failure> {
    Checkpoint::named(&Note::read()?.checkpoint).delete()?;
    let left = checkpoints()?;
    ensure(left.is_empty(), || format!("the store still has {left:?}"))
}
