//! `critest`: the validation suite of cri-tools, against our handlers in both sandboxer modes.
//!
//! The rule: no test does worse with ours than with containerd's own shim on the same node (see [`judge`]). The fixed
//! part (`e2e/critest/default.txt`; with a pause container those of `default-pause.txt`, where the sandbox matters, and with LXC
//! those of `default-lxc.txt`, where the runtime matters) is
//! compared with the committed results of containerd's shim (`e2e/critest/expected.json`); `--full` runs everything and containerd's shim too, test by test, and leaves the
//! table and new expected results in [`book::RESULTS`].

mod book;
mod images;
mod judge;
mod run;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Trial};

use self::book::{Book, Entry, Expected};
use self::judge::{Outcome, REPEATS, Standing};
use self::run::Critest;
use crate::shell::{self, eventually};
use crate::suite::{Failure, Suite, ensure, test};

const STOCK: &str = "runc";
const OURS: &[&str] = &["cryopod", "cryopod-pause", "cryopod-lxc"];
/// What every run has, by handler.
const DEFAULT: &[(&str, &str)] = &[
    ("cryopod", include_str!("../../critest/default.txt")),
    ("cryopod-pause", include_str!("../../critest/default-pause.txt")),
    ("cryopod-lxc", include_str!("../../critest/default-lxc.txt")),
];
const WORK: &str = "/run/cryopod-e2e/critest";

/// What the tests of one run share.
struct Shared {
    full: bool,
    ready: OnceLock<Result<Ready, Failure>>,
    book: Mutex<Book>,
    /// What containerd's own shim left behind, which is not ours to answer for.
    stock_left: Mutex<Vec<String>>,
}

struct Ready {
    critest: Critest,
    expected: Expected,
    before: Traces,
}

/// What pods leave on a node while they are there.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    shims: String,
    mounts: String,
    cgroups: String,
}

/// The tests.
pub fn suite(full: bool) -> Suite {
    let names = match run::list() {
        Ok(names) => names,
        Err(e) => return broken(e),
    };
    let mut chosen = Vec::new();
    for (handler, list) in DEFAULT {
        for name in list.lines().filter(|line| !line.is_empty()) {
            if !names.iter().any(|known| known == name) {
                return broken(format!("e2e/critest: critest has no test {name:?}"));
            }
            chosen.push((*handler, name));
        }
    }
    let book = if full { Book::resume() } else { Book::default() };
    let shared = Arc::new(Shared {
        full,
        ready: OnceLock::new(),
        book: Mutex::new(book),
        stock_left: Mutex::default(),
    });
    let (mut tests, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        let handlers = full.then_some(&STOCK).into_iter().chain(OURS);
        for handler in handlers {
            let (shared, name, handler) = (Arc::clone(&shared), name.clone(), *handler);
            let title = format!("{handler}::{}", book::shorten(&name));
            if full || chosen.contains(&(handler, name.as_str())) {
                tests.push(Trial::ignorable_test(title, move || Ok(shared.one(&name, handler)?)));
            } else {
                left_out.push(title);
            }
        }
    }
    tests.push(test("nothing_is_left_of_the_pods", move || shared.traces_are_gone()));
    if !full {
        left_out.push(format!("all of them with the handler {STOCK}, for the table"));
    }
    Suite { tests, left_out }
}

fn broken(why: Failure) -> Suite {
    Suite { tests: vec![test("critest_lists_its_tests", move || Err(why))], left_out: Vec::new() }
}

impl Shared {
    fn ready(&self) -> Result<&Ready, Failure> {
        let ready = self.ready.get_or_init(|| {
            let work = PathBuf::from(WORK);
            std::fs::create_dir_all(&work).map_err(|e| format!("{WORK}: {e}"))?;
            restart_containerd()?;
            let digests = images::serve(&work)?;
            let critest = Critest::prepare(&work, &digests)?;
            Ok(Ready { critest, expected: Expected::load()?, before: traces()? })
        });
        ready.as_ref().map_err(|e| format!("preparing critest: {e}"))
    }

    /// Runs one test with one handler and judges it.
    fn one(&self, name: &str, handler: &'static str) -> Result<Completion, Failure> {
        let ready = self.ready()?;
        let already = traces()?.cgroups;
        let start = Instant::now();
        let mut calls = vec![ready.critest.run(name, handler)?];
        let seconds = start.elapsed().as_secs_f64();
        if matches!(calls[0], Outcome::Failed(_)) {
            remove_pods();
            for _ in 0..REPEATS {
                calls.push(ready.critest.run(name, handler)?);
                if matches!(calls.last(), Some(Outcome::Failed(_))) {
                    remove_pods();
                }
            }
        }
        if handler == STOCK {
            let cgroups = traces()?.cgroups;
            let new = cgroups.lines().filter(|line| !already.contains(line)).map(str::to_owned);
            self.stock_left.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        }
        let standing = judge::standing(&calls);
        let note = match &calls[0] {
            Outcome::Passed => String::new(),
            Outcome::Skipped(why) | Outcome::Failed(why) => why.clone(),
        };
        let stock = {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.enter(name, handler, Entry { standing, seconds, note: note.clone() });
            if self.full {
                book.write(STOCK, &[&[STOCK], OURS].concat())?;
            }
            // A filter may have left the other handler out of a whole run.
            book.standing(name, STOCK).or_else(|| ready.expected.stock.get(name).copied())
        };
        // With containerd's own shim there is nothing to be judged; a failure is a result. Where its result is not
        // known (expected.json is from an incomplete run), ours must at least not fail.
        let stock = stock.unwrap_or(Standing::Skipped);
        let acceptable = handler == STOCK || judge::acceptable(stock, standing);
        if !acceptable {
            return Err(format!("{} where {STOCK} {stock:?}: {note}", book::word(standing)));
        }
        Ok(match standing {
            Standing::Passed => Completion::Completed,
            _ => Completion::ignored_with(format!("{}: {}", book::word(standing), note.trim())),
        })
    }

    fn traces_are_gone(&self) -> Result<(), Failure> {
        let before = &self.ready()?.before;
        let mut now = traces()?;
        let gone = eventually("all traces are gone", Duration::from_secs(30), || {
            now = traces()?;
            let stock = self.stock_left.lock().unwrap_or_else(PoisonError::into_inner).clone();
            now.cgroups =
                now.cgroups.lines().filter(|l| !stock.iter().any(|s| s == l)).collect::<Vec<_>>().join("\n");
            Ok((now == *before).then_some(()))
        });
        ensure(gone.is_ok(), || format!("before: {before:#?}\nnow: {now:#?}"))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(Ok(_)) = self.ready.get()
            && let Err(e) = images::withdraw()
        {
            eprintln!("clean-up: {e}");
        }
    }
}

/// containerd asks each runtime for its features once, when it starts: a shim that was installed since has none, and
/// tests of user namespaces and recursive read-only mounts would leave themselves out.
fn restart_containerd() -> Result<(), Failure> {
    shell::ok("systemctl restart containerd")?;
    eventually("containerd answers", Duration::from_secs(120), || {
        Ok((shell::sh("crictl --timeout 10s info")?.code == 0).then_some(()))
    })
}

/// Removes the pods that a failed test left, so that the next one does not meet their host ports.
fn remove_pods() {
    // What cannot be removed shows in the last test.
    if let Err(e) = try_remove_pods() {
        eprintln!("clean-up: {e}");
    }
}

fn try_remove_pods() -> Result<(), Failure> {
    let text = shell::exec_ok(&["crictl", "--timeout", "60s", "pods", "-o", "json"])?;
    let pods: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("crictl pods: {e}"))?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        if let (true, Some(id)) = (namespace.starts_with("cri-test-namespace"), pod["id"].as_str()) {
            shell::exec_ok(&["crictl", "--timeout", "60s", "rmp", "--force", id])?;
        }
    }
    Ok(())
}

fn traces() -> Result<Traces, Failure> {
    Ok(Traces {
        shims: shell::ok("pgrep -a containerd-shim || true")?,
        mounts: shell::ok("awk '$2 ~ \"^/run/containerd/\" { print $2 }' /proc/mounts")?,
        cgroups: shell::ok(
            "find /sys/fs/cgroup/k8s.io -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort || true",
        )?,
    })
}
