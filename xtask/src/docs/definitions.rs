//! Reads the doc comments of a file of Rust type definitions: what a configuration key means is said where it is
//! defined, and nowhere else.
//!
//! Only what our configuration needs: structs with named fields, enums with plain variants, `///` comments.

/// A struct or an enum.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) members: Vec<Member>,
}

/// A field or a variant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) doc: String,
    /// The type of a field.
    pub(super) kind: String,
}

/// All definitions of `source`.
pub(super) fn parse(source: &str) -> Vec<Definition> {
    let mut found: Vec<Definition> = Vec::new();
    let mut open = false;
    let mut doc = String::new();
    for line in source.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            doc = format!("{doc} {}", words.trim()).trim().to_owned();
        } else if text.starts_with("#[") {
            // Attributes stand between a comment and what it is about.
        } else if let Some(name) = definition(line) {
            found.push(Definition { name, doc: std::mem::take(&mut doc), members: Vec::new() });
            open = true;
        } else if line == "}" {
            open = false;
        } else {
            let doc = std::mem::take(&mut doc);
            if open
                && let Some((name, kind)) = member(text)
                && let Some(definition) = found.last_mut()
            {
                definition.members.push(Member { name, doc, kind });
            }
        }
    }
    found
}

fn definition(line: &str) -> Option<String> {
    let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
    Some(rest.strip_suffix(" {")?.to_owned())
}

fn member(text: &str) -> Option<(String, String)> {
    let text = text.strip_suffix(',')?;
    let (name, kind) = match text.strip_prefix("pub ") {
        Some(field) => field.split_once(": ")?,
        None => (text, ""),
    };
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then(|| (name.to_owned(), kind.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_variants_come_with_their_comments() {
        let source = "/// `[store]`.\n#[derive(Debug)]\npub struct Store {\n    /// Which\n    /// one.\n    #[serde(x)]\n    \
                      pub kind: Option<Kind>,\n}\n\nimpl Store {\n    /// No field.\n    fn new() {}\n}\n/// Kinds.\n\
                      pub enum Kind {\n    /// The one.\n    One,\n}\n";
        let found = parse(source);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].doc.as_str()), ("Store", "`[store]`."));
        assert_eq!(
            found[0].members,
            [Member { name: "kind".into(), doc: "Which one.".into(), kind: "Option<Kind>".into() }]
        );
        assert_eq!(found[1].members[0].name, "One");
    }
}
