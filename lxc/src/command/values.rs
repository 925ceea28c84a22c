//! Words of the command line that are more than text: signals, times, users.

/// A signal by number, or by name with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signal(pub(super) i32);

/// A time with its unit.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is no time such as 5s, 500ms or 2m");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    milliseconds.map(std::time::Duration::from_millis).ok_or_else(wrong)
}

/// UID, or UID and GID.
pub(super) fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

/// Highest signal number of Linux.
const LAST: i32 = 64;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Its number.
pub(super) fn signal(text: &str) -> Result<Signal, String> {
    let unknown = || format!("{text:?} is no signal");
    if let Ok(number) = text.parse::<i32>() {
        // 0 asks whether it is there.
        return (0..=LAST).contains(&number).then_some(Signal(number)).ok_or_else(unknown);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // As the C library numbers them: it keeps the first two for itself.
    let (first, last) = (34, LAST);
    let beyond = |offset: &str, sign| match offset.parse::<i32>() {
        Ok(offset) => Some(sign * offset),
        Err(_) => offset.is_empty().then_some(0),
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => beyond(rest.strip_prefix('+').unwrap_or(rest), 1).map(|offset| first + offset),
        (_, Some(rest)) => beyond(rest.strip_prefix('-').unwrap_or(rest), -1).map(|offset| last + offset),
        _ => None,
    };
    if let Some(number) = real_time.filter(|number| (first..=last).contains(number)) {
        return Ok(Signal(number));
    }
    let position = NAMES.iter().position(|known| *known == name).ok_or_else(unknown)?;
    i32::try_from(position + 1).map(Signal).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigwinch", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(signal(text), Ok(Signal(number)), "{text}");
        }
        for text in ["65", "-1", "SIG", "NOPE", "RTMIN+40", ""] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("5s").map(|time| time.as_secs()), Ok(5));
        assert_eq!(duration("500ms").map(|time| time.as_millis()), Ok(500));
        for text in ["", "5", "s", "-1s", "5h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
