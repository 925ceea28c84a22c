//! Guids as decimal text: JSON readers other than ours lose digits of numbers beyond 2^53.

use cryopod_zfs::Guid;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(guid: &Guid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(guid)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Guid, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a guid that may be missing.
pub(super) mod option {
    use super::{Guid, parse};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "serde's `with` calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(
        guid: &Option<Guid>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match guid {
            Some(guid) => serializer.collect_str(guid),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Guid>, D::Error> {
        Option::<String>::deserialize(d)?.map(|text| parse(&text).map_err(D::Error::custom)).transpose()
    }
}

fn parse(text: &str) -> Result<Guid, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(guid) if digits => Ok(Guid(guid)),
        _ => Err(format!("{text:?} is no guid")),
    }
}
