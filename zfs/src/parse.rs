//! The answers of `zfs` and `zpool` as values: pure functions from bytes, for every format that is read.
//!
//! Sources: `zfs get -j` (since 2.3) and `-Hp`, `zpool list -Hp`, `zpool status -j` and its plain form, `zfs
//! holds -Hp`, `zfs send -nP`, `zfs receive -v`, `zfs version`. What does not have the expected form is an
//! error, never a guess. They are fed with arbitrary bytes by a property test here and by `fuzz/`.

mod entries;
mod get;
mod plain;
mod pools;

pub use entries::{TYPED, entry};
pub use get::{Raw, get_json, get_table};
pub use plain::{holds, origin, receive_name, resume_token, send_size, version};
pub(crate) use pools::COLUMNS;
pub use pools::{pool_list, pool_status_json, pool_status_text};

/// Why an answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not the JSON that was expected.
    #[error("no JSON of the expected form: {0}")]
    Json(String),
    /// A line of a table has another number of fields.
    #[error("line {line:?} has not {fields} fields")]
    Fields {
        /// The line, shortened.
        line: String,
        /// How many were expected.
        fields: usize,
    },
    /// Something that must be there is not.
    #[error("{of} has no {what}")]
    Missing {
        /// What lacks it.
        of: String,
        /// What is missing.
        what: &'static str,
    },
    /// A value that is not what it should be.
    #[error("{value:?} of {of} is no {what}")]
    Value {
        /// Whose value it is.
        of: String,
        /// The value, shortened.
        value: String,
        /// What was expected.
        what: &'static str,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] crate::NameError),
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn number(of: &str, value: &str) -> Result<u64, ParseError> {
    let wrong = || ParseError::Value { of: short(of), value: short(value), what: "number" };
    value.trim().parse().map_err(|_| wrong())
}

/// Feeds bytes to every parser, for fuzzing: none may panic or run away.
pub fn parse_anything(bytes: &[u8]) {
    for raw in [get_json(bytes), get_table(bytes)].into_iter().flatten().flatten() {
        drop(entry(raw));
    }
    let text = String::from_utf8_lossy(bytes);
    drop(version(&text));
    drop(holds(&text));
    drop(send_size(&text));
    drop(receive_name(&text));
    drop(resume_token(&text));
    drop(origin(&text));
    drop(pool_list(&text));
    drop(pool_status_json(bytes));
    drop(pool_status_text(&text));
    drop(crate::mounts::parse_mountinfo(&text));
    drop(crate::classify::classify(&crate::error::Op::new("try", "tank/a"), &["tank/a".to_owned()], &text));
}

#[cfg(test)]
mod tests {
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            super::parse_anything(&bytes);
        }

        #[test]
        fn text_that_looks_almost_right_never_panics(
            text in "(tank|/|@|#|a|-|\t|\n|:|\\{|\\}|\"|\\[|\\]|,|datasets|properties|value|source|size|guid|type|7|pool|state|errors|cannot |'|\\\\040| )*"
        ) {
            super::parse_anything(text.as_bytes());
        }
    }
}
