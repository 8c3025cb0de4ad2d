//! Header names compared as an application may read them.
//!
//! CGI, WSGI, Rack and PHP turn `X-User-Id`, `X_User_Id` and `x.user.id` into the same variable, so a
//! name that we assert must be taken from the client in every such spelling.

use http::{HeaderMap, HeaderName};

/// A set of header names that matches every spelling of each: case is ignored and any character that
/// is neither letter nor digit equals any other.
#[derive(Debug, Clone, Default)]
pub struct NameSet {
    /// Bit n is set when a name of n bytes is in the set (63: of 63 or more), so that most names are
    /// dismissed without being read.
    lengths: u64,
    names: Box<[Box<[u8]>]>,
}

impl NameSet {
    /// The set of `names`, duplicates (by spelling) merged.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<Box<[u8]>> =
            names.into_iter().map(|name| name.bytes().map(fold).collect()).collect();
        names.sort_unstable();
        names.dedup();
        let lengths = names.iter().fold(0, |bits, name| bits | length_bit(name.len()));
        NameSet { lengths, names: names.into_boxed_slice() }
    }

    /// Whether some spelling of `name` is in the set.
    pub fn matches(&self, name: &str) -> bool {
        self.lengths & length_bit(name.len()) != 0
            && self.names.iter().any(|own| {
                own.len() == name.len() && own.iter().zip(name.bytes()).all(|(a, b)| *a == fold(b))
            })
    }

    /// Removes every header of the set, in any spelling; returns how many names went.
    pub fn strip(&self, headers: &mut HeaderMap) -> usize {
        self.strip_except(headers, &[])
    }

    /// Like [`strip`](Self::strip), but leaves headers that are spelled exactly as in `kept` (lower case).
    pub fn strip_except(&self, headers: &mut HeaderMap, kept: &[&str]) -> usize {
        let goes = |name: &&HeaderName| self.matches(name.as_str()) && !kept.contains(&name.as_str());
        let mut removed = 0;
        while let Some(name) = headers.keys().find(goes).cloned() {
            headers.remove(name);
            removed += 1;
        }
        removed
    }
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
    fn names_longer_than_the_length_filter_still_match() {
        let long = "x-".repeat(60);
        assert!(NameSet::new([long.as_str()]).matches(&long));
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
}
