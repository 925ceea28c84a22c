//! Hooks of the OCI spec: programs that are run at fixed points of a container's life, with its state on standard input.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Error};
use crate::pid1::{read, take, tell};
use crate::plan::Hook;
use crate::report::Report;

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

/// Between the namespaces and the change of the root: says that the container has got there, waits for the word of the host,
/// which has hooks of its own to run, and runs `createContainer` hooks. liblxc runs it as its hook `mount`, in the
/// container's namespaces and with the host's files.
///
/// # Errors
/// When nobody can be told.
pub fn gate(hooks: i32, socket: i32) -> Result<(), Error> {
    let mut socket = UnixStream::from(take(socket)?);
    let hooks: Vec<Hook> = match take(hooks).and_then(read) {
        Ok(hooks) => hooks,
        Err(error) => {
            tell(&mut socket, &error)?;
            return Err(error);
        }
    };
    Report::Ready.say(&mut socket).step("say that the namespaces are there")?;
    let mut word = [0; 4];
    socket.read_exact(&mut word).step("wait for the hooks of the host")?;
    let pid = u32::from_ne_bytes(word);
    match run_all(&hooks, pid) {
        // Said, since the end of the stream would not be seen: liblxc's processes hold it open as well.
        Ok(()) => Report::Running { pid }.say(&mut socket).step("say that the hooks have run"),
        Err(error) => {
            tell(&mut socket, &error)?;
            Err(error)
        }
    }
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
    fn the_gate_says_when_it_is_reached_and_when_its_hooks_have_run() {
        use std::io::{Seek, SeekFrom};
        use std::os::fd::IntoRawFd;
        for (script, expected) in [("exit 0", Report::Running { pid: 7 }), ("exit 3", Report::Ready)] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            // Somebody else who has it, as liblxc does.
            let _held = theirs.try_clone().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&serde_json::to_vec(&[hook(script)]).unwrap()).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            let (plan, socket) = (file.into_raw_fd(), theirs.into_raw_fd());
            let gate = std::thread::spawn(move || gate(plan, socket));
            ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(Report::hear(&mut ours).unwrap(), Some(Report::Ready));
            ours.write_all(&7_u32.to_ne_bytes()).unwrap();
            let said = Report::hear(&mut ours).unwrap().unwrap();
            match expected {
                Report::Ready => assert!(matches!(said, Report::Failed { .. }), "{said:?}"),
                expected => assert_eq!(said, expected),
            }
            gate.join().unwrap().ok();
        }
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
