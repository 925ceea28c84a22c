//! Listings and single looks, by `zfs get`: the only subcommand that tells where a value comes from.

use std::ffi::OsString;

use super::{Cli, Tool, run, text, unparsable};
use crate::error::Op;
use crate::parse::{self, TYPED};
use crate::{Entry, Error, Filter, Kinds, Limits, Wanted};

impl Cli {
    pub(super) fn entries(&self, op: &Op, filter: &Filter, limits: &Limits) -> Result<Vec<Entry>, Error> {
        let mut args: Vec<OsString> = match filter.depth {
            Some(depth) => vec![text("-d"), text(&depth)],
            None => vec![text("-r")],
        };
        args.extend([text("-t"), text(&kinds(filter.kinds)), text(&columns(&filter.wanted))]);
        args.extend(filter.roots.iter().map(text));
        let mut entries = self.get(op, &args, limits)?;
        entries.sort_by_key(|entry| (entry.createtxg(), entry.name()));
        Ok(entries)
    }

    /// One dataset or snapshot with everything that is known of it; None when it is absent.
    pub(super) fn one(&self, op: &Op, limits: &Limits) -> Result<Option<Entry>, Error> {
        match self.get(op, &[text("all"), text(&op.name)], limits) {
            Ok(entries) => Ok(entries.into_iter().next()),
            // `refine` has made sure that the pool is there.
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `zfs get` with JSON where the tool has it, and as a table where it has not or where its JSON is cut
    /// off by a value that the locale cannot show.
    fn get(&self, op: &Op, args: &[OsString], limits: &Limits) -> Result<Vec<Entry>, Error> {
        let get = |options: &[&str]| {
            let command = self.command(Tool::Zfs).arg("get").args(options).args(args);
            run(op, command, limits).map_err(|error| self.refine(error, limits))
        };
        let json = if self.version.has_json() {
            let output = get(&["-j", "-p"])?;
            match parse::get_json(&output.stdout) {
                Ok(raw) => Some(raw),
                Err(error) => {
                    tracing::debug!(%op, %error, "asking again for a table");
                    None
                }
            }
        } else {
            None
        };
        let raw = match json {
            Some(raw) => raw,
            None => {
                let output = get(&["-H", "-p", "-o", "name,property,value,source"])?;
                parse::get_table(&output.stdout).map_err(|error| unparsable(op, &error))?
            }
        };
        raw.into_iter().map(|raw| parse::entry(raw).map_err(|error| unparsable(op, &error))).collect()
    }
}

fn kinds(kinds: Kinds) -> String {
    let all = [
        (kinds.filesystems, "filesystem"),
        (kinds.volumes, "volume"),
        (kinds.snapshots, "snapshot"),
        (kinds.bookmarks, "bookmark"),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect::<Vec<_>>().join(",")
}

fn columns(wanted: &Wanted) -> String {
    match wanted {
        Wanted::TypedOnly => TYPED.to_owned(),
        Wanted::Named(keys) if keys.is_empty() => TYPED.to_owned(),
        Wanted::Named(keys) => format!("{TYPED},{}", keys.join(",")),
        Wanted::All => "all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_those_that_were_asked_for() {
        assert_eq!(columns(&Wanted::TypedOnly), TYPED);
        assert!(
            columns(&Wanted::Named(vec!["cryopod:id".to_owned()])).ends_with(",defer_destroy,cryopod:id")
        );
        assert!(!TYPED.contains(' '));
        assert_eq!(kinds(Kinds::ALL), "filesystem,volume,snapshot,bookmark");
    }
}
