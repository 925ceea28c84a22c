//! `zpool list` and `zpool status`.

use serde_json::Value;

use super::{ParseError, number, short};
use crate::{Bytes, Guid, Health, Pool, PoolName, PoolStatus};

/// The columns that `pool_list` expects, as `zpool list -o` takes them.
pub(crate) const COLUMNS: &str = "name,guid,size,allocated,free,health,readonly";

/// `zpool list -Hp -o name,guid,size,allocated,free,health,readonly`
pub fn pool_list(text: &str) -> Result<Vec<Pool>, ParseError> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, guid, size, allocated, free, state, read_only] = fields.as_slice() else {
            return Err(ParseError::Fields { line: short(line), fields: 7 });
        };
        // A pool whose devices are gone has "-" for its sizes.
        let bytes = |value: &str| if value == "-" { Ok(Bytes(0)) } else { number(name, value).map(Bytes) };
        Ok(Pool {
            name: name.parse()?,
            guid: Guid(number(name, guid)?),
            size: bytes(size)?,
            allocated: bytes(allocated)?,
            free: bytes(free)?,
            health: health(state),
            read_only: *read_only == "on",
        })
    };
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

fn health(state: &str) -> Health {
    match state {
        "ONLINE" => Health::Online,
        "DEGRADED" => Health::Degraded,
        "FAULTED" => Health::Faulted,
        "OFFLINE" => Health::Offline,
        "UNAVAIL" => Health::Unavailable,
        "REMOVED" => Health::Removed,
        "SUSPENDED" => Health::Suspended,
        _ => Health::Unknown,
    }
}

/// `zpool status -jp NAME`
pub fn pool_status_json(bytes: &[u8]) -> Result<PoolStatus, ParseError> {
    let json: Value = serde_json::from_slice(bytes).map_err(|error| ParseError::Json(error.to_string()))?;
    let pools = json.get("pools").and_then(Value::as_object);
    let Some((name, pool)) = pools.and_then(|pools| pools.iter().next()) else {
        return Err(ParseError::Json("no pool in it".to_owned()));
    };
    let text = |key| pool.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let errors = match pool.get("error_count") {
        Some(Value::String(count)) => number(name, count)?,
        Some(Value::Number(count)) => count.as_u64().unwrap_or_default(),
        _ => 0,
    };
    let name: PoolName = name.parse()?;
    Ok(PoolStatus {
        name,
        health: health(&text("state")),
        status: text("status"),
        action: text("action"),
        data_errors: errors,
    })
}

/// `zpool status NAME` before 2.3: fields as "name: text", the text going on in indented lines.
pub fn pool_status_text(text: &str) -> Result<PoolStatus, ParseError> {
    let field = |wanted: &str| {
        let mut found: Option<String> = None;
        for line in text.lines() {
            let key = line.split_once(':').map(|(key, value)| (key.trim_start(), value.trim()));
            match (&mut found, key) {
                (None, Some((key, value))) if key == wanted => found = Some(value.to_owned()),
                (None, _) => {}
                // A continuation begins with a tab; everything else is the next field.
                (Some(value), _) if line.starts_with('\t') => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (Some(_), _) => break,
            }
        }
        found
    };
    let missing = |what| ParseError::Missing { of: "the pool's status".to_owned(), what };
    let name: PoolName = field("pool").ok_or_else(|| missing("pool"))?.parse()?;
    let errors = field("errors").unwrap_or_default();
    let count = errors.split_whitespace().next().and_then(|word| word.parse().ok());
    let data_errors = match count {
        Some(count) => count,
        None if errors.starts_with("No known") || errors.is_empty() => 0,
        // "List of errors unavailable" and whatever else: there are some.
        None => 1,
    };
    Ok(PoolStatus {
        name,
        health: health(&field("state").ok_or_else(|| missing("state"))?),
        status: field("status").unwrap_or_default(),
        action: field("action").unwrap_or_default(),
        data_errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_listed() {
        let line = "tank\t2256520955879661006\t20937965568\t3768320\t20934197248\tONLINE\toff\n";
        let pools = pool_list(line).unwrap();
        assert_eq!((pools[0].name.as_str(), pools[0].size), ("tank", Bytes(20_937_965_568)));
        assert_eq!((pools[0].health, pools[0].read_only), (Health::Online, false));
        let gone = pool_list("p\t1\t-\t-\t-\tSUSPENDED\ton\n").unwrap();
        assert_eq!((gone[0].health, gone[0].size, gone[0].read_only), (Health::Suspended, Bytes(0), true));
        assert_eq!(pool_list("p\t1\t1\t1\t1\tNEWSTATE\ton").unwrap()[0].health, Health::Unknown);
        assert!(pool_list("p\t1\n").is_err());
    }

    const TEXT: &str = "  pool: tank\n state: DEGRADED\nstatus: One or more devices could not be used because the label \
                        is missing or\n\tinvalid.  Sufficient replicas exist\naction: Replace the device using 'zpool \
                        replace'.\n  scan: resilvered 1M\nconfig:\n\n\tNAME        STATE     READ WRITE CKSUM\n\ttank  \
                        ONLINE       0     0     0\n\nerrors: 3 data errors, use '-v' for a list\n";

    #[test]
    fn a_status_is_read_from_text() {
        let found = pool_status_text(TEXT).unwrap();
        assert_eq!((found.name.as_str(), found.health, found.data_errors), ("tank", Health::Degraded, 3));
        assert!(found.status.ends_with("missing or invalid.  Sufficient replicas exist"), "{}", found.status);
        assert_eq!(found.action, "Replace the device using 'zpool replace'.");
        let well = pool_status_text(" pool: p\n state: ONLINE\nerrors: No known data errors\n").unwrap();
        assert_eq!((well.data_errors, well.status.as_str()), (0, ""));
        assert!(pool_status_text("no pools available").is_err());
    }

    #[test]
    fn a_status_is_read_from_json() {
        let json = r#"{"pools":{"tank":{"name":"tank","state":"SUSPENDED","status":"One or more devices are faulted",
            "action":"Make sure the affected devices are connected, then run 'zpool clear'.","error_count":"2"}}}"#;
        let found = pool_status_json(json.as_bytes()).unwrap();
        assert_eq!((found.health, found.data_errors), (Health::Suspended, 2));
        assert!(found.action.contains("zpool clear"));
        assert!(pool_status_json(br#"{"pools":{}}"#).is_err());
    }
}
