//! The short answers: versions, holds, sizes, what a receive says it made, and tokens inside error texts.

use super::{ParseError, number, short};
use crate::{Bytes, Hold, ResumeToken, SnapshotName, Version};

/// `zfs version`: a line for the tool and one for the module, the latter only when it is loaded.
pub fn version(text: &str) -> Result<Version, ParseError> {
    let line =
        |prefix: &str| text.lines().map(str::trim).find(|line| line.starts_with(prefix)).map(str::to_owned);
    let kernel = line("zfs-kmod-").unwrap_or_default();
    let userland =
        text.lines().map(str::trim).find(|line| line.starts_with("zfs-") && !line.starts_with("zfs-kmod-"));
    let userland = userland.ok_or(ParseError::Missing { of: short(text), what: "version" })?.to_owned();
    let mut parts = userland.trim_start_matches("zfs-").split(['.', '-']);
    let mut part = || parts.next().and_then(|part| part.parse::<u32>().ok());
    let wrong =
        || ParseError::Value { of: "zfs version".to_owned(), value: short(&userland), what: "version" };
    let number = (part().ok_or_else(wrong)?, part().ok_or_else(wrong)?);
    Ok(Version { userland, kernel, number })
}

/// `zfs holds -H`: snapshot, tag and time, by tabs.
pub fn holds(text: &str) -> Result<Vec<Hold>, ParseError> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [snapshot, tag, _time] = fields.as_slice() else {
            return Err(ParseError::Fields { line: short(line), fields: 3 });
        };
        Ok(Hold { snapshot: snapshot.parse()?, tag: tag.parse()? })
    };
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// `zfs send -nP`: the last line that begins with "size".
pub fn send_size(text: &str) -> Result<Bytes, ParseError> {
    let size = text.lines().rev().find_map(|line| line.strip_prefix("size\t"));
    let size = size.ok_or(ParseError::Missing { of: "the estimate".to_owned(), what: "size" })?;
    number("the estimate", size).map(Bytes)
}

/// `zfs receive -v`: "receiving full stream of tank/a@s into tank/b@s".
pub fn receive_name(text: &str) -> Result<SnapshotName, ParseError> {
    let line = text.lines().rev().find(|line| line.starts_with("receiving ") && line.contains(" into "));
    let missing = || ParseError::Missing { of: short(text), what: "name of what arrived" };
    let name = line.and_then(|line| line.rsplit_once(" into ")).ok_or_else(missing)?.1;
    Ok(name.trim_end().parse()?)
}

/// The token in what `zfs receive -s` says when a stream ends early; None when there is none.
pub fn resume_token(text: &str) -> Option<ResumeToken> {
    let after = text.split("zfs send -t ").nth(1)?;
    after.split_whitespace().next()?.parse().ok()
}

/// `zfs get -Hpo value origin`: a snapshot, or "-".
pub fn origin(text: &str) -> Result<Option<SnapshotName>, ParseError> {
    match text.trim_end_matches('\n') {
        "-" | "" => Ok(None),
        name => Ok(Some(name.parse()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_packagings_are_read() {
        let found = version("zfs-2.3.9-0+deb13u1\nzfs-kmod-2.3.9-0+deb13u1\n").unwrap();
        assert_eq!((found.number, found.has_json()), ((2, 3), true));
        assert_eq!(found.kernel, "zfs-kmod-2.3.9-0+deb13u1");
        let cases = [("zfs-2.2.2-0ubuntu9", (2, 2)), ("zfs-2.1.11-1\nzfs-kmod-2.1.11-1", (2, 1))];
        for (text, number) in cases {
            let found = version(text).unwrap();
            assert_eq!((found.number, found.has_json()), (number, false));
        }
        assert_eq!(version("zfs-2.4.99-1_gbe7657e3f").unwrap().number, (2, 4));
        for bad in ["", "zfs-kmod-2.3.9", "zfs-abc", "the zfs modules are not loaded"] {
            assert!(version(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn holds_are_read() {
        let found =
            holds("tank/zt/a@s\tt\t1795241183\ntank/a b@s\tcryopod-1\tSat Nov 21 06:06 2026\n").unwrap();
        assert_eq!(found[1].snapshot.as_str(), "tank/a b@s");
        assert_eq!(holds(""), Ok(Vec::new()));
        assert!(holds("tank/a@s\tt\n").is_err());
    }

    #[test]
    fn the_size_is_the_last_line_whatever_comes_before() {
        assert_eq!(send_size("incremental\ttank/a@s\ttank/a@s2\t624\nsize\t624\n"), Ok(Bytes(624)));
        let resumed =
            "resume token contents:\nnvlist version: 0\n\tobject = 0x2\nfull\ttank/a@s\t7\nsize\t7\n";
        assert_eq!(send_size(resumed), Ok(Bytes(7)));
        assert!(send_size("full\ttank/a@s\t1\n").is_err() && send_size("size\tx").is_err());
    }

    #[test]
    fn what_arrived_is_the_name_after_into() {
        let text = "found clone origin tank/zu/a@s\nreceiving incremental stream of tank/zu/cl@ck into tank/zu/cc@ck\n\
                    received 8.94K stream in 0.13 seconds (68.8K/sec)\n";
        assert_eq!(receive_name(text).unwrap().as_str(), "tank/zu/cc@ck");
        assert!(receive_name("received 1K stream").is_err());
    }

    #[test]
    fn the_token_is_found_in_the_error() {
        let text = "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\n\
                    Partially received snapshot is saved.\nA resuming stream can be generated on the sending system \
                    by running:\n    zfs send -t 1-a4592b43f-b8-789c63\n";
        assert_eq!(resume_token(text).unwrap().as_str(), "1-a4592b43f-b8-789c63");
        assert_eq!(resume_token("incomplete stream"), None);
    }
}
