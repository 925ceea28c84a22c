//! Aligned columns for people. Cells know their meaning; widths are counted before colours are added.

use super::printable;
use super::style::{Palette, Style};

/// A cell: text, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// A cell with a meaning.
    pub(crate) fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { text: printable(&text.into()), style: Some(style) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: printable(&text.into()), style: None }
    }
}

/// On which side a column is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    heads: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

/// Between columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these headings; one that starts with `>` aligns its column to the right.
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Self {
        let heads = heads
            .iter()
            .map(|head| match head.strip_prefix('>') {
                Some(number) => (number.to_owned(), Align::Right),
                None => ((*head).to_owned(), Align::Left),
            })
            .collect();
        Self { heads, rows: Vec::new() }
    }

    /// Adds a row; what it lacks is empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let widths: Vec<usize> = self
            .heads
            .iter()
            .enumerate()
            .map(|(column, (head, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(&cell.text)).chain([width(head)]).max().unwrap_or(0)
            })
            .collect();
        let heads: Vec<Cell> =
            self.heads.iter().map(|(head, _)| Cell::styled(Style::Dim, head.clone())).collect();
        let mut text = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            text.push_str(self.line(row, &widths, palette).trim_end());
            text.push('\n');
        }
        text
    }

    fn line(&self, row: &[Cell], widths: &[usize], palette: Palette) -> String {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            if index > 0 {
                line.push_str(GAP);
            }
            let missing = widths.get(index).copied().unwrap_or(0).saturating_sub(width(&cell.text));
            let fill = " ".repeat(missing);
            let text = match cell.style {
                Some(style) => palette.paint(style, &cell.text),
                None => cell.text.clone(),
            };
            let right = self.heads.get(index).is_some_and(|(_, align)| *align == Align::Right);
            // Nothing follows the last cell, and a painted one would hide its blanks from trim_end.
            let last = index + 1 == row.len();
            match (right, last) {
                (true, _) => line.extend([fill, text]),
                (false, true) => line.push_str(&text),
                (false, false) => line.extend([text, fill]),
            }
        }
        line
    }
}

/// Columns on a terminal; names in our world are ASCII, so one per character is near enough.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(["ID", "STATUS", ">MEMORY"]);
        table.row(["web".into(), Cell::styled(Style::Success, "running"), "18.2 MiB".into()]);
        table.row(["database-0".into(), "stopped".into(), "0 B".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let expected = "ID          STATUS     MEMORY\n\
                        web         running  18.2 MiB\n\
                        database-0  stopped       0 B\n";
        assert_eq!(example().render(Palette::new(false)), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = example().render(Palette::new(true));
        let mut plain = coloured;
        for code in ["\u{1b}[2m", "\u{1b}[32m", "\u{1b}[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, example().render(Palette::new(false)));
    }

    #[test]
    fn nothing_but_headings_is_still_a_table() {
        assert_eq!(Table::new(["A", "B"]).render(Palette::new(false)), "A  B\n");
    }
}
