//! When a schedule is due. Pure.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A schedule that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// Not cron's five fields.
    #[error(
        "schedule '{schedule}' cannot be understood: {why}; five fields as in a CronJob, e.g. \"0 3 * * *\""
    )]
    Schedule {
        /// What was written.
        schedule: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such zone.
    #[error(
        "time zone '{zone}' is not known on the node of the leading agent: an IANA name such as Europe/Berlin; the package tzdata has them"
    )]
    Zone {
        /// What was written.
        zone: String,
    },
}

/// The times of a schedule.
#[derive(Debug, Clone)]
pub struct Times {
    cron: Cron,
    zone: TimeZone,
}

impl Times {
    /// Reads cron's five fields or a nickname (@daily), in an IANA zone or UTC.
    ///
    /// # Errors
    /// See [`TimesError`].
    pub fn parse(schedule: &str, zone: Option<&str>) -> Result<Self, TimesError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(schedule.trim()).map_err(|error| TimesError::Schedule {
            schedule: schedule.to_owned(),
            why: error.to_string(),
        })?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(zone) => TimeZone::get(zone).map_err(|_| TimesError::Zone { zone: zone.to_owned() })?,
        };
        Ok(Self { cron, zone })
    }

    /// The last time after `after` and not after `now`, if there is one. Times in between that nobody acted upon are not made
    /// up for one by one: a capture of now is what all of them would give.
    pub fn due(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let last = self.cron.find_previous_occurrence(&now.to_zoned(self.zone.clone()), true).ok()?;
        Some(last.timestamp()).filter(|last| *last > after)
    }

    /// The first time after `now`; None for one that never comes.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&now.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_missed_time_is_due_and_no_earlier_one() {
        let daily = Times::parse("0 3 * * *", None).unwrap();
        let (created, now) = (at("2026-11-01T00:00:00Z"), at("2026-11-04T12:00:00Z"));
        assert_eq!(daily.due(created, now), Some(at("2026-11-04T03:00:00Z")));
        assert_eq!(daily.due(at("2026-11-04T03:00:00Z"), now), None);
        assert_eq!(daily.due(created, at("2026-11-04T03:00:00Z")), Some(at("2026-11-04T03:00:00Z")));
        assert_eq!(daily.next(now), Some(at("2026-11-05T03:00:00Z")));
        assert_eq!(daily.next(at("2026-11-05T03:00:00Z")), Some(at("2026-11-06T03:00:00Z")));
    }

    #[test]
    fn a_zone_moves_the_times_with_its_summer_time() {
        let berlin = Times::parse("30 2 * * *", Some("Europe/Berlin")).unwrap();
        assert_eq!(berlin.next(at("2026-06-01T12:00:00Z")), Some(at("2026-06-02T00:30:00Z")));
        assert_eq!(berlin.next(at("2026-12-01T12:00:00Z")), Some(at("2026-12-02T01:30:00Z")));
        // 2026-03-29 has no 02:30 there.
        let next = berlin.next(at("2026-03-28T12:00:00Z")).unwrap();
        assert!(next < at("2026-03-30T01:00:00Z"), "{next}");
    }

    #[test]
    fn nicknames_are_read_and_nonsense_is_named() {
        assert!(Times::parse("@hourly", None).is_ok());
        for bad in ["", "* * *", "61 * * * *", "0 0 3 * * *", "a b c d e", "@never"] {
            assert!(matches!(Times::parse(bad, None), Err(TimesError::Schedule { .. })), "{bad}");
        }
        assert!(matches!(Times::parse("@daily", Some("Mars/Base")), Err(TimesError::Zone { .. })));
        assert!(matches!(Times::parse("@daily", Some("../../etc/passwd")), Err(TimesError::Zone { .. })));
    }

    #[test]
    fn a_day_that_never_comes_is_never_due() {
        let never = Times::parse("0 0 30 2 *", None).unwrap();
        assert_eq!(never.next(at("2026-11-01T00:00:00Z")), None);
        assert_eq!(never.due(at("2000-01-01T00:00:00Z"), at("2026-11-01T00:00:00Z")), None);
    }

    proptest! {
        #[test]
        fn what_is_due_is_between_and_each_time_is_due_once(
            minute in 0u32..60, step in 1u32..24, start in 1_600_000_000i64..1_900_000_000, late in 0i64..1_000_000,
        ) {
            let times = Times::parse(&format!("{minute} */{step} * * *"), None).unwrap();
            let (after, now) = (Timestamp::from_second(start).unwrap(), Timestamp::from_second(start + late).unwrap());
            if let Some(due) = times.due(after, now) {
                prop_assert!(after < due && due <= now);
                prop_assert_eq!(times.due(due, now), None);
            } else {
                prop_assert!(times.next(after).unwrap() > now);
            }
        }

        #[test]
        fn no_text_makes_it_panic(schedule in ".{0,40}", zone in ".{0,20}") {
            if let Ok(times) = Times::parse(&schedule, Some(&zone)) {
                times.next(Timestamp::UNIX_EPOCH);
            }
        }
    }
}
