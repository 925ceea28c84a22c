//! Hooks of the OCI spec: programs that are run at fixed points of a container's life, with its state on standard input.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Error};
use crate::plan::Hook;

/// Runs them in their order, until one fails.
///
/// # Errors
/// For the first that cannot be run, fails, or takes longer than it may.
pub fn run_all(hooks: &[Hook], pid: u32) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run(hook, pid))
}

/// Runs one; `pid` is the container's first process, as the hook sees it.
///
/// # Errors
/// When it cannot be run, fails, or takes longer than it may.
pub fn run(hook: &Hook, pid: u32) -> Result<(), Error> {
    let program = &hook.path;
    let mut command = Command::new(program);
    if let Some(name) = hook.args.first() {
        command.arg0(name);
    }
    let env = hook.env.iter().filter_map(|variable| variable.split_once('='));
    command.args(hook.args.get(1..).unwrap_or_default()).env_clear().envs(env);
    let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = started.on("run the hook", program.display())?;
    if let Some(mut input) = child.stdin.take() {
        // A hook that does not read its state is none the worse for it.
        input.write_all(state(hook, pid).as_bytes()).ok();
    }
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let failed = |text: String| Err(io::Error::other(text)).on("run the hook", program.display());
    loop {
        if let Some(status) = child.try_wait().on("wait for the hook", program.display())? {
            return if status.success() { Ok(()) } else { failed(status.to_string()) };
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            child.kill().ok();
            child.wait().ok();
            return failed("it took longer than it may".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn state(hook: &Hook, pid: u32) -> String {
    let Ok(mut state) = serde_json::from_str::<serde_json::Value>(&hook.state) else {
        return hook.state.clone();
    };
    if state.is_object() && state.get("pid").is_none() && pid != 0 {
        state["pid"] = pid.into();
    }
    state.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["A=b".to_owned()],
            timeout: None,
            state: r#"{"id":"c1","status":"created"}"#.to_owned(),
        }
    }

    #[test]
    fn a_hook_gets_the_state_and_nothing_of_our_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("said");
        run(&hook(&format!("cat > {0}; env >> {0}", file.display())), 42).unwrap();
        let said = std::fs::read_to_string(file).unwrap();
        let (state, env) = said.split_once('}').unwrap();
        assert!(state.contains(r#""id":"c1""#) && state.contains(r#""pid":42"#), "{said}");
        assert!(env.contains("A=b") && !env.contains("CARGO"), "{said}");
    }

    #[test]
    fn a_hook_that_fails_or_hangs_is_an_error_that_names_it() {
        let failed = run(&hook("exit 3"), 1).unwrap_err().to_string();
        assert!(failed.contains("/bin/sh") && failed.contains('3'), "{failed}");
        let began = Instant::now();
        let slow = run(&Hook { timeout: Some(1), ..hook("sleep 60") }, 1).unwrap_err().to_string();
        assert!(slow.contains("longer") && began.elapsed() < Duration::from_secs(30), "{slow}");
        let missing = Hook { path: "/no/such/hook".into(), ..hook("") };
        assert!(run(&missing, 1).unwrap_err().to_string().contains("/no/such/hook"));
    }
}
