//! `oci-validation`: `cryopod-lxc` by itself, as the OCI runtime that others call.
//!
//! The validation programs of opencontainers/runtime-tools run with runc and with `cryopod-lxc`, one after the other, and
//! are judged result by result (see [`judge`]): nothing that passes with runc may fail with ours. A default run has those
//! of [`DEFAULT`]; `--full` has all, and leaves the table of docs/reference in the node (see [`book`]). Then podman
//! and containerd's own shim run containers with it (see [`callers`]).

mod book;
mod callers;
mod judge;
mod run;
mod tap;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libtest_mimic::{Completion, Trial};

use self::book::Book;
use self::judge::Exception;
use self::run::Place;
use crate::leaks;
use crate::suite::{Failure, Suite, test};

const STOCK: &str = "runc";
const OURS: &str = "/usr/local/bin/cryopod-lxc";

/// The programs of every run: each operation, and of the configuration one of each kind.
const DEFAULT: &[&str] = &[
    "create",
    "default",
    "delete",
    "linux_readonly_paths",
    "linux_sysctl",
    "mounts",
    "prestart",
    "process_capabilities",
    "process_user",
    "state",
];

/// What the tests of one run share.
struct Shared {
    full: bool,
    exceptions: Vec<Exception>,
    place: OnceLock<Result<Place, Failure>>,
    book: Mutex<Book>,
}

/// The tests.
pub fn suite(full: bool) -> Suite {
    let (programs, exceptions) = match (run::list(), judge::exceptions()) {
        (Ok(programs), Ok(exceptions)) => (programs, exceptions),
        (Err(e), _) | (_, Err(e)) => return broken(e),
    };
    let named = DEFAULT.iter().copied().chain(exceptions.iter().map(|exception| exception.program.as_str()));
    if let Some(unknown) = named.into_iter().find(|name| !programs.iter().any(|known| known == name)) {
        return broken(format!("{} has no program {unknown:?}", run::PROGRAMS));
    }
    let shared =
        Arc::new(Shared { full, exceptions, place: OnceLock::new(), book: Mutex::new(Book::default()) });
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    for program in programs {
        let title = format!("programs::{program}");
        if full || DEFAULT.contains(&program.as_str()) {
            let shared = Arc::clone(&shared);
            suite.tests.push(Trial::ignorable_test(title, move || Ok(shared.one(&program)?)));
        } else {
            suite.left_out.push(format!("oci-validation {title}"));
        }
    }
    for (name, body) in callers::CASES.iter().copied() {
        suite.tests.push(test(format!("callers::{name}"), move || leaks::checked(body)));
    }
    suite
}

fn broken(why: Failure) -> Suite {
    let test = test("the_validation_programs_are_in_the_node", move || Err(why));
    Suite { tests: vec![test], left_out: Vec::new() }
}

impl Shared {
    /// Compares one program; says at once what is wrong, as [`test`] does.
    fn one(&self, program: &str) -> Result<Completion, Failure> {
        self.compare(program).inspect_err(|why| println!("\n{program}: {why}"))
    }

    /// Runs it with both runtimes and judges it.
    fn compare(&self, program: &str) -> Result<Completion, Failure> {
        let place = self.place.get_or_init(Place::prepare).as_ref().map_err(|e| format!("preparing: {e}"))?;
        let stock = place.run(program, STOCK)?;
        let comparable = !run::is_about_cgroups(program) || judge::binds(&stock);
        let ours = if comparable { Some(place.run(program, OURS)?) } else { None };
        let outcome = match &ours {
            Some(ours) => {
                judge::judge(program, &stock, ours, &self.exceptions).map(|()| Completion::Completed)
            }
            None => Ok(Completion::ignored_with(format!("nothing of it passes with {STOCK}"))),
        };
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.enter(program, stock, ours);
        if self.full {
            book.write(&self.exceptions)?;
        }
        outcome
    }
}
