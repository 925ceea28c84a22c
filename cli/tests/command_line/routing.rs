//! `cryopod route explain`, and rules in `config check` and `config dump`.

use serde_json::{Value, json};

use super::Place;

const RULES: &str = r#"[runtime.youki]
[[routing]]
namespace = "kube-*"
labels = { app = "dns" }
backend = "runc"

[[routing]]
namespace = "shop"
image = "*/nginx:*"
backend = "youki"
"#;

const WEB: [&str; 8] = [
    "--namespace",
    "shop",
    "--pod",
    "web-0",
    "--image",
    "docker.io/library/nginx:1.27",
    "--label",
    "app=web",
];

fn explain(place: &Place, config: &str, args: &[&str]) -> String {
    place.works(&[&["route", "explain", "--config", config], args].concat())
}

#[test]
fn the_rule_that_decides_is_named_with_its_place_and_the_others_with_their_reason() {
    let place = Place::new();
    let config = place.write("rules.toml", RULES);
    let text = explain(&place, &config, &WEB);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("youki, by the rule at {config}:7"));
    assert!(lines[2].contains(&format!("{config}:2")) && lines[2].contains("runc"), "{text}");
    assert!(lines[2].ends_with("namespace is 'shop', which 'kube-*' does not match"), "{text}");
    assert!(lines[3].ends_with("labels.app is 'web', which 'dns' does not match"), "{text}");
    assert!(lines[4].starts_with("with a pause container: crun, by runtime.default; "), "{text}");
    assert_eq!(lines.len(), 5, "{text}");

    let text = explain(&place, &config, &["--namespace", "shop"]);
    assert!(text.starts_with("crun, by runtime.default, since no rule matches\n"), "{text}");
    assert!(text.contains("image is not set, and '*/nginx:*' is wanted"), "{text}");
    assert!(!text.contains("pause"), "there it is the same: {text}");
}

#[test]
fn without_rules_it_is_the_default() {
    let place = Place::new();
    let config = place.write("none.toml", "[runtime]\ndefault = \"runc\"\n");
    assert_eq!(explain(&place, &config, &WEB), "runc, by runtime.default, since there are no rules\n");
}

#[test]
fn programs_get_the_same_as_json() {
    let place = Place::new();
    let config = place.write("rules.toml", RULES);
    let expected = json!({
        "backend": "youki",
        "rule": {"file": config, "line": 7, "backend": "youki"},
        "passed": [{
            "file": config, "line": 2, "backend": "runc",
            "failed": [
                {"key": "namespace", "pattern": "kube-*", "value": "shop"},
                {"key": "labels.app", "pattern": "dns", "value": "web"},
            ],
        }],
        "with_pause": {"backend": "crun"},
    });
    for form in [&["--json"][..], &["-o", "json"]] {
        let answer = explain(&place, &config, &[&WEB, form].concat());
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), expected);
    }
    let broken = place.write("broken.toml", "[[routing]]\nbackend = \"kata\"\n");
    let error = place.fails(5, &["route", "explain", "--json", "--config", &broken]);
    assert_eq!(serde_json::from_str::<Value>(&error).unwrap()["error"]["kind"], "invalid-argument");
}

#[test]
fn rules_are_checked_and_dumped_with_the_configuration() {
    let place = Place::new();
    let config = place.write("rules.toml", RULES);
    place.works(&["config", "check", "--config", &config]);
    let dump = place.works(&["config", "dump", "--config", &config]);
    assert!(dump.contains(&format!("# {config}:7\n[[routing]]\nnamespace = \"shop\"\n")), "{dump}");
    let again = place.write("again.toml", &dump);
    let pod = explain(&place, &again, &WEB);
    assert!(pod.starts_with(&format!("youki, by the rule at {again}:")), "{pod}");
    let dumped = place.works(&["config", "dump", "-o", "json", "--config", &config]);
    let dumped: Value = serde_json::from_str(&dumped).unwrap();
    assert_eq!(dumped["routing"][0]["labels"], json!({"app": "dns"}));

    for (text, at, said) in [
        ("[[routing]]\npod = \"web-[\"\nbackend = \"runc\"\n", 2, "is not a pattern"),
        ("[[routing]]\nbackend = \"kata\"\n", 2, "has no [runtime.kata] section"),
        ("[[routing]]\nbackend = \"runc\"\nnamspace = \"x\"\n", 3, "did you mean 'routing.namespace'?"),
        ("[[routing]]\npod = \"x\"\n", 1, "missing field `backend`"),
    ] {
        let wrong = place.write("wrong.toml", text);
        let message = place.fails(5, &["config", "check", "--config", &wrong]);
        assert!(message.contains(&format!("wrong.toml:{at}:")) && message.contains(said), "{message}");
    }
}
