//! Signals as people write them: `TERM`, `SIGUSR1`, `RTMIN+3`, `RTMAX-1`, `9`.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::error::Error;

/// Real-time signals as programs see them: glibc keeps 32 and 33 for itself (signal(7)).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal.
pub(super) fn parse(name: &str) -> Result<i32, Error> {
    let bad = || Error::BadSignal { name: name.chars().take(40).flat_map(char::escape_debug).collect() };
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(short) {
        return if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    Signal::from_str(&format!("SIG{short}")).map(|signal| signal as i32).map_err(|_| bad())
}

fn real_time(name: &str) -> Option<i32> {
    let (base, sign, rest) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, 1, rest),
        (_, Some(rest)) => (RTMAX, -1, rest),
        _ => return None,
    };
    match rest.strip_prefix(if sign > 0 { '+' } else { '-' }) {
        None if rest.is_empty() => Some(base),
        None => None,
        Some(offset) => Some(base + sign * offset.parse::<u8>().ok().map(i32::from)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_signal_are_read() {
        let cases = [
            ("TERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("64", 64),
        ];
        for (name, number) in cases {
            assert_eq!(parse(name).unwrap(), number, "{name}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "SIG",
            "SIGNOTHING",
            "RTMIN+31",
            "RTMIN+",
            "RTMINX",
            "RTMAX+1",
            "SIGRTMIN-1",
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
    }
}
