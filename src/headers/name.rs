//! Header name matching by the rules of applications.
//!
//! CGI, WSGI, Rack and PHP map `X-User-Id`, `X_User_Id` and `x.user.id` to the same variable. A header that
//! the proxy asserts must therefore be removed from client requests in all these spellings.

use http::{HeaderMap, HeaderName};

/// A set of header names that matches every spelling of each name. Case is ignored. All characters other than
/// letters and digits are equal to each other, and are ignored at the end of a name.
#[derive(Debug, Clone, Default)]
pub struct NameSet {
    /// Indexed by length.
    names: Box<[Equal]>,
    /// Prefixes of names.
    prefixes: Equal,
}

/// Folded names or prefixes, with a filter by first letter that rejects most other names quickly.
#[derive(Debug, Clone, Default)]
struct Equal {
    first: Letters,
    all: Vec<Box<[u8]>>,
}

/// A set of folded letters as a bit mask. Different letters may share a bit; the full comparison
/// distinguishes them.
#[derive(Debug, Clone, Copy, Default)]
struct Letters(u64);

impl NameSet {
    /// The set of `names`. Different spellings of a name are merged.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut by_length: Vec<Equal> = Vec::new();
        for name in names.into_iter().map(trimmed) {
            if by_length.len() <= name.len() {
                by_length.resize(name.len() + 1, Equal::default());
            }
            if let Some(equally_long) = by_length.get_mut(name.len()) {
                equally_long.add(name);
            }
        }
        NameSet { names: by_length.into(), prefixes: Equal::default() }
    }

    /// The same set, extended by every name that begins with one of `prefixes`.
    pub fn with_prefixes(mut self, prefixes: &[&str]) -> Self {
        self.prefixes = Equal::default();
        for prefix in prefixes {
            self.prefixes.add(prefix);
        }
        self
    }

    /// Whether some spelling of `name` is in the set.
    pub fn matches(&self, name: &str) -> bool {
        let name = trimmed(name).as_bytes();
        self.names.get(name.len()).is_some_and(|equally_long| equally_long.begins(name))
            || self.prefixes.begins(name)
    }

    /// Removes every header in the set, in any spelling. Returns the number of removed names.
    pub fn strip(&self, headers: &mut HeaderMap) -> usize {
        strip_if(headers, |name| self.matches(name))
    }
}

impl Equal {
    fn add(&mut self, name: &str) {
        let name: Box<[u8]> = name.bytes().map(fold).collect();
        if !self.all.contains(&name) {
            self.first.add(name.first());
            self.all.push(name);
        }
    }

    /// Whether one of the entries is a prefix of `name`.
    fn begins(&self, name: &[u8]) -> bool {
        self.first.has(name.first())
            && self.all.iter().any(|own| {
                own.len() <= name.len() && own.iter().zip(name).all(|(own, letter)| *own == fold(*letter))
            })
    }
}

impl Letters {
    fn add(&mut self, letter: Option<&u8>) {
        self.0 |= bit(letter);
    }

    fn has(self, letter: Option<&u8>) -> bool {
        self.0 & bit(letter) != 0
    }
}

/// The bit of a letter, or the bit for the empty name.
fn bit(letter: Option<&u8>) -> u64 {
    letter.map_or(1, |letter| 1 << (fold(*letter) % 64))
}

/// Removes every header for whose lower-case name `goes` returns true. Returns the number of removed names.
pub fn strip_if(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) -> usize {
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in &going {
        headers.remove(name);
    }
    going.len()
}

fn trimmed(name: &str) -> &str {
    if name.as_bytes().last().is_some_and(u8::is_ascii_alphanumeric) {
        return name;
    }
    name.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric())
}

fn fold(byte: u8) -> u8 {
    FOLDED.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Table of folded bytes. A table is used for speed: every header name of every message is folded.
#[expect(clippy::indexing_slicing, reason = "an index out of bounds would be an error of the compiler's")]
static FOLDED: [u8; 256] = {
    let mut folded = [b'-'; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            folded[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_name_matches() {
        let set = NameSet::new(["X-User-Id"]);
        for name in ["x-user-id", "X_User_Id", "x.user.id", "X-USER_ID", "x~user!id", "x-user-id_"] {
            assert!(set.matches(name), "{name}");
        }
        for name in ["x-user-i", "x-user-idd", "xuserid", "y-user-id"] {
            assert!(!set.matches(name), "{name}");
        }
    }

    #[test]
    fn a_prefix_matches_what_begins_with_it_in_any_spelling() {
        let set = NameSet::new([]).with_prefixes(&["x-ssl-"]);
        assert!(set.matches("x-ssl-verify") && set.matches("X_SSL.Client_S_DN"));
        assert!(!set.matches("x-ssl") && !set.matches("x-sslverify") && !set.matches("ssl-x"));
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

    /// A canonical form, equal for all spellings of a name.
    fn plain(name: &str) -> String {
        let plain = name.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "?");
        plain.trim_end_matches('?').to_owned()
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
