//! What is printed: tables for people, objects for programs. Data goes to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::args::{Format, Global};
use crate::error::Error;

/// Prints text.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()) {
        // `| head` has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|error| Error::Output(error.to_string())),
    }
}

/// Says something that is no data.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Whether somebody watches.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints one object as asked; `plain` is the line for people.
pub(crate) fn object<K>(global: &Global, object: &K, plain: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    match global.output {
        Some(Format::Json) => print(&json(object)?),
        Some(Format::Yaml) => print(&yaml(object)?),
        Some(Format::Name) => print(&name(object)),
        Some(Format::Wide) | None => print(plain),
    }
}

/// Prints a list of objects as asked; `table` has the rows for people, wide or not.
pub(crate) fn objects<K>(
    global: &Global,
    objects: &[K],
    table: impl FnOnce(bool) -> Table,
    nothing: &str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let list = || serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    match global.output {
        Some(Format::Json) => print(&json(&list())?),
        Some(Format::Yaml) => print(&yaml(&list())?),
        Some(Format::Name) => print(&objects.iter().map(name).collect::<Vec<_>>().join("\n")),
        _ if objects.is_empty() => {
            note(nothing);
            Ok(())
        }
        format => print(&table(format == Some(Format::Wide)).render()),
    }
}

fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}.{}/{}", K::kind(&()).to_lowercase(), K::group(&()), object.name_any())
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.to_string()))
}

fn yaml(value: &impl Serialize) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|error| Error::Output(error.to_string()))
}

/// Columns, as wide as their widest entry.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// With these heads.
    pub(crate) fn new<T: Into<String>>(heads: impl IntoIterator<Item = T>) -> Self {
        Self(vec![heads.into_iter().map(Into::into).collect()])
    }

    /// One more row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }

    /// All of it.
    pub(crate) fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// How long ago, as kubectl says it: 45s, 12m, 3h, 6d.
pub(crate) fn age(since: Option<Timestamp>) -> String {
    let Some(since) = since else { return "<unknown>".into() };
    let seconds = Timestamp::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let mut table = Table::new(["NAME", "READY"]);
        table.row(["a-long-name", ""]);
        table.row(["ä", "True"]);
        assert_eq!(table.render(), "NAME          READY\na-long-name\nä             True");
    }
}
