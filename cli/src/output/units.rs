//! Sizes, durations and instants as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// `512 B`, `18.2 MiB`: three significant digits, binary units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut shown = "B";
    for unit in UNITS {
        value /= 1024.0;
        shown = unit;
        // 1023.95 would be shown as 1024.0.
        if value < 1023.95 {
            break;
        }
    }
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$} {shown}")
}

/// `3 ms`, `241 ms`, `1.24 s`, `2 m 05 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        "0 ms".to_owned()
    } else if micros < 1_000 {
        format!("{micros} µs")
    } else if micros < 10_000 {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else if duration < Duration::from_secs(100) {
        format!("{:.2} s", duration.as_secs_f64())
    } else {
        let seconds = duration.as_secs();
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}

/// How long ago `then` was: `4 s`, `12 m`, `3 h`, `9 d`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} m", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        let shown: Vec<String> =
            [0, 1023, 1024, 19_084_083, 1_073_741_823, 1 << 40, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "18.2 MiB", "1.0 GiB", "1.0 TiB", "16.0 EiB"]);
    }

    #[test]
    fn durations_are_as_fine_as_they_matter() {
        let shown: Vec<String> = [0, 870, 3_400, 241_000, 1_240_000, 125_000_000]
            .map(|micros| duration(Duration::from_micros(micros)))
            .into();
        assert_eq!(shown, ["0 ms", "870 µs", "3.4 ms", "241 ms", "1.24 s", "2 m 05 s"]);
    }

    #[test]
    fn an_instant_ahead_of_a_wrong_clock_is_no_age() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(age(Timestamp::from_second(2_000).unwrap(), now), "0 s");
        assert_eq!(age(Timestamp::from_second(100).unwrap(), now), "15 m");
    }
}
