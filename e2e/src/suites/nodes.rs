//! `nodes`: a pod that was captured on one node goes on, on another.
//!
//! `cryopod-e2e nodes-prepare` captures it on the first one, removes it there and leaves a note; `cargo xtask test` boots
//! a second node on the same network and carries note and checkpoint over, the checkpoint through a pipe from `export`
//! to `import`; the suite runs on the second one, which has never seen the pod.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::crictl::Spec;
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::story::{counting, restore};
use crate::suite::{Failure, Suite, ensure, test};
use crate::suites::prepared;
use crate::ticks::{self, Ticks};

/// What was there on the first node.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    checkpoint: String,
    last: u64,
    token: String,
}

impl Note {
    fn read() -> Result<Self, Failure> {
        prepared::read("nodes")
    }
}

/// Captures a pod and removes it.
pub fn prepare() -> ExitCode {
    prepared::report("nodes", try_prepare())
}

fn try_prepare() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    let Ticks { last, token } = source.before.clone();
    source.pod.remove()?;
    let note = Note { checkpoint: checkpoint.id.clone(), last, token };
    prepared::write("nodes", &note)?;
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
