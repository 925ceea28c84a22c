//! `zfs get`: names and their properties with sources, from JSON or from the table.
//!
//! The JSON of 2.3 and 2.4 is written through the locale: a value with a character that the locale does not
//! have ends the output in the middle. The caller then asks again for the table, which carries bytes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ParseError, short};
use crate::{Property, Source};

/// One dataset, snapshot or bookmark as it was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its full name.
    pub name: String,
    /// Its properties; those that do not apply ("-") are left out.
    pub properties: BTreeMap<String, Property>,
}

/// `zfs get -jp ...`
pub fn get_json(bytes: &[u8]) -> Result<Vec<Raw>, ParseError> {
    let json: Value = serde_json::from_slice(bytes).map_err(|error| ParseError::Json(error.to_string()))?;
    let Some(datasets) = json.get("datasets").and_then(Value::as_object) else {
        return Err(ParseError::Json("no object \"datasets\"".to_owned()));
    };
    let mut entries = Vec::with_capacity(datasets.len());
    for (name, dataset) in datasets {
        let mut properties = BTreeMap::new();
        let listed = dataset.get("properties").and_then(Value::as_object);
        for (key, property) in listed.into_iter().flatten() {
            let missing = |what| ParseError::Missing { of: format!("{key} of {}", short(name)), what };
            let value = match property.get("value") {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => return Err(missing("value")),
            };
            let source = property.get("source").ok_or_else(|| missing("source"))?;
            let text = |key| source.get(key).and_then(Value::as_str);
            let kind = text("type").ok_or_else(|| missing("source"))?;
            let source = match kind {
                "LOCAL" => Source::Local,
                "RECEIVED" => Source::Received,
                "INHERITED" => Source::Inherited(text("data").unwrap_or_default().to_owned()),
                "DEFAULT" => Source::Default,
                "TEMPORARY" => Source::Temporary,
                _ => Source::None,
            };
            add(&mut properties, key, value, source);
        }
        entries.push(Raw { name: name.clone(), properties });
    }
    Ok(entries)
}

/// `zfs get -Hp -o name,property,value,source ...`
///
/// Only a value can hold a tab or a line break: fields too many belong to it, and a line that does not end
/// with a source goes on in the next one.
pub fn get_table(bytes: &[u8]) -> Result<Vec<Raw>, ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let mut entries: BTreeMap<String, BTreeMap<String, Property>> = BTreeMap::new();
    let mut pending = String::new();
    for line in text.lines() {
        pending.push_str(line);
        let fields: Vec<&str> = pending.split('\t').collect();
        match fields.as_slice() {
            [name, key, value @ .., last] if !value.is_empty() && source(last).is_some() => {
                let properties = entries.entry((*name).to_owned()).or_default();
                add(properties, key, value.join("\t"), source(last).unwrap_or(Source::None));
                pending.clear();
            }
            _ => pending.push('\n'),
        }
    }
    if !pending.trim().is_empty() {
        return Err(ParseError::Fields { line: short(&pending), fields: 4 });
    }
    Ok(entries.into_iter().map(|(name, properties)| Raw { name, properties }).collect())
}

fn source(text: &str) -> Option<Source> {
    Some(match text {
        "local" => Source::Local,
        "received" => Source::Received,
        "default" => Source::Default,
        "temporary" => Source::Temporary,
        "-" => Source::None,
        other => Source::Inherited(other.strip_prefix("inherited from ")?.to_owned()),
    })
}

fn add(properties: &mut BTreeMap<String, Property>, key: &str, value: String, source: Source) {
    // "-" without a source: the property does not apply or is not set.
    if value != "-" || source != Source::None {
        properties.insert(key.to_owned(), Property { value, source });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(value: &str, source: Source) -> Property {
        Property { value: value.to_owned(), source }
    }

    /// As printed by ZFS 2.3.9.
    const JSON: &str = r#"{"output_version":{"command":"zfs get","vers_major":0,"vers_minor":1},"datasets":{
        "tank/zt/a@s":{"name":"tank/zt/a@s","type":"SNAPSHOT","pool":"tank","createtxg":"221","dataset":"tank/zt/a",
        "snapshot_name":"s","properties":{"guid":{"value":"8496810244771347014","source":{"type":"NONE","data":"-"}},
        "mounted":{"value":"-","source":{"type":"NONE","data":"-"}},
        "cryopod:x":{"value":"1","source":{"type":"INHERITED","data":"tank/zt"}},
        "cryopod:y":{"value":"-","source":{"type":"LOCAL","data":"-"}}}}}}"#;

    #[test]
    fn json_and_table_give_the_same() {
        let table = "tank/zt/a@s\tguid\t8496810244771347014\t-\ntank/zt/a@s\tmounted\t-\t-\n\
                     tank/zt/a@s\tcryopod:x\t1\tinherited from tank/zt\ntank/zt/a@s\tcryopod:y\t-\tlocal\n";
        let expected = vec![Raw {
            name: "tank/zt/a@s".to_owned(),
            properties: BTreeMap::from([
                ("guid".to_owned(), property("8496810244771347014", Source::None)),
                ("cryopod:x".to_owned(), property("1", Source::Inherited("tank/zt".to_owned()))),
                ("cryopod:y".to_owned(), property("-", Source::Local)),
            ]),
        }];
        assert_eq!(get_json(JSON.as_bytes()), Ok(expected.clone()));
        assert_eq!(get_table(table.as_bytes()), Ok(expected));
    }

    #[test]
    fn json_cut_off_by_the_locale_is_an_error() {
        // As printed by ZFS 2.3.9 with LC_ALL=C for a value that begins with "a ä".
        let cut = r#"{"datasets":{"tank":{"name":"tank","properties":{"cryopod:odd":{"value":"a "#;
        assert!(matches!(get_json(cut.as_bytes()), Err(ParseError::Json(_))));
        assert!(get_json(b"").is_err() && get_json(b"{}").is_err());
    }

    #[test]
    fn integers_are_read_like_texts() {
        let json = r#"{"datasets":{"a":{"properties":{"used":{"value":7,"source":{"type":"NONE"}}}}}}"#;
        assert_eq!(get_json(json.as_bytes()).unwrap()[0].properties["used"].value, "7");
    }

    #[test]
    fn a_value_may_hold_tabs_and_line_breaks() {
        let table = "a\tx:y\tone\ttwo\nthree\tlocal\na\tguid\t1\t-\n";
        let raw = get_table(table.as_bytes()).unwrap();
        assert_eq!(raw[0].properties["x:y"], property("one\ttwo\nthree", Source::Local));
        assert_eq!(raw[0].properties["guid"].value, "1");
    }

    #[test]
    fn half_a_line_is_an_error() {
        assert!(get_table(b"a\tguid\t1\t-\nb\tgu").is_err());
        assert_eq!(get_table(b""), Ok(Vec::new()));
    }
}
