//! A scenario's requests, prepared once and filled in per user.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::Request;
use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::jar::Jar;
use super::outgoing::{FORM, Outgoing};
use super::target::Target;
use super::values::Values;
use crate::config::scenario::{Ask, AskBody};
use crate::config::template::{Piece, Template};

/// All characters except the unreserved ones of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const AGENT: &str = concat!("vestibule-load/", env!("CARGO_PKG_VERSION"));

/// The values for a request's placeholders.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    /// From 1.
    pub(super) user: u32,
    pub(super) random: u64,
    pub(super) jar: &'a Jar,
    pub(super) values: &'a Values,
}

/// A request template.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) ask: Ask,
    path: Part<PathAndQuery>,
    /// Headers without placeholders.
    headers: HeaderMap,
    filled_headers: Vec<(HeaderName, Template)>,
    body: Content,
    /// The names of the captured values that it uses.
    needs: Vec<String>,
}

/// Either fixed, or with placeholders.
#[derive(Debug)]
enum Part<T> {
    Fixed(T),
    Filled(Template),
}

#[derive(Debug)]
enum Content {
    Fixed(Bytes),
    Json(Template),
    Text(Template),
    Form(Vec<(String, Template)>),
    Upload(u64, Vec<(String, Template)>),
}

/// The filled-in values do not form a valid request.
#[derive(Debug)]
pub(super) struct Unfit;

impl Prepared {
    pub(super) fn new(ask: &Ask, target: &Target, keep_alive: bool) -> Self {
        let (mut headers, mut filled_headers) = (HeaderMap::new(), Vec::new());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let (content, kind) = content(&ask.body);
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Ok(host) = HeaderValue::from_str(target.authority.as_str()) {
            headers.insert(HOST, host);
        }
        if !keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &ask.headers {
            match fixed(value).and_then(|value| HeaderValue::from_str(&value).ok()) {
                Some(value) => drop(headers.insert(name, value)),
                None => filled_headers.push((name.clone(), value.clone())),
            }
        }
        let needs = templates(ask).flat_map(Template::names).map(str::to_owned).collect();
        let mut path = ask.path.clone();
        path.pieces.insert(0, Piece::Text(target.prefix.clone()));
        let fixed = fixed(&path).and_then(|path| path.parse().ok());
        let path = fixed.map_or(Part::Filled(path), Part::Fixed);
        Prepared { ask: ask.clone(), path, headers, filled_headers, body: content, needs }
    }

    /// The first captured value that it uses and that is missing from `values`.
    pub(super) fn lacks(&self, values: &Values) -> Option<&str> {
        self.needs.iter().map(String::as_str).find(|name| values.get(name).is_none())
    }

    /// The filled-in request, and the path that selects its cookies.
    pub(super) fn fill(
        &self,
        target: &Target,
        http2: bool,
        filling: &Filling<'_>,
    ) -> Result<(Request<Outgoing>, PathAndQuery), Unfit> {
        let path = match &self.path {
            Part::Fixed(path) => path.clone(),
            Part::Filled(template) => {
                written(template, filling, &|value| utf8_percent_encode(value, RESERVED).into())
                    .parse()
                    .map_err(|_| Unfit)?
            }
        };
        let mut headers = self.headers.clone();
        for (name, value) in &self.filled_headers {
            headers.insert(name, HeaderValue::from_str(&render(value, filling)).map_err(|_| Unfit)?);
        }
        if let Some(cookies) = filling.jar.header(path.path()) {
            headers.insert(COOKIE, cookies);
        }
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path.clone());
        if http2 {
            headers.remove(HOST);
            headers.remove(CONNECTION);
            uri.scheme = Some(target.scheme.clone());
            uri.authority = Some(target.authority.clone());
        }
        let mut request = Request::new(self.body(filling)?);
        *request.method_mut() = self.ask.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unfit)?;
        *request.headers_mut() = headers;
        Ok((request, path))
    }

    fn body(&self, filling: &Filling<'_>) -> Result<Outgoing, Unfit> {
        let filled = |fields: &[(String, Template)]| -> Vec<(String, String)> {
            fields.iter().map(|(name, value)| (name.clone(), render(value, filling))).collect()
        };
        Ok(match &self.body {
            Content::Fixed(bytes) => Outgoing::whole(bytes.clone()),
            Content::Text(template) => Outgoing::whole(render(template, filling).into()),
            Content::Json(template) => Outgoing::whole(written(template, filling, &escaped).into()),
            Content::Form(fields) => {
                let form = Serializer::new(String::new()).extend_pairs(filled(fields)).finish();
                Outgoing::whole(form.into())
            }
            Content::Upload(bytes, fields) => Outgoing::upload(*bytes, &filled(fields)).ok_or(Unfit)?,
        })
    }
}

fn content(body: &AskBody) -> (Content, Option<&'static str>) {
    let bytes = |template| fixed(template).map(|text| Content::Fixed(text.into()));
    match body {
        AskBody::Empty => (Content::Fixed(Bytes::new()), None),
        AskBody::Json(template) => {
            (bytes(template).unwrap_or_else(|| Content::Json(template.clone())), Some("application/json"))
        }
        AskBody::Text(template) => (
            bytes(template).unwrap_or_else(|| Content::Text(template.clone())),
            Some("text/plain; charset=utf-8"),
        ),
        AskBody::Form(fields) => (Content::Form(fields.clone()), Some("application/x-www-form-urlencoded")),
        AskBody::Upload { bytes, fields } => (Content::Upload(*bytes, fields.clone()), Some(FORM)),
    }
}

/// All templates of a request.
fn templates(ask: &Ask) -> impl Iterator<Item = &Template> {
    let (body, fields) = match &ask.body {
        AskBody::Empty => (None, &[][..]),
        AskBody::Json(template) | AskBody::Text(template) => (Some(template), &[][..]),
        AskBody::Form(fields) | AskBody::Upload { fields, .. } => (None, fields.as_slice()),
    };
    let headers = ask.headers.iter().map(|(_, value)| value);
    let fields = fields.iter().map(|(_, value)| value);
    std::iter::once(&ask.path).chain(headers).chain(body).chain(fields)
}

/// The whole text of a template without placeholders.
fn fixed(template: &Template) -> Option<String> {
    let texts = template.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn render(template: &Template, filling: &Filling<'_>) -> String {
    written(template, filling, &|value| Cow::Borrowed(value))
}

fn written(template: &Template, filling: &Filling<'_>, escape: &dyn Fn(&str) -> Cow<'_, str>) -> String {
    let mut text = String::new();
    for piece in &template.pieces {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::User => text.push_str(&filling.user.to_string()),
            Piece::Random => text.push_str(&format!("{:016x}", filling.random)),
            Piece::Cookie(name) => text.push_str(&escape(filling.jar.value(name).unwrap_or_default())),
            Piece::Value(name) => text.push_str(&escape(filling.values.get(name).unwrap_or_default())),
            Piece::Base64(inner) => text.push_str(&escape(&BASE64_STANDARD.encode(render(inner, filling)))),
        }
    }
    text
}

/// Escaped for use within a JSON string.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['"', '\\']) && !value.contains(char::is_control) {
        return Cow::Borrowed(value);
    }
    let quoted = serde_json::Value::from(value).to_string();
    Cow::Owned(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse_scenario;
    use crate::lab::load::target::TargetOptions;

    fn prepared(keys: &str, target: &str) -> (Prepared, Target) {
        let text = format!("name = 'x'\n[[action]]\nname = 'a'\n{keys}");
        let scenario = parse_scenario(&text, "x").unwrap_or_else(|problems| panic!("{problems}"));
        let target = Target::new(target, &TargetOptions::default()).unwrap();
        (Prepared::new(&scenario.actions[0].steps[0].ask, &target, true), target)
    }

    fn jar(cookie: &str) -> Jar {
        let mut jar = Jar::new("h", false);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::SET_COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        jar.take(&headers, "/");
        jar
    }

    async fn filled(keys: &str, cookie: &str, http2: bool) -> (http::request::Parts, String) {
        let (prepared, target) = prepared(keys, "http://h:81/shop");
        let filling = Filling { user: 7, random: 0xabc, jar: &jar(cookie), values: &Values::default() };
        let (parts, body) = prepared.fill(&target, http2, &filling).unwrap().0.into_parts();
        (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_place_is_filled_in() {
        let keys = r#"
path = "/u/{user}?r={random}"
headers = { "X-CSRF" = "{cookie:csrf}", "X-Fixed" = "a" }
json = '{ "mail": "u{user}@h", "token": "{cookie:csrf}", "secret": "{base64:Passw0rd{user}}", "n": {user} }'
"#;
        let (parts, body) = filled(keys, "csrf=a\\b\"c", false).await;
        assert_eq!(parts.uri, "/shop/u/7?r=0000000000000abc");
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.headers["x-csrf"], "a\\b\"c");
        assert_eq!(parts.headers["x-fixed"], "a");
        assert_eq!(parts.headers["host"], "h:81");
        assert_eq!(parts.headers["cookie"], "csrf=a\\b\"c");
        assert_eq!(parts.headers["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected =
            serde_json::json!({ "mail": "u7@h", "token": "a\\b\"c", "secret": "UGFzc3cwcmQ3", "n": 7 });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn http2_names_the_host_in_the_target() {
        let (parts, body) = filled("path = '/'\nmethod = 'PUT'\ntext = 'a{ b }'", "", true).await;
        assert_eq!(parts.uri, "http://h:81/shop/");
        assert_eq!(parts.method, Method::PUT);
        assert!(!parts.headers.contains_key("host") && !parts.headers.contains_key("cookie"));
        assert_eq!(body, "a{ b }");
    }

    #[tokio::test]
    async fn what_is_filled_into_a_url_stays_in_its_place() {
        let keys = "path = '/{cookie:a}?b={base64:~~~}&c={cookie:a}'";
        let (parts, _) = filled(keys, "a=b c/d?e&f=%41é", false).await;
        let value = "b%20c%2Fd%3Fe%26f%3D%2541%C3%A9";
        assert_eq!(parts.uri, format!("/shop/{value}?b=fn5%2B&c={value}").as_str());
    }

    #[tokio::test]
    async fn a_value_that_fits_no_header_makes_no_request() {
        let capture = "capture = { a = '/a' }";
        let (prepared, target) =
            prepared(&format!("path = '/'\nheaders = {{ X = '{{a}}' }}\n{capture}"), "http://h");
        let mut values = Values::default();
        assert_eq!(prepared.lacks(&values), Some("a"));
        for (value, fits) in [("b c", true), ("b\r\nX-B: c", false)] {
            values.set("a", &crate::secret::Secret::new(value.to_owned()));
            let filling = Filling { user: 1, random: 0, jar: &jar(""), values: &values };
            assert_eq!(prepared.lacks(&values), None);
            assert_eq!(prepared.fill(&target, false, &filling).is_ok(), fits, "{value:?}");
        }
    }

    #[tokio::test]
    async fn a_form_is_encoded_and_fields_go_with_an_upload() {
        let form = "form = { 'a b' = ['x&y', '{user}'], c = '{cookie:k}' }";
        let (parts, body) = filled(&format!("path = '/'\n{form}"), "k=ä+1", false).await;
        assert_eq!(parts.headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!((parts.method, body.as_str()), (Method::POST, "a+b=x%26y&a+b=7&c=%C3%A4%2B1"));
        let (_, body) = filled(&format!("path = '/'\nupload = '3B'\n{form}"), "k=1", false).await;
        for part in ["name=\"a b\"\r\n\r\nx&y\r\n", "name=\"a b\"\r\n\r\n7\r\n", "name=\"c\"\r\n\r\n1\r\n"] {
            assert!(body.contains(part), "{body}");
        }
        assert!(!body.contains("name=\"user\"") && body.contains("\r\n\r\nvvv\r\n--"), "{body}");
    }

    proptest! {
        #[test]
        fn whatever_a_value_is_a_url_keeps_its_shape(value in "\\PC{0,20}") {
            let (prepared, target) = prepared("path = '/a/{v}/b?c={v}&d'\ncapture = { v = '/v' }", "http://h");
            let mut values = Values::default();
            values.set("v", &crate::secret::Secret::new(value));
            let filling = Filling { user: 1, random: 0, jar: &jar(""), values: &values };
            let (_, path) = prepared.fill(&target, false, &filling).map_err(|_| "unfit").unwrap();
            prop_assert_eq!(path.path().split('/').count(), 4);
            prop_assert!(path.path().starts_with("/a/") && path.path().ends_with("/b"));
            let query = path.query().unwrap();
            prop_assert!(query.starts_with("c=") && query.ends_with("&d") && query.matches('&').count() == 1);
        }
    }
}
