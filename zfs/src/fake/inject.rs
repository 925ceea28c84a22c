//! Faults on demand: the n-th call of a kind fails, hangs until its limits end it, or takes effect and fails
//! all the same (a lost reply, as when the tool is killed after its ioctl).

use std::fmt;
use std::time::{Duration, Instant};

use cryopod_command::Stop;

use super::Fake;
use crate::error::Op;
use crate::{Error, Limits};

/// What happens instead of, or besides, the call.
pub enum Fault {
    /// Nothing is done and this is the error.
    Fail(Box<dyn Fn(Op) -> Error + Send>),
    /// Nothing is done and the call blocks until its limits end it.
    Hang,
    /// The call is done and yet `Error::Unknown` comes back.
    LoseReply,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail(_) => "Fail",
            Self::Hang => "Hang",
            Self::LoseReply => "LoseReply",
        })
    }
}

#[derive(Debug)]
struct Planned {
    verb: Option<&'static str>,
    skip: usize,
    fault: Fault,
}

/// Planned faults and the calls made so far.
#[derive(Debug, Default)]
pub(super) struct Injector {
    planned: Vec<Planned>,
    calls: Vec<String>,
}

impl Injector {
    pub(super) fn note(&mut self, op: &Op) -> Option<Fault> {
        self.calls.push(op.to_string());
        let index =
            self.planned.iter().position(|planned| planned.verb.is_none_or(|verb| verb == op.verb))?;
        let planned = self.planned.get_mut(index)?;
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        Some(self.planned.remove(index).fault)
    }
}

impl Fake {
    /// Plans a fault for the call after the next `skip` ones with that verb (as in `Op`: "snapshot",
    /// "destroy", ..; None is any call). Each fault happens once; several are met in the order planned.
    pub fn inject(&self, verb: Option<&'static str>, skip: usize, fault: Fault) {
        self.lock_injector().planned.push(Planned { verb, skip, fault });
    }

    /// The calls made so far as "verb name", those that failed included.
    pub fn calls(&self) -> Vec<String> {
        self.lock_injector().calls.clone()
    }
}

/// Blocks until the limits end the call; without limits, for ever.
pub(super) fn hang(op: Op, limits: &Limits) -> Error {
    let started = Instant::now();
    loop {
        if let Err(stop) = limits.check() {
            return stopped(op, stop, started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn stopped(op: Op, stop: Stop, after: Duration) -> Error {
    match stop {
        Stop::Deadline => Error::Deadline { op, after, lingering: false },
        Stop::Cancelled => Error::Cancelled { op },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, DatasetName, Health, MountHolder, Properties, Zfs};

    fn fake() -> (Fake, DatasetName) {
        let fake = Fake::new(&["tank"]).unwrap();
        let name: DatasetName = "tank/a".parse().unwrap();
        create(&fake, &name).unwrap();
        (fake, name)
    }

    fn create(fake: &Fake, name: &DatasetName) -> Result<(), Error> {
        fake.create(&crate::CreateRequest::filesystem(name, Properties::new()), &Limits::none())
    }

    fn snapshot(fake: &Fake, name: &DatasetName, leaf: &str) -> Result<(), Error> {
        fake.snapshot_set(&[name.snapshot(leaf).unwrap()], &Properties::new(), &Limits::none())
    }

    #[test]
    fn the_call_that_was_planned_fails_and_no_other() {
        let (fake, name) = fake();
        fake.inject(Some("snapshot"), 1, Fault::Fail(Box::new(|op| Error::NoSpace { op, quota: false })));
        snapshot(&fake, &name, "one").unwrap();
        let error = snapshot(&fake, &name, "two").unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(fake.snapshot(&name.snapshot("two").unwrap(), &Limits::none()).unwrap().is_none());
        snapshot(&fake, &name, "two").unwrap();
        let calls = fake.calls();
        assert_eq!(calls.iter().filter(|call| *call == "snapshot tank/a@two").count(), 2, "{calls:?}");
    }

    #[test]
    fn a_lost_reply_took_effect() {
        let (fake, name) = fake();
        fake.inject(None, 0, Fault::LoseReply);
        assert!(matches!(snapshot(&fake, &name, "s").unwrap_err(), Error::Unknown { .. }));
        assert!(fake.snapshot(&name.snapshot("s").unwrap(), &Limits::none()).unwrap().is_some());
    }

    #[test]
    fn a_hanging_call_ends_with_its_limits() {
        let (fake, name) = fake();
        fake.inject(Some("destroy"), 0, Fault::Hang);
        let error = fake.destroy(&name, false, &Limits::within(Duration::from_millis(50))).unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        fake.destroy(&name, false, &Limits::none()).unwrap();
    }

    #[test]
    fn pools_can_be_full_suspended_read_only_and_away() {
        let (fake, name) = fake();
        let pool = name.pool();
        let kind = |result: Result<(), Error>| result.unwrap_err().kind();
        fake.set_pool_size(&pool, Bytes(1));
        assert_eq!(kind(snapshot(&fake, &name, "s")), "no-space");
        fake.set_pool_size(&pool, Bytes(1 << 30));
        fake.suspend(&pool, true);
        assert_eq!(kind(snapshot(&fake, &name, "s")), "pool-suspended");
        assert_eq!(fake.pool_status(&pool, &Limits::none()).unwrap().health, Health::Suspended);
        fake.suspend(&pool, false);
        fake.set_read_only(&pool, true);
        assert_eq!(kind(snapshot(&fake, &name, "s")), "read-only");
        fake.set_read_only(&pool, false);
        fake.set_imported(&pool, false);
        assert_eq!(kind(snapshot(&fake, &name, "s")), "pool-missing");
        assert_eq!(fake.dataset(&name, &Limits::none()).unwrap_err().kind(), "pool-missing");
        fake.set_imported(&pool, true);
        snapshot(&fake, &name, "s").unwrap();
    }

    #[test]
    fn a_pinned_dataset_is_busy_and_says_by_whom() {
        let (fake, name) = fake();
        let holder =
            MountHolder { pid: 7, process: "leaky".to_owned(), mount_point: "/proc/7/root/x".to_owned() };
        fake.pin(&name, holder);
        let error = fake.destroy(&name, true, &Limits::none()).unwrap_err();
        assert!(error.is_busy() && error.to_string().contains("pid 7 leaky"), "{error}");
        fake.unpin(&name);
        fake.destroy(&name, true, &Limits::none()).unwrap();
    }
}
