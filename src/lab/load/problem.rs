//! The reason of a failure from a problem document (RFC 9457), for human readers.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

/// Maximum size of a document; a larger one is ignored.
const MAX_BYTES: usize = 4 << 10;
/// Maximum length of the text.
const MAX_LETTERS: usize = 120;

/// Collects the problem document of one response.
#[derive(Debug, Default)]
pub(super) struct Problem {
    /// `None`: the response has no problem document, or it is too large.
    document: Option<Vec<u8>>,
}

impl Problem {
    /// For a response with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        Problem { document: kind.eq_ignore_ascii_case("application/problem+json").then(Vec::new) }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        match &mut self.document {
            Some(document) if document.len() + data.len() <= MAX_BYTES => document.extend_from_slice(data),
            _ => self.document = None,
        }
    }

    /// The document's `detail`, else its `title`, on one line and with secrets masked by `hide`.
    pub(super) fn told(self, hide: impl Fn(&str) -> String) -> Option<Box<str>> {
        let document: Value = serde_json::from_slice(&self.document?).ok()?;
        let told = ["detail", "title"].into_iter().find_map(|member| document.get(member)?.as_str())?;
        let told = hide(told);
        let words = told.split(|c: char| c.is_whitespace() || c.is_control());
        let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(MAX_LETTERS).collect();
        (!line.is_empty()).then(|| line.trim_end_matches('.').into())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn told(kind: &'static str, parts: &[&str]) -> Option<String> {
        let mut problem =
            Problem::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
        parts.iter().for_each(|part| problem.push(part.as_bytes()));
        problem.told(str::to_owned).map(Into::into)
    }

    #[test]
    fn a_problem_document_tells_its_detail_on_one_line() {
        let json = "application/problem+json; charset=utf-8";
        assert_eq!(told(json, &["{\"title\":\"T\",", "\"detail\":\"a\\n b.\"}"]).as_deref(), Some("a b"));
        assert_eq!(told(json, &["{\"title\":\"T\"}"]).as_deref(), Some("T"));
        let long = format!("{{\"detail\":\"{}\"}}", "x".repeat(500));
        assert_eq!(told(json, &[&long]).map(|told| told.len()), Some(MAX_LETTERS));
    }

    #[test]
    fn what_is_to_be_hidden_is_so_before_it_is_cut() {
        let mut problem = Problem::of(&HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        )]));
        let secret = "s".repeat(MAX_LETTERS);
        problem.push(format!("{{\"detail\":\"no {secret}\"}}").as_bytes());
        assert_eq!(problem.told(|told| told.replace(&secret, "{token}")).as_deref(), Some("no {token}"));
    }

    #[test]
    fn anything_else_tells_nothing() {
        for (kind, text) in [
            ("application/json", "{\"detail\":\"a\"}"),
            ("application/problem+json", "{\"detail\":"),
            ("application/problem+json", "{\"detail\":\" \"}"),
            ("application/problem+json", "[]"),
        ] {
            assert_eq!(told(kind, &[text]), None, "{kind} {text}");
        }
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(told("application/problem+json", &[&long, "{\"detail\":\"a\"}"]), None);
    }
}
