//! A record in user properties: ZFS bounds each at 8191 bytes, so it is cut into numbered pieces.

use cryopod_zfs::{EffectiveProperties, Properties};

/// What the pieces are called, with their number.
const KEY: &str = "cryopod:template.";
/// Below ZFS's bound (8191), as in the rest of the store.
const PIECE: usize = 8000;

/// The pieces of a record of printable ASCII.
pub(super) fn write(record: &str, properties: &mut Properties) {
    let (mut rest, mut number) = (record, 0);
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE);
        // Blanks at the ends of a value are nothing that every version of the tools keeps.
        while end < rest.len() && end > 1 && [end - 1, end].iter().any(|at| rest.as_bytes().get(*at) == Some(&b' ')) {
            end -= 1;
        }
        let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        properties.set(format!("{KEY}{number}"), piece);
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
        let record = format!("{}{}{}", "x".repeat(7999), " ".repeat(3), "y ".repeat(9000));
        let mut properties = Properties::new();
        write(&record, &mut properties);
        let pieces: Vec<&str> = properties.iter().map(|(_, value)| value).collect();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() <= PIECE));
        let inner = &pieces[..pieces.len() - 1];
        assert!(inner.iter().all(|piece| !piece.starts_with(' ') && !piece.ends_with(' ')));
        assert_eq!(pieces.concat(), record);
    }
}
