//! Header names compared as an application may read them.
//!
//! CGI, WSGI, Rack and PHP turn `X-User-Id`, `X_User_Id` and `x.user.id` into the same variable, so a
//! name that we assert must be taken from the client in every such spelling.

use http::{HeaderMap, HeaderName};

/// A set of header names that matches every spelling of each: case is ignored and any character that
/// is neither letter nor digit equals any other.
#[derive(Debug, Clone, Default)]
pub struct NameSet {
    /// By length: most names are dismissed without being read.
    names: Box<[Vec<Box<[u8]>>]>,
}

impl NameSet {
    /// The set of `names`, duplicates (by spelling) merged.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut by_length: Vec<Vec<Box<[u8]>>> = Vec::new();
        for name in names {
            if by_length.len() <= name.len() {
                by_length.resize(name.len() + 1, Vec::new());
            }
            let name: Box<[u8]> = name.bytes().map(fold).collect();
            if let Some(equally_long) = by_length.get_mut(name.len())
                && !equally_long.contains(&name)
            {
                equally_long.push(name);
            }
        }
        NameSet { names: by_length.into() }
    }

    /// Whether some spelling of `name` is in the set.
    pub fn matches(&self, name: &str) -> bool {
        let is_name = |own: &[u8]| own.iter().zip(name.bytes()).all(|(a, b)| *a == fold(b));
        self.names.get(name.len()).is_some_and(|equally_long| equally_long.iter().any(|own| is_name(own)))
    }

    /// Removes every header of the set, in any spelling; returns how many names went.
    pub fn strip(&self, headers: &mut HeaderMap) -> usize {
        self.strip_except(headers, &[])
    }

    /// Like [`strip`](Self::strip), but leaves headers that are spelled exactly as in `kept` (lower case).
    pub fn strip_except(&self, headers: &mut HeaderMap, kept: &[&str]) -> usize {
        let goes = |name: &&HeaderName| self.matches(name.as_str()) && !kept.contains(&name.as_str());
        let going: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
        for name in &going {
            headers.remove(name);
        }
        going.len()
    }
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_name_matches() {
        let set = NameSet::new(["X-User-Id"]);
        for name in ["x-user-id", "X_User_Id", "x.user.id", "X-USER_ID", "x~user!id"] {
            assert!(set.matches(name), "{name}");
        }
        for name in ["x-user-i", "x-user-idd", "xuserid", "y-user-id"] {
            assert!(!set.matches(name), "{name}");
        }
    }

    #[test]
    fn an_empty_set_and_an_empty_name_match_nothing() {
        assert!(!NameSet::new([]).matches("x"));
        assert!(!NameSet::new(["x"]).matches(""));
    }

    #[test]
    fn strip_removes_all_spellings_and_all_values_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-user-id", "1"), ("x_user_id", "2"), ("x.user.id", "3"), ("accept", "a")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append("x-user-id", HeaderValue::from_static("4"));
        assert_eq!(NameSet::new(["X-User-Id"]).strip(&mut headers), 3);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("accept"));
    }

    /// Equal for all spellings of a name.
    fn plain(name: &str) -> String {
        name.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "?")
    }

    proptest! {
        #[test]
        fn strip_agrees_with_a_naive_comparison(
            set in vec("[aB_.-]{1,3}", 0..5), sent in vec("[ab_.~-]{1,3}", 0..8)
        ) {
            let name = |text: &String| HeaderName::from_bytes(text.as_bytes()).unwrap();
            let mut headers: HeaderMap =
                sent.iter().map(|text| (name(text), HeaderValue::from_static("1"))).collect();
            NameSet::new(set.iter().map(String::as_str)).strip(&mut headers);
            let is_in_set = |text: &str| set.iter().any(|own| plain(own) == plain(text));
            for text in &sent {
                prop_assert_eq!(headers.contains_key(name(text)), !is_in_set(text), "{}", text);
            }
        }
    }
}
