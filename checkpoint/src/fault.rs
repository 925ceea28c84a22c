//! Fault injection at named steps, for the sweep that tries to break the invariants I1–I6.
//!
//! A step asks for the file `<faults directory>/<step>`; without the directory that is one failed `stat`. The file
//! says what happens: `error`, `kill` (SIGKILL to this process), `wait` (the step goes on when the file is removed) or
//! `sleep <milliseconds>`; `<step>.reached` appears first. The directory is below /run/cryopod, writable by root only.
//! `runtime` and `shim` call [`step`] with their own prefixes and keep their own lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the files are looked for, unless `CRYOPOD_FAULTS_DIR` says otherwise.
const DIR: &str = "/run/cryopod/faults";
/// A forgotten `wait` must not hold a pod for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// How often a waiting step looks at its file.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Every step of this crate, in the order in which an operation meets it.
pub const STEPS: &[&str] = &[
    "capture.journal",
    "capture.begin",
    "capture.begun",
    "capture.pre-dump",
    "capture.sync",
    "capture.freeze",
    "capture.frozen",
    "capture.dump",
    "capture.snapshot",
    "capture.snapshotted",
    "capture.dumped",
    "capture.thaw",
    "capture.thawed",
    "capture.hash",
    "capture.manifest",
    "capture.commit",
    "capture.committed",
    "settle.base",
    "settle.send",
    "settle.sent",
    "settle.release",
    "settle.settled",
    "adopt.rename",
    "adopt.replace",
    "adopt.adopted",
    "forget.rename",
    "place.journal",
    "place.aside",
    "place.clone",
    "place.cloned",
    "place.volumes",
    "place.clean",
    "delete.mark",
    "delete.move",
    "delete.destroy",
    "import.begin",
    "import.section",
    "import.verify",
    "import.commit",
];

/// The error of a step whose file says `error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault injected at step {step}")]
pub struct Injected {
    /// Name of the step.
    pub step: String,
}

/// Does what the step's file says; nothing when there is none.
pub fn step(name: &str) -> Result<(), Injected> {
    #[cfg(test)]
    test_hook::call(name)?;
    let dir = directory();
    if !dir.is_dir() {
        return Ok(());
    }
    act(&dir, name)
}

fn directory() -> PathBuf {
    std::env::var_os("CRYOPOD_FAULTS_DIR").map_or_else(|| PathBuf::from(DIR), PathBuf::from)
}

fn act(dir: &Path, name: &str) -> Result<(), Injected> {
    let file = dir.join(name);
    let Ok(action) = fs::read_to_string(&file) else { return Ok(()) };
    tracing::warn!(step = name, action = action.trim(), "fault injection");
    let reached = dir.join(format!("{name}.reached"));
    if let Err(error) = fs::write(&reached, b"") {
        tracing::warn!(path = %reached.display(), %error, "cannot say that the step was reached");
    }
    let mut words = action.split_whitespace();
    match (words.next(), words.next()) {
        (Some("kill"), _) => {
            // Nothing runs after this line when it works; when it does not, the step fails instead.
            kill(Pid::this(), Signal::SIGKILL).ok();
            Err(Injected { step: name.to_owned() })
        }
        (Some("wait"), _) => {
            wait_for_removal(&file);
            fs::remove_file(reached).ok();
            Ok(())
        }
        (Some("sleep"), Some(ms)) if ms.parse::<u64>().is_ok() => {
            let ms: u64 = ms.parse().unwrap_or(0);
            thread::sleep(Duration::from_millis(ms).min(LONGEST_WAIT));
            Ok(())
        }
        // A typing error in a fault file must not pass for a step that survived its fault.
        _ => Err(Injected { step: name.to_owned() }),
    }
}

fn wait_for_removal(file: &Path) {
    let end = Instant::now() + LONGEST_WAIT;
    while file.exists() && Instant::now() < end {
        thread::sleep(LOOK_EVERY);
    }
}

/// Faults for the tests of this crate, per thread, since they run in parallel in one process.
#[cfg(test)]
pub(crate) mod test_hook {
    use super::Injected;
    use std::cell::RefCell;

    type Hook = Box<dyn Fn(&str) -> Result<(), Injected>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Removes the hook of this thread when dropped.
    pub(crate) struct Hooked;

    impl Drop for Hooked {
        fn drop(&mut self) {
            HOOK.with(|hook| hook.borrow_mut().take());
        }
    }

    pub(crate) fn set(hook: impl Fn(&str) -> Result<(), Injected> + 'static) -> Hooked {
        HOOK.with(|slot| *slot.borrow_mut() = Some(Box::new(hook)));
        Hooked
    }

    /// The `nth` time (from 0) that `step` is met, it fails.
    pub(crate) fn fail_at(step: &'static str, nth: usize) -> Hooked {
        let seen = std::cell::Cell::new(0);
        set(move |name| {
            if name != step {
                return Ok(());
            }
            seen.set(seen.get() + 1);
            if seen.get() == nth + 1 { Err(Injected { step: name.to_owned() }) } else { Ok(()) }
        })
    }

    /// At `step` the thread stops for ever, as if its process had been killed: nothing of it is cleaned up.
    pub(crate) fn die_at(step: &'static str, died: std::sync::mpsc::Sender<()>) -> Hooked {
        set(move |name| {
            if name == step {
                died.send(()).ok();
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        })
    }

    /// The steps that `work` meets on this thread, each as often as it is met.
    pub(crate) fn met(work: impl FnOnce()) -> Vec<String> {
        let seen = std::rc::Rc::new(RefCell::new(Vec::new()));
        let note = std::rc::Rc::clone(&seen);
        let hooked = set(move |name| {
            note.borrow_mut().push(name.to_owned());
            Ok(())
        });
        work();
        drop(hooked);
        seen.take()
    }

    /// The `nth` step (from 0), whichever it is, fails.
    pub(crate) fn fail_nth(nth: usize) -> Hooked {
        let seen = std::cell::Cell::new(0);
        set(move |name| {
            seen.set(seen.get() + 1);
            if seen.get() == nth + 1 { Err(Injected { step: name.to_owned() }) } else { Ok(()) }
        })
    }

    /// As [`die_at`], at the `nth` step (from 0), whichever it is.
    pub(crate) fn die_nth(nth: usize, died: std::sync::mpsc::Sender<()>) -> Hooked {
        let seen = std::cell::Cell::new(0);
        set(move |_| {
            seen.set(seen.get() + 1);
            if seen.get() == nth + 1 {
                died.send(()).ok();
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        })
    }

    pub(super) fn call(name: &str) -> Result<(), Injected> {
        assert!(
            super::STEPS.contains(&name) || name.starts_with("test."),
            "step {name} is missing in fault::STEPS"
        );
        HOOK.with(|hook| hook.borrow().as_ref().map_or(Ok(()), |hook| hook(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_a_step_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(act(dir.path(), "capture.freeze"), Ok(()));
        assert_eq!(step("capture.freeze"), Ok(()));
    }

    #[test]
    fn a_file_that_says_error_fails_its_step_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("capture.freeze"), "error\n").unwrap();
        let error = act(dir.path(), "capture.freeze").unwrap_err();
        assert_eq!(error.to_string(), "fault injected at step capture.freeze");
        assert_eq!(act(dir.path(), "capture.thaw"), Ok(()));
    }

    #[test]
    fn a_file_with_a_typing_error_fails_its_step() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("capture.freeze"), "erorr").unwrap();
        assert!(act(dir.path(), "capture.freeze").is_err());
    }

    #[test]
    fn a_waiting_step_says_so_and_goes_on_when_its_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("capture.freeze");
        fs::write(&file, "wait").unwrap();
        let at = dir.path().to_owned();
        let waiting = thread::spawn(move || act(&at, "capture.freeze"));
        let reached = dir.path().join("capture.freeze.reached");
        while !reached.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!waiting.is_finished());
        fs::remove_file(&file).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
        assert!(!reached.exists());
    }

    #[test]
    fn the_list_of_steps_has_no_duplicates() {
        let mut steps = STEPS.to_vec();
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps.len(), STEPS.len());
    }
}
