//! `cryopod checkpoints hold` and `release`: what a person holds, prune never deletes. `delete` does, since it is told
//! what to delete by name.

use serde_json::json;

use super::{LOOK, parse_ids, several};
use crate::args::HoldArgs;
use crate::context::{Context, need_root};
use crate::error::Error;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Prune leaves them alone from now on.
    Set,
    /// The rules decide again.
    Release,
}

/// Holds or releases each by itself; one that is so already is no error, one that fails does not keep the others.
pub(super) fn run(context: &Context, args: &HoldArgs, hold: Hold) -> Result<u8, Error> {
    let (verb, done, means) = match hold {
        Hold::Set => ("checkpoints hold", "held", "prune keeps it"),
        Hold::Release => ("checkpoints release", "released", "the rules of prune decide about it"),
    };
    need_root(verb)?;
    let store = context.open_store(&context.signals.limits(LOOK))?.store;
    let ids = parse_ids(&args.ids)?;
    let (mut changed, mut lines, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for id in &ids {
        match store.set_held(id, hold == Hold::Set, &context.signals.limits(LOOK)) {
            Ok(()) => {
                changed.push(id);
                lines.push(format!("{id} is {done}: {means}"));
            }
            Err(error) => errors.push(Error::from(error)),
        }
    }
    if !lines.is_empty() {
        context.output.result(&json!({ done: changed }), |_| lines.join("\n"))?;
    }
    several(errors, ids.len())
}
