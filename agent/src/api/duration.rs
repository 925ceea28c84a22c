//! Durations as Kubernetes writes them: `90s`, `1h30m`, `1.5s`, `118ms`.

use std::time::Duration;

/// A duration that is none, or is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration: write for example 90s, 1h30m or 720h (units h, m, s, ms)")]
pub struct DurationError(String);

/// Longest that is accepted: a hundred years.
const MAX_SECONDS: f64 = 100.0 * 366.0 * 86400.0;

/// Reads Go's notation, which is also that of `duration()` in CEL: numbers with a unit, one after the other.
///
/// # Errors
/// [`DurationError`] for anything else, for nothing, and for more than a hundred years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let failed = || DurationError(text.to_owned());
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(failed)?;
        let number: f64 = rest[..digits].parse().map_err(|_| failed())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(failed()),
        };
        seconds += number * factor;
        rest = &rest[unit..];
    }
    if text.is_empty() || !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(failed());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Writes it short enough for a column: whole milliseconds below ten seconds, whole seconds above.
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..=999 => format!("{millis}ms"),
        1000..=9999 => format!("{}.{:03}s", millis / 1000, millis % 1000),
        _ => {
            let seconds = duration.as_secs();
            let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
            let parts = parts.iter().filter(|(count, _)| *count > 0);
            parts.map(|(count, unit)| format!("{count}{unit}")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_go_reads_is_read() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("118ms", 118),
            ("0s", 0),
            ("720h", 2_592_000_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "h", "1d", "-1s", "1s ", "1..5s", "9999999h", "1e3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0u64..10_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)).unwrap().as_millis(), duration.as_millis());
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            prop_assert!(parse(&text).is_ok() || parse(&text).is_err());
        }
    }
}
