//! Local commands of the node, with errors that show what was run and what it said.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::suite::Failure;

/// A finished command.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Wall time.
    pub duration: Duration,
}

impl Finished {
    fn failure(&self, shown: &str) -> Failure {
        let (code, seconds) = (self.code, self.duration.as_secs());
        format!("`{shown}` ended with {code} after {seconds} s: {}{}", self.stderr.trim(), tail(&self.stdout))
    }
}

/// Runs a shell script and returns whatever it did.
pub fn sh(script: &str) -> Result<Finished, Failure> {
    finish(Command::new("sh").args(["-c", script]), script)
}

/// Runs a shell script that has to succeed; returns its standard output without the last line break.
pub fn ok(script: &str) -> Result<String, Failure> {
    let done = sh(script)?;
    if done.code == 0 {
        return Ok(done.stdout.trim_end_matches('\n').to_owned());
    }
    Err(done.failure(script))
}

/// Runs a program with arguments, without a shell.
pub fn exec(argv: &[&str]) -> Result<Finished, Failure> {
    let (program, args) = argv.split_first().ok_or("empty argument vector")?;
    finish(Command::new(program).args(args), &argv.join(" "))
}

/// Like [`exec`], but it has to succeed.
pub fn exec_ok(argv: &[&str]) -> Result<String, Failure> {
    let done = exec(argv)?;
    if done.code == 0 {
        return Ok(done.stdout.trim_end_matches('\n').to_owned());
    }
    Err(format!(
        "`{}` ended with {}: {}{}",
        argv.join(" "),
        done.code,
        done.stderr.trim(),
        tail(&done.stdout)
    ))
}

/// Tries `probe` until it gives a value, at most for `patience`.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > patience {
            return Err(format!("{what}: not within {} s", patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn finish(command: &mut Command, shown: &str) -> Result<Finished, Failure> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run `{shown}`: {e}"))?;
    use std::os::unix::process::ExitStatusExt as _;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Ok(Finished {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        duration: start.elapsed(),
    })
}

fn tail(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(" [{}]", &text[text.len().saturating_sub(400)..]) }
}
