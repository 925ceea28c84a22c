//! `cryopod exec`: a further process in a standalone container, with our streams or a terminal; in a container of a
//! running pod, its shim runs it ([`super::pod::exec`]).
//!
//! While one runs, a checkpoint with memory is refused: CRIU would not find it among the children of init.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cryopod_runtime::backend::{Backend, ExecRequest, Stdio};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::lifecycle::in_status;
use super::pod;
use crate::args::ExecArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::standalone::bundle::Bundle;
use crate::standalone::console::ConsoleSocket;
use crate::standalone::leftovers;
use crate::standalone::session::reap;
use crate::standalone::state::Status;
use crate::standalone::stdio::{Ends, Pumps, pipes};
use crate::sys;

/// Until the process runs.
const BEGIN: Duration = Duration::from_secs(60);

/// Runs the process; returns its code.
pub(crate) fn run(context: &Context, args: &ExecArgs) -> Result<u8, Error> {
    if let Some(target) = pod::target(context, &args.id, args.container.as_deref())? {
        return pod::exec::exec(context, &target, args);
    }
    let (_, state) = in_status(context, &args.id, "exec", &[Status::Running])?;
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| Error::System { action: "become a subreaper", source: errno.into() })?;
    let bundle = Bundle::open(&state.bundle)?;
    let process = process(bundle.process, args);
    let backend = context.backend(Some(&state.runtime))?;
    let limits = context.signals.limits(BEGIN);
    let exec_id = exec_id();
    let request = |stdio| ExecRequest {
        id: &args.id,
        exec_id: &exec_id,
        process: &process,
        bundle: &state.bundle,
        stdio,
    };
    if args.detach {
        let stdio = Stdio::Pipes { stdin: None, stdout: None, stderr: None };
        let pid = backend.exec(request(stdio), &limits)?;
        context.output.result(&json!({ "id": args.id, "pid": pid }), |_| pid.to_string())?;
        return Ok(exit::OK);
    }
    let (pid, pumps, terminal) = if args.tty {
        let socket = ConsoleSocket::listen(&context.root)?;
        let pid = backend.exec(request(socket.stdio()), &limits)?;
        let master = socket.receive()?;
        (pid, Pumps::terminal(&master, &Ends::Ours)?, Some(master))
    } else {
        let (stdio, pumps) = pipes(&Ends::Ours)?;
        (backend.exec(request(stdio), &limits)?, pumps, None)
    };
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    context.signals.forward_to(pid, terminal)?;
    let code = reap(pid, &context.signals)?;
    pumps.drain(&context.signals.cancel());
    Ok(code)
}

/// The container's own process with another command, and what the options change.
pub(super) fn process(mut process: Value, args: &ExecArgs) -> Value {
    let Some(fields) = process.as_object_mut() else { return process };
    fields.insert("args".into(), json!(args.command));
    fields.insert("terminal".into(), json!(args.tty));
    // Its own console size would be the container's.
    fields.remove("consoleSize");
    // From the start on: a change that is told later comes too late for a program that asks at once.
    if args.tty
        && let Ok(size) = sys::window_size(std::io::stdout().as_fd())
        && size.ws_row > 0
    {
        fields.insert("consoleSize".into(), json!({ "height": size.ws_row, "width": size.ws_col }));
    }
    if let Some(cwd) = &args.cwd {
        fields.insert("cwd".into(), json!(cwd));
    }
    if let Some((uid, gid)) = args.user {
        fields.insert("user".into(), json!({ "uid": uid, "gid": gid.unwrap_or(uid) }));
    }
    let mut env: Vec<String> = match fields.get("env") {
        Some(Value::Array(env)) => env.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    for (name, value) in &args.env {
        let prefix = format!("{name}=");
        env.retain(|variable| !variable.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    }
    if args.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    fields.insert("env".into(), json!(env));
    process
}

/// Unique in the container. A detached process outlives us, so that our PID may come again while its id is taken.
pub(super) fn exec_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    leftovers::name(leftovers::STREAMS, &NEXT.fetch_add(1, Ordering::Relaxed).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ExecArgs {
        ExecArgs {
            id: "web".into(),
            container: None,
            tty: false,
            env: vec![("A".into(), "new".into())],
            cwd: None,
            user: None,
            detach: false,
            command: vec!["ls".into(), "-l".into()],
        }
    }

    #[test]
    fn the_process_inherits_what_the_options_do_not_change() {
        let container = json!({
            "args": ["init"], "cwd": "/srv", "user": { "uid": 5, "gid": 6 }, "terminal": true,
            "env": ["PATH=/bin", "A=old", "AB=kept"], "noNewPrivileges": true
        });
        let made = process(container, &args());
        assert_eq!(
            made,
            json!({
                "args": ["ls", "-l"], "cwd": "/srv", "user": { "uid": 5, "gid": 6 }, "terminal": false,
                "env": ["PATH=/bin", "AB=kept", "A=new"], "noNewPrivileges": true
            })
        );
    }

    #[test]
    fn an_id_differs_even_if_pid_and_count_come_again() {
        let moment = |id: String| id.split('-').nth(2).map(str::to_owned);
        let first = moment(exec_id());
        std::thread::sleep(Duration::from_millis(1));
        assert!(first.is_some() && first != moment(exec_id()));
    }

    #[test]
    fn a_user_without_group_gets_the_group_of_that_number() {
        let made = process(json!({}), &ExecArgs { user: Some((7, None)), tty: true, ..args() });
        assert_eq!(made["user"], json!({ "uid": 7, "gid": 7 }));
        assert_eq!(made["env"], json!(["A=new", "TERM=xterm"]));
    }
}
