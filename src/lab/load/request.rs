//! Requests of a scenario, made ready once and filled in for each user.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Uri};

use super::jar::Jar;
use super::outgoing::{FORM, Outgoing};
use super::target::Target;
use crate::config::scenario::{Ask, AskBody};
use crate::config::template::{Piece, Template};

const AGENT: &str = concat!("vestibule-load/", env!("CARGO_PKG_VERSION"));

/// What the places of a request are filled in with.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    /// From 1.
    pub(super) user: u32,
    pub(super) random: u64,
    pub(super) jar: &'a Jar,
}

/// A request that can be made again and again.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) ask: Ask,
    path: Part<PathAndQuery>,
    /// Those that are the same each time.
    headers: HeaderMap,
    filled_headers: Vec<(HeaderName, Template)>,
    body: Content,
}

/// Something that is the same each time, or not.
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
    Upload(u64),
}

/// What was filled in makes no request.
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
        let mut path = ask.path.clone();
        path.pieces.insert(0, Piece::Text(target.prefix.clone()));
        let fixed = fixed(&path).and_then(|path| path.parse().ok());
        let path = fixed.map_or(Part::Filled(path), Part::Fixed);
        Prepared { ask: ask.clone(), path, headers, filled_headers, body: content }
    }

    /// The request with everything filled in, and the path that cookies go by.
    pub(super) fn fill(
        &self,
        target: &Target,
        http2: bool,
        filling: &Filling<'_>,
    ) -> Result<(Request<Outgoing>, PathAndQuery), Unfit> {
        let path = match &self.path {
            Part::Fixed(path) => path.clone(),
            Part::Filled(template) => render(template, filling).parse().map_err(|_| Unfit)?,
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
        let mut request = Request::new(self.body(filling));
        *request.method_mut() = self.ask.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unfit)?;
        *request.headers_mut() = headers;
        Ok((request, path))
    }

    fn body(&self, filling: &Filling<'_>) -> Outgoing {
        match &self.body {
            Content::Fixed(bytes) => Outgoing::whole(bytes.clone()),
            Content::Text(template) => Outgoing::whole(render(template, filling).into()),
            Content::Json(template) => Outgoing::whole(written(template, filling, &escaped).into()),
            Content::Upload(bytes) => Outgoing::upload(*bytes, &filling.user.to_string()),
        }
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
        AskBody::Upload(bytes) => (Content::Upload(*bytes), Some(FORM)),
    }
}

/// The whole text of a template without places.
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
            Piece::Base64(inner) => text.push_str(&BASE64_STANDARD.encode(render(inner, filling))),
        }
    }
    text
}

/// As it stands inside of a JSON text.
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

    use super::*;
    use crate::config::parse_scenario;
    use crate::lab::load::target::TargetOptions;

    fn prepared(keys: &str, target: &str) -> (Prepared, Target) {
        let text = format!("name = 'x'\n[[action]]\nname = 'a'\n{keys}");
        let scenario = parse_scenario(&text, "x").unwrap_or_else(|problems| panic!("{problems}"));
        let target = Target::new(target, &TargetOptions::default()).unwrap();
        (Prepared::new(&scenario.actions[0].ask, &target, true), target)
    }

    fn jar(cookie: &str) -> Jar {
        let mut jar = Jar::new("h", false);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::SET_COOKIE, HeaderValue::from_str(cookie).unwrap());
        jar.take(&headers, "/");
        jar
    }

    async fn filled(keys: &str, cookie: &str, http2: bool) -> (http::request::Parts, String) {
        let (prepared, target) = prepared(keys, "http://h:81/shop");
        let filling = Filling { user: 7, random: 0xabc, jar: &jar(cookie) };
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
    async fn a_cookie_that_fits_no_header_makes_no_request() {
        let (prepared, target) = prepared("path = '/{cookie:a}'", "http://h");
        let filling = Filling { user: 1, random: 0, jar: &jar("a=b c") };
        assert!(prepared.fill(&target, false, &filling).is_err());
    }
}
