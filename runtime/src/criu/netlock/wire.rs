//! The few netlink messages of nf_tables that are needed, as bytes.
//!
//! ```text
//! nlmsghdr  u32 length  u16 type  u16 flags  u32 sequence  u32 port      (host byte order, padded to 4)
//! nfgenmsg  u8 family  u8 version  u16 resource (big endian)
//! attribute u16 length  u16 type  data, padded to 4
//! ```
//!
//! Changes travel between a batch begin and a batch end; the answer to one with NLM_F_ACK is an error message, 0 for
//! success.

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const GET_TABLE: u16 = (NFTABLES << 8) | 1;
const DELETE_TABLE: u16 = (NFTABLES << 8) | 2;
const NEW_CHAIN: u16 = (NFTABLES << 8) | 3;
const GET_CHAIN: u16 = (NFTABLES << 8) | 4;
const TABLE_NAME: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// The type of an attribute without its two flag bits.
const TYPE_MASK: u16 = 0x3fff;

/// Any family, in lists.
const UNSPECIFIED: u8 = 0;
/// Family `inet`.
pub(super) const INET: u8 = 1;
/// Family `ip`.
pub(super) const IPV4: u8 = 2;
/// Family `ip6`.
pub(super) const IPV6: u8 = 10;

/// A table, or a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) family: u8,
    pub(super) name: String,
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Name(Name),
    Done,
    /// Positive errno, or 0.
    Error(i32),
}

pub(super) fn list_tables() -> Vec<u8> {
    message(GET_TABLE, REQUEST | DUMP, UNSPECIFIED, 0, &[])
}

pub(super) fn list_chains() -> Vec<u8> {
    message(GET_CHAIN, REQUEST | DUMP, UNSPECIFIED, 0, &[])
}

pub(super) fn delete_table(table: &Name) -> Vec<u8> {
    let mut name = table.name.as_bytes().to_vec();
    name.push(0);
    let mut bytes = message(BATCH_BEGIN, REQUEST, UNSPECIFIED, NFTABLES, &[]);
    bytes.extend(message(DELETE_TABLE, REQUEST | ACK, table.family, 0, &attribute(TABLE_NAME, &name)));
    bytes.extend(message(BATCH_END, REQUEST, UNSPECIFIED, NFTABLES, &[]));
    bytes
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(20 + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(4 + data.len()).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// All messages of a datagram; `None` when it is malformed.
pub(super) fn parse(mut rest: &[u8]) -> Option<Vec<Reply>> {
    let mut replies = Vec::new();
    while rest.len() >= 16 {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(16..length)?;
        match kind {
            ERROR => {
                let errno = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
                replies.push(Reply::Error(errno.checked_neg()?));
            }
            DONE => replies.push(Reply::Done),
            NEW_TABLE | NEW_CHAIN => {
                let wanted = if kind == NEW_TABLE { TABLE_NAME } else { CHAIN_NAME };
                let family = *body.first()?;
                if let Some(name) = string(body.get(4..)?, wanted) {
                    replies.push(Reply::Name(Name { family, name }));
                }
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(replies)
}

fn string(mut attributes: &[u8], wanted: u16) -> Option<String> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let data = attributes.get(4..length)?;
        if kind == wanted {
            let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
            return String::from_utf8(text.to_vec()).ok();
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(family: u8, name: &str) -> Vec<u8> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let mut attributes = attribute(2, &[0, 0, 0, 0]);
        attributes.extend(attribute(TABLE_NAME, &text));
        message(NEW_TABLE, 2, family, 0, &attributes)
    }

    #[test]
    fn tables_are_read_with_their_family() {
        let mut bytes = table(INET, "CRIU-abc");
        bytes.extend(table(IPV4, "filter"));
        let mut done = message(DONE, 2, 0, 0, &[]);
        done.truncate(20);
        bytes.extend(done);
        let name = |family, name: &str| Reply::Name(Name { family, name: name.into() });
        assert_eq!(parse(&bytes), Some(vec![name(INET, "CRIU-abc"), name(IPV4, "filter"), Reply::Done]));
    }

    #[test]
    fn an_error_is_a_positive_errno() {
        let mut bytes = message(ERROR, 0, 0, 0, &[0; 16]);
        bytes.splice(16..20, (-2i32).to_ne_bytes());
        assert_eq!(parse(&bytes), Some(vec![Reply::Error(2)]));
    }

    #[test]
    fn a_delete_is_a_batch_of_whole_words() {
        let bytes = delete_table(&Name { family: INET, name: "CRIU-abc".into() });
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(9).any(|window| window == b"CRIU-abc\0"));
        assert_eq!(parse(&bytes).map(|replies| replies.len()), Some(0));
    }

    proptest! {
        #[test]
        fn damaged_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
