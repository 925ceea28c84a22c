use proptest::prelude::*;

use super::*;
use crate::config::Sources;

/// A configuration of this text alone, as a handler's options bring it.
fn config(text: &str) -> Config {
    let sources =
        Sources { directory: Some("/nonexistent".into()), body: Some(text.to_owned()), ..Sources::default() };
    Config::load(&sources).expect("a valid configuration")
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn web() -> Subject {
    Subject {
        namespace: Some("shop".into()),
        pod: Some("web-0".into()),
        image: Some("docker.io/library/nginx:1.27".into()),
        labels: pairs(&[("app", "web"), ("tier", "front")]),
        annotations: pairs(&[("example.com/isolation", "strict")]),
    }
}

const RULES: &str = r#"
[runtime.youki]
[[routing]]
namespace = "kube-*"
backend = "runc"

[[routing]]
pod = "web-*"
labels = { app = "web", tier = "back" }
image = "*/redis:*"
backend = "runc"

[[routing]]
namespace = "shop"
annotations."example.com/isolation" = "strict"
backend = "youki"

[[routing]]
backend = "runc"
"#;

#[test]
fn the_first_rule_whose_patterns_all_match_decides() {
    let config = config(RULES);
    let verdict = decide(&config, &web());
    assert_eq!(verdict.backend, "youki");
    assert_eq!(verdict.by(), "runtime options (config_body):13");
    let passed: Vec<usize> = verdict.passed.iter().map(|(rule, _)| rule.place.line).collect();
    assert_eq!(passed, [3, 7]);
}

#[test]
fn a_rule_that_does_not_match_says_each_pattern_that_failed_and_on_what() {
    let config = config(RULES);
    let verdict = decide(&config, &Subject { image: None, ..web() });
    let said: Vec<Vec<String>> = verdict
        .passed
        .iter()
        .map(|(_, mismatches)| mismatches.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(said[0], ["namespace is 'shop', which 'kube-*' does not match"]);
    assert_eq!(
        said[1],
        [
            "image is not set, and '*/redis:*' is wanted",
            "labels.tier is 'front', which 'back' does not match"
        ]
    );
}

#[test]
fn without_a_rule_that_matches_it_is_the_default() {
    let config = config("[[routing]]\nnamespace = \"kube-*\"\nbackend = \"runc\"\n");
    let verdict = decide(&config, &web());
    assert_eq!((verdict.backend, verdict.rule, verdict.by().as_str()), ("crun", None, "runtime.default"));
}

#[test]
fn what_is_not_known_matches_no_pattern_and_a_rule_without_patterns_matches_all() {
    for key in ["namespace", "pod", "image", "labels.app", "annotations.app"] {
        let config = config(&format!("[[routing]]\n{key} = \"*\"\nbackend = \"runc\"\n"));
        assert_eq!(decide(&config, &Subject::default()).backend, "crun", "{key}");
    }
    assert_eq!(decide(&config("[[routing]]\nbackend = \"runc\"\n"), &Subject::default()).backend, "runc");
}

#[test]
fn a_pause_container_is_made_before_image_and_labels_are_known() {
    let known = web().with_pause();
    assert!(known.image.is_none() && known.labels.is_empty());
    assert_eq!((known.pod, known.annotations), (web().pod, web().annotations));
}

/// A key of a rule with a pattern that matches [`web`], and one that does not.
const KEYS: [(&str, &str, &str); 6] = [
    ("namespace", "sh?p", "kube-*"),
    ("pod", "web-[0-9]", "db-*"),
    ("image", "*nginx*", "nginx"),
    ("labels.app", "web", "we"),
    ("labels.tier", "*", "back"),
    ("annotations.\"example.com/isolation\"", "strict", "lax"),
];

proptest! {
    #[test]
    fn the_first_match_wins_in_whatever_order_a_rule_has_its_keys(
        rules in prop::collection::vec(
            // Of each key: left out, matching or not; then the order in which they stand.
            (prop::collection::vec(0..4u8, KEYS.len()), Just((0..KEYS.len()).collect::<Vec<_>>()).prop_shuffle()),
            0..6,
        )
    ) {
        let mut text = String::new();
        let mut expected = "crun".to_owned();
        for (number, (states, order)) in rules.iter().enumerate() {
            text.push_str("[[routing]]\n");
            for (position, at) in order.iter().enumerate() {
                if position == number % KEYS.len() {
                    text.push_str(&format!("backend = \"r{number}\"\n"));
                }
                let (key, matching, other) = KEYS[*at];
                match states[*at] {
                    0 => text.push_str(&format!("{key} = {other:?}\n")),
                    1 => {}
                    _ => text.push_str(&format!("{key} = {matching:?}\n")),
                }
            }
            if expected == "crun" && !states.contains(&0) {
                expected = format!("r{number}");
            }
        }
        for number in 0..rules.len() {
            text.push_str(&format!("[runtime.r{number}]\n"));
        }
        let config = config(&text);
        let subject = web();
        let verdict = decide(&config, &subject);
        prop_assert_eq!(verdict.backend, expected);
        prop_assert!(verdict.passed.iter().all(|(_, mismatches)| !mismatches.is_empty()));
    }
}
