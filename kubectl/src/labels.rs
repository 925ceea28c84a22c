//! kubectl's notation of labels – `app=web,tier in (a,b),!test` – as the selector of an object. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Reads it.
///
/// # Errors
/// What cannot be understood, in words.
pub(crate) fn parse(text: &str) -> Result<LabelSelector, String> {
    let (mut labels, mut expressions) = (BTreeMap::new(), Vec::new());
    for part in parts(text)? {
        let part = part.trim();
        let not = part.strip_prefix('!').filter(|_| !part.contains('='));
        let (key, operator, values) = if let Some((key, value)) = part.split_once("!=") {
            (key, "NotIn", vec![word(value)?])
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            labels.insert(label(key)?, word(value)?);
            continue;
        } else if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
            let (key, word_of_set) = head.trim_end().rsplit_once(' ').ok_or_else(|| wrong(part))?;
            let operator = match word_of_set {
                "in" => "In",
                "notin" => "NotIn",
                _ => return Err(wrong(part)),
            };
            (key, operator, list.split(',').map(word).collect::<Result<_, _>>()?)
        } else if let Some(key) = not {
            (key, "DoesNotExist", Vec::new())
        } else {
            (part, "Exists", Vec::new())
        };
        expressions.push(LabelSelectorRequirement {
            key: label(key)?,
            operator: operator.to_owned(),
            values: Some(values).filter(|values| !values.is_empty()),
        });
    }
    Ok(LabelSelector {
        match_labels: Some(labels).filter(|labels| !labels.is_empty()),
        match_expressions: Some(expressions).filter(|expressions| !expressions.is_empty()),
    })
}

fn wrong(part: &str) -> String {
    format!("'{part}' is none of a=b, a!=b, a in (b,c), a notin (b,c), a, !a")
}

/// At the commas that are not between parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' if depth == 0 => depth = 1,
            ')' if depth == 1 => depth = 0,
            '(' | ')' => return Err(wrong(text)),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    if depth == 0 { Ok(parts) } else { Err(wrong(text)) }
}

fn label(key: &str) -> Result<String, String> {
    let key = key.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(fine) { Err(wrong(key)) } else { Ok(key.to_owned()) }
}

fn word(value: &str) -> Result<String, String> {
    let value = value.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.chars().all(fine) { Ok(value.to_owned()) } else { Err(wrong(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_kubectl_reads_them() {
        let one = parse("app=web").unwrap();
        assert_eq!(one.match_labels.unwrap()["app"], "web");
        assert!(one.match_expressions.is_none());
        let many = parse("a==b, c!=d,e in (f,g),h notin (i),j,!k").unwrap();
        assert_eq!(many.match_labels.unwrap()["a"], "b");
        let said: Vec<String> = many
            .match_expressions
            .unwrap()
            .into_iter()
            .map(|it| format!("{} {} {}", it.key, it.operator, it.values.unwrap_or_default().join("|")))
            .collect();
        assert_eq!(said, ["c NotIn d", "e In f|g", "h NotIn i", "j Exists ", "k DoesNotExist "]);
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for bad in ["", "=b", "a in b", "a in (b", "a (b)", "a b", "a=b c", "((", "a=b,,c=d"] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("is none of"), "{bad}: {error}");
        }
    }
}
