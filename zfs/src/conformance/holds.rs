//! Cases about holds.

use super::{Bench, Case, Failure, ensure, refused};
use crate::{Hold, HoldTag};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_held_snapshot_stays_and_the_error_says_who", run: held },
    Case { name: "a_deferred_snapshot_goes_with_its_last_hold", run: deferred },
    Case { name: "holds_are_listed_and_counted", run: listed },
    Case { name: "a_hold_is_put_on_all_or_none", run: all_or_none },
    Case { name: "hold_errors_name_what_is_wrong", run: errors },
    Case { name: "a_temporary_hold_ends_with_its_value", run: temporary },
    Case { name: "a_recursive_destroy_respects_holds", run: recursive },
];

fn tag(text: &str) -> Result<HoldTag, Failure> {
    Ok(text.parse()?)
}

fn held(b: &Bench<'_>) -> Result<(), Failure> {
    let set = [b.snapshot(&b.filesystem("a")?, "s")?];
    b.zfs.hold(&set, &tag("cryopod-job-7")?, &b.limits)?;
    let error = refused(b.zfs.destroy_snapshots(&set, false, &b.limits), "busy")?;
    ensure!(error.to_string().contains("cryopod-job-7"), "the error does not name the hold: {error}");
    ensure!(b.snapshot_exists(&set[0])?, "it is gone");
    b.zfs.release(&set, &tag("cryopod-job-7")?, &b.limits)?;
    Ok(b.zfs.destroy_snapshots(&set, false, &b.limits)?)
}

fn deferred(b: &Bench<'_>) -> Result<(), Failure> {
    let set = [b.snapshot(&b.filesystem("a")?, "s")?];
    b.zfs.hold(&set, &tag("one")?, &b.limits)?;
    b.zfs.hold(&set, &tag("two")?, &b.limits)?;
    b.zfs.destroy_snapshots(&set, true, &b.limits)?;
    ensure!(b.get_snapshot(&set[0])?.defer_destroy, "it is not marked");
    b.zfs.release(&set, &tag("one")?, &b.limits)?;
    ensure!(b.snapshot_exists(&set[0])?, "it went with the first of two holds");
    b.zfs.release(&set, &tag("two")?, &b.limits)?;
    ensure!(!b.snapshot_exists(&set[0])?, "it did not go with its last hold");
    Ok(())
}

fn listed(b: &Bench<'_>) -> Result<(), Failure> {
    let snapshot = b.snapshot(&b.filesystem("a")?, "s")?;
    ensure!(b.zfs.holds(&snapshot, &b.limits)?.is_empty(), "a new snapshot is held");
    for text in ["b", "a"] {
        b.zfs.hold(std::slice::from_ref(&snapshot), &tag(text)?, &b.limits)?;
    }
    let mut holds = b.zfs.holds(&snapshot, &b.limits)?;
    holds.sort();
    let expected = ["a", "b"].map(tag).into_iter().collect::<Result<Vec<_>, _>>()?;
    let expected: Vec<Hold> =
        expected.into_iter().map(|tag| Hold { snapshot: snapshot.clone(), tag }).collect();
    ensure!(holds == expected, "{holds:?}");
    ensure!(b.get_snapshot(&snapshot)?.userrefs == 2, "the count is wrong");
    Ok(())
}

fn all_or_none(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let (one, other) = (b.snapshot(&a, "s")?, b.snapshot(&b.filesystem("b")?, "s")?);
    let missing = [one.clone(), a.snapshot("none")?];
    refused(b.zfs.hold(&missing, &tag("t")?, &b.limits), "not-found")?;
    ensure!(b.zfs.holds(&one, &b.limits)?.is_empty(), "one of the two was held");
    let both = [one, other];
    b.zfs.hold(&both, &tag("t")?, &b.limits)?;
    for snapshot in &both {
        ensure!(b.zfs.holds(snapshot, &b.limits)?.len() == 1, "{snapshot} is not held");
    }
    b.zfs.release(&both, &tag("t")?, &b.limits)?;
    for snapshot in &both {
        ensure!(b.zfs.holds(snapshot, &b.limits)?.is_empty(), "{snapshot} is still held");
    }
    Ok(())
}

fn errors(b: &Bench<'_>) -> Result<(), Failure> {
    let set = [b.snapshot(&b.filesystem("a")?, "s")?];
    refused(b.zfs.release(&set, &tag("t")?, &b.limits), "hold-missing")?;
    b.zfs.hold(&set, &tag("t")?, &b.limits)?;
    refused(b.zfs.hold(&set, &tag("t")?, &b.limits), "hold-exists")?;
    let missing = [b.root.snapshot("none")?];
    refused(b.zfs.release(&missing, &tag("t")?, &b.limits), "not-found")?;
    refused(b.zfs.holds(&missing[0], &b.limits), "not-found")?;
    Ok(())
}

fn temporary(b: &Bench<'_>) -> Result<(), Failure> {
    let set = [b.snapshot(&b.filesystem("a")?, "s")?];
    let hold = b.zfs.hold_while(&set, &tag("t")?, &b.limits)?;
    refused(b.zfs.destroy_snapshots(&set, false, &b.limits), "busy")?;
    drop(hold);
    ensure!(b.zfs.holds(&set[0], &b.limits)?.is_empty(), "the hold outlived its value");
    let missing = [b.root.snapshot("none")?];
    refused(b.zfs.hold_while(&missing, &tag("t")?, &b.limits), "not-found")?;
    Ok(b.zfs.destroy_snapshots(&set, false, &b.limits)?)
}

fn recursive(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let set = [b.snapshot(&a, "s")?];
    b.zfs.hold(&set, &tag("keeper")?, &b.limits)?;
    let error = refused(b.zfs.destroy(&a, true, &b.limits), "busy")?;
    ensure!(error.to_string().contains("keeper"), "the error does not name the hold: {error}");
    ensure!(b.snapshot_exists(&set[0])?, "it is gone");
    b.zfs.release(&set, &tag("keeper")?, &b.limits)?;
    Ok(b.zfs.destroy(&a, true, &b.limits)?)
}
