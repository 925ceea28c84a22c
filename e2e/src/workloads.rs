//! The programs that are frozen and brought back. Each checks itself with every tick: what its memory says against
//! what the kernel object under test (file, pipe, lock, connection …) holds.

use serde_json::json;

use crate::crictl::{Container, Pod, Spec};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};
use crate::ticks;
use std::time::Duration;

const PRELUDE: &str = include_str!("workloads/prelude.py");
const IMAGE: &str = "localhost/workloads:1";
const PATIENCE: Duration = Duration::from_secs(30);

/// One row of the matrix.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Its name in the table of docs/reference/workloads.md.
    pub name: &'static str,
    /// The container.
    pub spec: fn() -> Spec,
    /// Options of `cryopod checkpoint`.
    pub options: &'static [&'static str],
    /// Asked of the running container before, and of the restored one after; `Some` is what was seen before.
    pub probe: fn(&Pod, &Container, Option<u64>) -> Result<u64, Failure>,
}

/// Every workload of the matrix.
pub const ALL: &[Workload] = &[
    plain("counter", || Spec::counter("counter")),
    plain("threads-pipe", || python("threads", include_str!("workloads/threads.py"))),
    plain("unlinked-file", || python("unlinked", include_str!("workloads/unlinked.py"))),
    plain("append-log", || python("append", include_str!("workloads/append.py"))),
    plain("shared-mapping", || python("mapping", include_str!("workloads/mapping.py"))),
    plain("file-locks", || python("locks", include_str!("workloads/locks.py"))),
    plain("inotify", || python("inotify", include_str!("workloads/inotify.py"))),
    plain("sqlite", || python("sqlite", include_str!("workloads/sqlite.py"))),
    Workload { probe: ask_redis, ..plain("redis", redis) },
    Workload { probe: ask_nginx, ..plain("nginx", nginx) },
    Workload { probe: ask_http, ..plain("http", || python("http", include_str!("workloads/http.py"))) },
    plain("tcp-keep", || tcp("keep")),
    Workload { options: &["--tcp", "close"], probe: reconnected, ..plain("tcp-close", || tcp("close")) },
];

const fn plain(name: &'static str, spec: fn() -> Spec) -> Workload {
    Workload { name, spec, options: &[], probe: |_, _, _| Ok(0) }
}

/// A python program after the common prelude.
pub fn python(name: &str, program: &str) -> Spec {
    let program = format!("{PRELUDE}\n{program}");
    let command = ["python3", "-u", "-c", &program].map(str::to_owned).to_vec();
    Spec { name: name.into(), image: IMAGE.into(), command, extra: json!({}) }
}

fn in_shell(name: &str, script: &str, args: &[&str]) -> Spec {
    let mut spec = Spec::sh(name, script);
    spec.image = IMAGE.into();
    spec.command.push(name.to_owned());
    spec.command.extend(args.iter().map(|arg| (*arg).to_owned()));
    spec
}

fn tcp(mode: &str) -> Spec {
    python("tcp", include_str!("workloads/tcp.py")).with(&json!({"envs": [{"key": "TCP", "value": mode}]}))
}

fn redis() -> Spec {
    let client = format!("{PRELUDE}\n{}", include_str!("workloads/redis.py"));
    in_shell(
        "redis",
        "mkdir -p /data; redis-server --dir /data --appendonly yes --save '' --bind 0.0.0.0 --protected-mode no & \
         exec python3 -u -c \"$1\"",
        &[&client],
    )
}

fn nginx() -> Spec {
    in_shell("nginx", &format!("printf '%s' \"$1\" > /etc/nginx/nginx.conf; nginx; {}", counter()), &[NGINX])
}

const NGINX: &str = "user root; worker_processes 1; error_log stderr; pid /run/nginx.pid;
events {} http { access_log off; server { listen 80;
  location / { return 200 'served\\n'; } location /status { stub_status; } } }";

/// The loop of [`Spec::counter`], for a shell that has other things to do before.
fn counter() -> String {
    Spec::counter("counter").command.pop().unwrap_or_default()
}

/// A client outside of the pod finds redis at the pod's present address, and the count is where the memory is.
fn ask_redis(pod: &Pod, container: &Container, before: Option<u64>) -> Result<u64, Failure> {
    let address = pod.address()?;
    let text = eventually("redis answers", PATIENCE, || {
        Ok(shell::sh(&format!("printf 'GET k\\r\\n' | nc -w 2 -q 1 {address} 6379"))
            .ok()
            .filter(|done| done.stdout.starts_with('$')))
    })?;
    let count = text.stdout.lines().nth(1).and_then(|line| line.trim().parse().ok());
    let count: u64 = count.ok_or_else(|| format!("redis said {:?}", text.stdout))?;
    let ticks = ticks::read(container)?.last;
    ensure(ticks + 1 >= count && count >= before.unwrap_or(0), || {
        format!("redis counts {count}, its client {ticks}; before it was {before:?}")
    })?;
    Ok(count)
}

/// nginx serves, and its own count of requests (in shared memory of its processes) goes on by exactly one.
fn ask_nginx(pod: &Pod, _: &Container, before: Option<u64>) -> Result<u64, Failure> {
    let address = pod.address()?;
    let page = eventually("nginx answers", PATIENCE, || {
        let done = shell::sh(&format!("curl -s -m 5 http://{address}/status"))?;
        Ok((done.code == 0).then_some(done.stdout))
    })?;
    let requests = page.lines().nth(2).and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
    let requests: u64 = requests.ok_or_else(|| format!("nginx said {page:?}"))?;
    next("nginx", requests, before)
}

/// The server's count of visitors goes on by exactly one, in memory and in its file.
fn ask_http(pod: &Pod, container: &Container, before: Option<u64>) -> Result<u64, Failure> {
    let address = pod.address()?;
    let answer = eventually("the web server answers", PATIENCE, || {
        let done = shell::sh(&format!("curl -s -m 5 http://{address}:8080/"))?;
        Ok((done.code == 0).then_some(done.stdout))
    })?;
    let hits = answer.split(' ').next().and_then(|word| word.parse().ok());
    let hits: u64 = hits.ok_or_else(|| format!("the web server said {answer:?}"))?;
    let written = container.file("/data/hits")?.lines().count() as u64;
    ensure(written == hits, || format!("{hits} visitors in memory, {written} in the file"))?;
    next("the web server", hits, before)
}

fn next(who: &str, count: u64, before: Option<u64>) -> Result<u64, Failure> {
    if let Some(before) = before {
        ensure(count == before + 1, || format!("{who} counts {count} after {before}"))?;
    }
    Ok(count)
}

/// The connection was closed by the restore, once, and made again by the client.
fn reconnected(_: &Pod, container: &Container, before: Option<u64>) -> Result<u64, Failure> {
    if before.is_some() {
        let times = container.file("/data/reconnects")?;
        ensure(times.trim() == "1", || format!("the client connected again {times} times"))?;
    }
    Ok(0)
}
