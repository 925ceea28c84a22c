//! Export and import: one stream, through a file or a pipe, verified before it counts.

use super::Case;
use crate::cryopod::{self, Checkpoint};
use crate::shell;
use crate::story::{Counting, counting, restore};
use crate::suite::{Failure, ensure};
use crate::ticks;

pub const CASES: &[Case] = &[
    ("an_export_is_imported_and_restored_after_the_original_is_gone", true, || round_trip(through_file)),
    ("an_export_goes_through_a_pipe", false, || round_trip(through_pipe)),
    ("a_truncated_or_flipped_export_is_refused_and_leaves_nothing", true, damaged),
];

const FILE: &str = "/var/tmp/e2e.cryopod";

fn captured() -> Result<(Counting, Checkpoint), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    checkpoint.settle()?;
    Ok((source, checkpoint))
}

fn round_trip(ship: fn(Checkpoint) -> Result<(), Failure>) -> Result<(), Failure> {
    let (source, checkpoint) = captured()?;
    let id = checkpoint.id.clone();
    source.pod.remove()?;
    ship(checkpoint)?;
    let back = Checkpoint::named(&id);
    back.verify()?;
    let (pod, restored) = restore("cryopod", "restored", &back.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    back.delete().map(drop)
}

fn through_file(checkpoint: Checkpoint) -> Result<(), Failure> {
    shell::ok(&format!("rm -f {FILE}"))?;
    cryopod::ok(&["checkpoints", "export", &checkpoint.id, FILE])?;
    let mode = shell::ok(&format!("stat -c %a {FILE}"))?;
    ensure(mode == "600", || format!("the export, which holds memory, has mode {mode}"))?;
    // The same id twice is refused, and the first stays.
    cryopod::refused(&["checkpoints", "import", FILE], 4)?;
    checkpoint.verify()?;
    checkpoint.delete()?;
    // As on a node that has never seen the image: no base to start from.
    shell::ok(
        "for d in $(zfs list -H -o name -d 1 tank/cryopod/bases | tail -n +2); do zfs destroy -r $d; done",
    )?;
    cryopod::ok(&["checkpoints", "import", FILE])?;
    shell::ok(&format!("rm {FILE}")).map(drop)
}

fn through_pipe(checkpoint: Checkpoint) -> Result<(), Failure> {
    // The reader waits for the end of the original: it is deleted while the stream is held up in between.
    let script = format!(
        "set -e; cryopod checkpoints export {id} | cat > {FILE}; cryopod checkpoints delete {id}; \
         cat {FILE} | cryopod checkpoints import -; rm {FILE}",
        id = checkpoint.id
    );
    shell::ok(&script)?;
    std::mem::forget(checkpoint);
    Ok(())
}

fn damaged() -> Result<(), Failure> {
    let (source, checkpoint) = captured()?;
    source.pod.remove()?;
    shell::ok(&format!("rm -f {FILE} {FILE}.bad"))?;
    cryopod::ok(&["checkpoints", "export", &checkpoint.id, FILE])?;
    checkpoint.delete()?;
    let whole = std::fs::read(FILE).map_err(|e| format!("{FILE}: {e}"))?;
    let mut flipped = whole.clone();
    if let Some(byte) = flipped.get_mut(whole.len() / 2) {
        *byte ^= 0x10;
    }
    let bad = format!("{FILE}.bad");
    for (what, bytes) in [
        ("truncated", &whole[..whole.len() * 3 / 4]),
        ("without trailer", &whole[..whole.len() - 1]),
        ("flipped", &flipped),
    ] {
        std::fs::write(&bad, bytes).map_err(|e| format!("{bad}: {e}"))?;
        let done = cryopod::run(&["checkpoints", "import", &bad])?;
        ensure(matches!(done.code, 5 | 12), || format!("{what}: exit code {}: {}", done.code, done.stderr))?;
        ensure(!done.stderr.contains("panicked"), || done.stderr.clone())?;
        ensure(cryopod::checkpoints()?.is_empty(), || format!("{what}: something is in the store"))?;
    }
    shell::ok(&format!("rm {FILE} {FILE}.bad")).map(drop)
}
