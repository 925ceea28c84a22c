//! Numbers with the units of the dashboard, as a person reads them.

const BYTES: &[(f64, &str)] =
    &[(1_099_511_627_776.0, "TiB"), (1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")];
const SECONDS: &[(f64, &str)] =
    &[(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"), (0.000_001, "µs")];

/// `value` in Grafana's unit `unit`.
pub(super) fn shown(value: f64, unit: &str) -> String {
    let scaled = |table: &[(f64, &str)], plain: &str| {
        let found = table.iter().find(|(size, _)| value.abs() >= *size);
        found.map_or(format!("{} {plain}", number(value)), |(size, name)| {
            format!("{} {name}", number(value / size))
        })
    };
    match unit {
        "bytes" => scaled(BYTES, "B"),
        "s" => scaled(SECONDS, "s"),
        "percentunit" => format!("{} %", number(value * 100.0)),
        "ops" | "eps" => format!("{}/s", number(value)),
        _ => number(value),
    }
}

/// Three digits that matter, without zeros at the end.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_unit_that_fits() {
        for (value, unit, expected) in [
            (0.0, "bytes", "0 B"),
            (1536.0, "bytes", "1.5 KiB"),
            (2.3 * 1_048_576.0, "bytes", "2.3 MiB"),
            (0.25, "s", "250 ms"),
            (90.0, "s", "1.5 min"),
            (0.0, "s", "0 s"),
            (-7200.0, "s", "-2 h"),
            (0.123, "percentunit", "12.3 %"),
            (3.0, "none", "3"),
            (0.05, "ops", "0.05/s"),
        ] {
            assert_eq!(shown(value, unit), expected, "{value} {unit}");
        }
    }
}
