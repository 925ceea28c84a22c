//! A record in user properties: ZFS bounds each at 8191 bytes, so it is cut into numbered pieces.

use cryopod_zfs::{EffectiveProperties, Properties};

/// What the pieces are called, with their number.
const KEY: &str = "cryopod:template.";
/// Below ZFS's bound (8191), as in the rest of the store.
const PIECE: usize = 8000;

/// A blank as it may stand in a string of JSON, where alone a record has blanks.
const BLANK: &str = "\\u0020";

/// The pieces of a record, which is JSON of printable ASCII without blanks between its words.
pub(super) fn write(record: &str, properties: &mut Properties) {
    let (mut rest, mut number) = (record, 0);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at_checked(PIECE).unwrap_or((rest, ""));
        // Blanks at the ends of a value are nothing that every tool keeps.
        let (begin, piece) = piece.strip_prefix(' ').map_or(("", piece), |rest| (BLANK, rest));
        let (piece, end) = piece.strip_suffix(' ').map_or((piece, ""), |rest| (rest, BLANK));
        properties.set(format!("{KEY}{number}"), format!("{begin}{piece}{end}"));
        (rest, number) = (after, number + 1);
    }
}

/// The record, as far as its pieces follow one another; empty where there is none.
pub(super) fn read(properties: &EffectiveProperties) -> String {
    (0..).map_while(|number| properties.own(&format!("{KEY}{number}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_into_properties_and_have_no_blanks_at_their_ends() {
        let text = format!("{}{}{}", "x".repeat(7998), " ".repeat(3), "y ".repeat(9000));
        let mut properties = Properties::new();
        write(&serde_json::to_string(&text).unwrap(), &mut properties);
        let pieces: Vec<&str> = properties.iter().map(|(_, value)| value).collect();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() <= 8191));
        assert!(pieces.iter().all(|piece| !piece.starts_with(' ') && !piece.ends_with(' ')));
        assert_eq!(serde_json::from_str::<String>(&pieces.concat()).unwrap(), text);
    }
}
