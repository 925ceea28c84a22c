//! From printed properties to typed entries.

use super::{ParseError, Raw, number, short};
use crate::{
    Bookmark, Bytes, Dataset, DatasetName, EffectiveProperties, Entry, Guid, Kind, Mountpoint, Name,
    Property, Snapshot, Txg,
};

/// The properties that typed fields are made of, as `zfs get` takes them.
pub const TYPED: &str = "type,guid,createtxg,creation,origin,used,referenced,available,mountpoint,mounted,volsize,\
                         receive_resume_token,userrefs,clones,defer_destroy";

/// Makes an entry of what was printed; the properties that have no typed field stay in `properties`.
pub fn entry(raw: Raw) -> Result<Entry, ParseError> {
    let name: Name = raw.name.parse()?;
    let mut found = Found { name: raw.name, properties: EffectiveProperties::default() };
    for (key, property) in raw.properties {
        found.properties.insert(key, property);
    }
    let kind = found.take("type");
    let guid = Guid(found.need("guid")?);
    let createtxg = Txg(found.need("createtxg")?);
    let creation = found.number("creation")?.unwrap_or_default();
    let used = Bytes(found.number("used")?.unwrap_or_default());
    let referenced = Bytes(found.number("referenced")?.unwrap_or_default());
    Ok(match name {
        Name::Dataset(name) => Entry::Dataset(Dataset {
            name,
            kind: match kind.as_deref() {
                Some("filesystem") => Kind::Filesystem,
                Some("volume") => Kind::Volume,
                Some(_) => return Err(found.wrong("type", "file system or volume")),
                None => return Err(ParseError::Missing { of: found.name, what: "type" }),
            },
            guid,
            createtxg,
            creation,
            origin: match found.take("origin").filter(|origin| !origin.is_empty()) {
                Some(origin) => Some(origin.parse()?),
                None => None,
            },
            used,
            referenced,
            available: Bytes(found.number("available")?.unwrap_or_default()),
            mountpoint: found.take("mountpoint").map(|path| match path.as_str() {
                "legacy" => Mountpoint::Legacy,
                "none" => Mountpoint::None,
                path => Mountpoint::Path(path.into()),
            }),
            mounted: found.take("mounted").as_deref() == Some("yes"),
            volsize: found.number("volsize")?.map(Bytes),
            resume_token: match found.take("receive_resume_token").filter(|token| !token.is_empty()) {
                Some(token) => Some(token.parse()?),
                None => None,
            },
            properties: found.properties,
        }),
        Name::Snapshot(name) => Entry::Snapshot(Snapshot {
            name,
            guid,
            createtxg,
            creation,
            used,
            referenced,
            userrefs: found.number("userrefs")?.unwrap_or_default(),
            clones: clones(&found.take("clones").unwrap_or_default())?,
            defer_destroy: found.take("defer_destroy").as_deref() == Some("on"),
            properties: found.properties,
        }),
        Name::Bookmark(name) => Entry::Bookmark(Bookmark { name, guid, createtxg, creation }),
    })
}

fn clones(list: &str) -> Result<Vec<DatasetName>, ParseError> {
    Ok(list.split(',').filter(|name| !name.is_empty()).map(str::parse).collect::<Result<_, _>>()?)
}

struct Found {
    name: String,
    properties: EffectiveProperties,
}

impl Found {
    fn take(&mut self, key: &str) -> Option<String> {
        self.properties.take(key).map(|Property { value, .. }| value)
    }

    fn number(&mut self, key: &'static str) -> Result<Option<u64>, ParseError> {
        self.take(key).map(|value| number(&self.name, &value)).transpose()
    }

    fn need(&mut self, key: &'static str) -> Result<u64, ParseError> {
        self.number(key)?.ok_or_else(|| ParseError::Missing { of: short(&self.name), what: key })
    }

    fn wrong(&self, value: &str, what: &'static str) -> ParseError {
        ParseError::Value { of: short(&self.name), value: value.to_owned(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::get_table;

    fn one(lines: &[(&str, &str)], name: &str) -> Result<Entry, ParseError> {
        let table: String = lines.iter().map(|(key, value)| format!("{name}\t{key}\t{value}\t-\n")).collect();
        entry(get_table(table.as_bytes()).unwrap().remove(0))
    }

    #[test]
    fn a_dataset_has_its_typed_fields() {
        let lines = [
            ("type", "filesystem"),
            ("guid", "14911562957670961108"),
            ("createtxg", "220"),
            ("creation", "1795241183"),
            ("origin", "tank/base@img"),
            ("used", "1024"),
            ("referenced", "2048"),
            ("available", "4096"),
            ("mountpoint", "legacy"),
            ("mounted", "yes"),
            ("volsize", "-"),
            ("receive_resume_token", "1-abc-0-789c"),
            ("cryopod:x", "y"),
        ];
        let Ok(Entry::Dataset(found)) = one(&lines, "tank/a") else { panic!("no dataset") };
        assert_eq!(found.origin.unwrap().as_str(), "tank/base@img");
        assert_eq!((found.used, found.referenced, found.available), (Bytes(1024), Bytes(2048), Bytes(4096)));
        assert_eq!((found.mountpoint, found.mounted, found.volsize), (Some(Mountpoint::Legacy), true, None));
        assert_eq!(found.resume_token.unwrap().as_str(), "1-abc-0-789c");
        let keys: Vec<_> = found.properties.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["cryopod:x"]);
    }

    #[test]
    fn a_snapshot_has_its_typed_fields() {
        let lines = [
            ("type", "snapshot"),
            ("guid", "1"),
            ("createtxg", "2"),
            ("userrefs", "3"),
            ("clones", "tank/a b,tank/c"),
            ("defer_destroy", "on"),
        ];
        let Ok(Entry::Snapshot(found)) = one(&lines, "tank/a@s") else { panic!("no snapshot") };
        assert_eq!((found.userrefs, found.defer_destroy, found.clones.len()), (3, true, 2));
    }

    #[test]
    fn an_entry_without_identity_is_an_error() {
        for lines in [&[("type", "filesystem"), ("guid", "1")][..], &[("guid", "x"), ("createtxg", "1")]] {
            assert!(one(lines, "tank/a").is_err());
        }
        assert!(one(&[("guid", "1"), ("createtxg", "1")], "tank/a").is_err());
        assert!(one(&[("guid", "1"), ("createtxg", "1")], "tank/%recv").is_err());
        assert!(one(&[("guid", "1"), ("createtxg", "1")], "tank/a#m").is_ok());
    }
}
