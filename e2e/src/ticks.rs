//! What a workload has counted, read from outside: `/data/count` has one line `number token` per tick, and the process
//! has both in memory.
//!
//! If memory and file are of one instant, the numbers go on by one whatever was frozen, deleted and restored in
//! between; if not, one number repeats or is missing. The token is made when the process starts, so a process that
//! was started afresh instead of restored shows.

use std::time::Duration;

use crate::crictl::Container;
use crate::shell::eventually;
use crate::suite::{Failure, ensure};

/// Ticks come about ten times a second; in an emulated node that is busy they may take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state of a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticks {
    /// The last number.
    pub last: u64,
    /// The token of the process.
    pub token: String,
}

/// Reads a count that begins with 1; a gap, a repeat or a second token is an error.
pub fn read(container: &Container) -> Result<Ticks, Failure> {
    parse(&container.file("/data/count")?).map_err(|e| format!("{}: /data/count: {e}", container.name))
}

/// Understands the file's text.
pub fn parse(text: &str) -> Result<Ticks, Failure> {
    let mut ticks = Ticks { last: 0, token: String::new() };
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (number, token) = line.split_once(' ').ok_or_else(|| format!("the line {line:?}"))?;
        let number: u64 = number.parse().map_err(|_| format!("the line {line:?}"))?;
        ensure(number == ticks.last + 1, || format!("{number} follows {}", ticks.last))?;
        if ticks.last == 0 {
            token.clone_into(&mut ticks.token);
        }
        ensure(token == ticks.token, || {
            format!("at {number} another process goes on ({token}, not {})", ticks.token)
        })?;
        ticks.last = number;
    }
    Ok(ticks)
}

/// Waits until the count is greater than `number`.
pub fn beyond(container: &Container, number: u64) -> Result<Ticks, Failure> {
    eventually(&format!("{} counts beyond {number}", container.name), PATIENCE, || {
        if let Ok(error) = container.file("/data/error") {
            return Err(format!("{} found: {}", container.name, error.trim()));
        }
        // The file is not there before the first tick.
        let ticks = match read(container) {
            Err(e) if e.contains("No such file") => return Ok(None),
            other => other?,
        };
        Ok((ticks.last > number).then_some(ticks))
    })
}

/// The restored container goes on with the count of its source: same process, at least as far as when the checkpoint
/// was asked for (`before`), no gap, no repeat; and it goes on counting.
pub fn goes_on(restored: &Container, before: &Ticks) -> Result<Ticks, Failure> {
    let first = beyond(restored, before.last)?;
    ensure(first.token == before.token, || {
        format!("the restored process is another one: token {}, not {}", first.token, before.token)
    })?;
    beyond(restored, first.last + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_count_is_read_up_to_its_last_whole_line() {
        assert_eq!(parse("1 a\n2 a\n3"), Ok(Ticks { last: 2, token: "a".into() }));
        assert_eq!(parse(""), Ok(Ticks { last: 0, token: String::new() }));
    }

    #[test]
    fn a_gap_a_repeat_and_a_second_process_are_errors() {
        for text in ["1 a\n3 a\n", "1 a\n1 a\n", "1 a\n2 b\n", "2 a\n", "x\n"] {
            assert!(parse(text).is_err(), "accepted: {text:?}");
        }
    }
}
