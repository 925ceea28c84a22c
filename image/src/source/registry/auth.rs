//! How a registry says that it wants a token, and what the token service answers (distribution specification, token
//! authentication).

use serde::Deserialize;

/// What a registry wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of this service.
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// Reads a `WWW-Authenticate` header.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, String::new(), String::new());
        let mut rest = rest;
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = value.to_owned(),
                "scope" => scope = value.to_owned(),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// Where to ask for a token; the scope is pulling from this repository where the registry names none.
pub(super) fn token_url(realm: &str, service: &str, scope: &str, repository: &str) -> Option<String> {
    if !realm.starts_with("https://") && !realm.starts_with("http://") {
        return None;
    }
    let scope = if scope.is_empty() { format!("repository:{repository}:pull") } else { scope.to_owned() };
    let mut url = realm.to_owned();
    let mut separator = if realm.contains('?') { '&' } else { '?' };
    for (key, value) in [("service", service), ("scope", &scope)] {
        if !value.is_empty() {
            url.push(separator);
            url.push_str(key);
            url.push('=');
            url.push_str(&escaped(value));
            separator = '&';
        }
    }
    Some(url)
}

/// The token in an answer; `token` and `access_token` mean the same.
pub(super) fn token(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    // It becomes a part of a header.
    token.chars().all(|c| c.is_ascii_graphic()).then_some(token)
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:/,".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let header = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(header) else {
            panic!("no challenge")
        };
        let url = token_url(&realm, &service, &scope, "a/b").unwrap();
        assert_eq!(url, "https://auth.example/token?service=registry.example&scope=repository:a/b:pull,push");
        let url = token_url("https://x/t?a=1", "s &", "", "a/b").unwrap();
        assert_eq!(url, "https://x/t?a=1&service=s%20%26&scope=repository:a/b:pull");
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(token_url("file:///etc", "", "", "a"), None);
    }

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(token(br#"{"token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(token(br#"{"access_token":"abc","expires_in":300}"#).as_deref(), Some("abc"));
        assert_eq!(token(b"{\"token\":\"a\\r\\nx: y\"}"), None);
        assert_eq!(token(b"{}"), None);
    }
}
