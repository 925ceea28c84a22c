//! Which containers of a pod a capture is of: those that the caller names, by id or by their names in the pod.

/// Whether a container is meant.
pub fn is_wanted(wanted: &[String], id: &str, name: &str) -> bool {
    wanted.iter().any(|it| it == id || it == name)
}

/// The first that is wanted and not among these ids and names.
pub fn missing<'a>(wanted: &'a [String], there: &[(String, String)]) -> Option<&'a str> {
    let is_there = |it: &&String| there.iter().any(|(id, name)| *it == id || *it == name);
    wanted.iter().find(|it| !is_there(it)).map(String::as_str)
}

/// All that a request names: the one of callers that know of one alone, and the others.
pub fn named(one: String, more: Vec<String>) -> Vec<String> {
    let mut names = more;
    if !one.is_empty() && !names.contains(&one) {
        names.insert(0, one);
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn containers_are_meant_by_id_or_name_and_each_that_is_named_has_to_be_there() {
        let there = [("id-1", "app"), ("id-2", "side")].map(|(id, name)| (id.to_owned(), name.to_owned()));
        assert!(is_wanted(&list(&["app", "id-2"]), "id-2", "side"));
        assert!(!is_wanted(&list(&["app"]), "id-2", "side"));
        assert_eq!(missing(&list(&["app", "id-2"]), &there), None);
        assert_eq!(missing(&list(&["app", "db", "side"]), &there), Some("db"));
        assert_eq!(missing(&[], &there), None, "the whole pod");
    }

    #[test]
    fn a_caller_that_knows_of_one_and_one_that_knows_of_several_are_understood() {
        assert_eq!(named("app".into(), Vec::new()), ["app"]);
        assert_eq!(
            named("app".into(), list(&["app", "side"])),
            ["app", "side"],
            "newer callers say it twice"
        );
        assert_eq!(named("app".into(), list(&["side"])), ["app", "side"]);
        assert!(named(String::new(), list(&[""])).is_empty());
    }
}
