//! Sizes as Kubernetes writes them: 24Mi, 3.4Gi, 20G.

/// Suffixes and what they stand for.
const UNITS: &[(&str, f64)] = &[
    ("Pi", 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ("Ti", 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ("Gi", 1024.0 * 1024.0 * 1024.0),
    ("Mi", 1024.0 * 1024.0),
    ("Ki", 1024.0),
];
const DECIMAL: &[(&str, f64)] = &[("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];

/// Two digits at least, for a column.
pub fn format(bytes: u64) -> String {
    let value = bytes as f64;
    for (unit, factor) in UNITS {
        let number = value / factor;
        if number >= 10.0 {
            return format!("{number:.0}{unit}");
        }
        if number >= 1.0 {
            return format!("{number:.1}{unit}");
        }
    }
    bytes.to_string()
}

/// Bytes of a quantity; None where it is none.
pub fn parse(text: &str) -> Option<u64> {
    let (number, factor) = UNITS
        .iter()
        .chain(DECIMAL)
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let number: f64 = number.parse().ok().filter(|_| number.chars().all(is_number))?;
    let bytes = number * factor;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_read_back() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (25_165_824, "24Mi"), (3_650_722_202, "3.4Gi")]
        {
            assert_eq!(format(bytes), text);
        }
        for (text, bytes) in
            [("20Gi", Some(21_474_836_480)), ("1.5k", Some(1500)), ("7", Some(7)), ("", None)]
        {
            assert_eq!(parse(text), bytes, "{text}");
        }
        for bad in ["x", "1e3", "-1", "1Zi", "inf", "NaN", "999999999999999999999Pi"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
