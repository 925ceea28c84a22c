//! Colours by meaning, so that a verb says what a word is and not how it looks.

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Headings of columns, labels.
    Dim,
    /// The one thing to read first.
    Strong,
    /// It works.
    Success,
    /// It works, but.
    Warning,
    /// It does not.
    Failure,
    /// The time in which nothing runs.
    Frozen,
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Palette {
    coloured: bool,
}

impl Palette {
    /// With colours, or plain.
    pub(crate) fn new(coloured: bool) -> Self {
        Self { coloured }
    }

    /// Whether there are colours.
    pub(crate) fn is_coloured(self) -> bool {
        self.coloured
    }

    /// `text` in the colours of `style` (ANSI SGR, the 16 colours that every terminal theme defines).
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.coloured || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Dim => "2",
            Style::Strong => "1",
            Style::Success => "32",
            Style::Warning => "33",
            Style::Failure => "1;31",
            Style::Frozen => "1;36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(Palette::new(false).paint(Style::Failure, "no"), "no");
        assert_eq!(Palette::new(true).paint(Style::Failure, "no"), "\u{1b}[1;31mno\u{1b}[0m");
    }
}
