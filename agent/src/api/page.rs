//! The reference page of our objects, made from their definitions: `cryopod-agent crds --markdown`.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};

/// What kubectl users know anyway, and the templates that any object has.
const KNOWN: &[&str] = &["conditions", "selector"];

/// The whole page but its title.
pub fn markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut page = String::new();
    for crd in crds {
        let version = crd.spec.versions.first();
        let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let names = &crd.spec.names;
        let short = names.short_names.clone().unwrap_or_default().join(", ");
        let about = schema.and_then(|schema| schema.description.clone()).unwrap_or_default();
        // Writing to a String cannot fail.
        write!(page, "\n## {}\n\n{about} `kubectl get {}`, short `{short}`.\n", names.kind, names.plural)
            .ok();
        for part in ["spec", "status"] {
            let Some(properties) = schema.and_then(|schema| schema.properties.as_ref()?.get(part)) else {
                continue;
            };
            write!(page, "\n| {part} | type | meaning |\n|---|---|---|\n").ok();
            fields(&mut page, "", properties);
        }
    }
    page
}

fn fields(page: &mut String, path: &str, object: &JSONSchemaProps) {
    let required = object.required.clone().unwrap_or_default();
    for (name, field) in object.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let about = field.description.clone().unwrap_or_default();
        let needed = if required.contains(name) { " Required." } else { "" };
        writeln!(
            page,
            "| `{path}` | {} | {}{needed}{} |",
            kind(field),
            about.replace('\n', " "),
            limits(field)
        )
        .ok();
        if KNOWN.contains(&name.as_str()) {
            continue;
        }
        fields(page, &path, field);
        if let Some(item) = field.items.as_ref() {
            use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema;
            if let Schema(item) = item {
                fields(page, &format!("{path}[]"), item);
            }
        }
    }
}

fn kind(field: &JSONSchemaProps) -> String {
    let values: Vec<String> =
        field.enum_.iter().flatten().filter_map(|value| value.0.as_str().map(str::to_owned)).collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    match field.type_.as_deref() {
        Some("array") => "list".into(),
        Some(kind) => kind.to_owned(),
        None => "any".into(),
    }
}

fn limits(field: &JSONSchemaProps) -> String {
    let number = |value: f64| format!("{value:.0}");
    let mut text = String::new();
    if let Some(default) = &field.default
        && !default.0.is_object()
    {
        write!(text, " Default `{}`.", default.0).ok();
    }
    if let (Some(from), Some(to)) = (field.minimum, field.maximum) {
        write!(text, " {} to {}.", number(from), number(to)).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_kind_is_on_the_page_with_its_meaning() {
        let page = markdown(&crate::api::crds());
        for words in [
            "## PodCheckpoint",
            "| `sourcePod.name` | string | Its name. Required. |",
            "| `deletionPolicy` | Delete, Retain |",
            "## CheckpointSchedule",
            "| `retention.keepLast` |",
            "| `runs[].waiting` |",
        ] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
        let without = page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).count();
        assert_eq!(without, 0, "fields without a meaning:\n{page}");
    }
}
