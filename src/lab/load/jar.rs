//! A user's cookie jar (RFC 6265 section 5). Users talk to one host, so cookies of other domains are
//! discarded.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{HeaderValue, SET_COOKIE};

use super::cookie_date;
use super::values::HIDDEN_FROM;

/// A cookie with the attributes that determine when it is sent.
#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    domain: Option<String>,
    path: String,
    secure: bool,
    expires: Option<SystemTime>,
}

/// The cookies of one user for one host.
#[derive(Debug)]
pub(super) struct Jar {
    host: String,
    /// Whether `Secure` cookies are accepted: over TLS, or on a loopback address, which browsers trust
    /// equally.
    secure: bool,
    /// Longer paths first, then older cookies.
    cookies: Vec<Cookie>,
}

impl Jar {
    pub(super) fn new(host: &str, tls: bool) -> Self {
        let host = host.to_ascii_lowercase();
        let is_local = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        Jar { secure: tls || is_local, host, cookies: Vec::new() }
    }

    /// Stores the cookies that a response to a request for `path` sets.
    pub(super) fn take(&mut self, headers: &HeaderMap, path: &str) {
        for line in headers.get_all(SET_COOKIE) {
            if let Ok(line) = str::from_utf8(line.as_bytes())
                && let Some(cookie) = parse(line, path)
            {
                self.put(cookie);
            }
        }
    }

    fn put(&mut self, cookie: Cookie) {
        let is_ours = cookie.domain.as_ref().is_none_or(|domain| {
            let below = self.host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
            self.host == *domain || below && self.host.parse::<IpAddr>().is_err()
        });
        if !is_ours || cookie.secure && !self.secure {
            return;
        }
        let same = |other: &Cookie| {
            other.name == cookie.name && other.path == cookie.path && other.domain == cookie.domain
        };
        let alive = cookie.expires.is_none_or(|expires| expires > SystemTime::now());
        match (self.cookies.iter().position(same), alive) {
            (Some(at), true) => self.cookies.splice(at..=at, [cookie]).for_each(drop),
            (Some(at), false) => drop(self.cookies.remove(at)),
            (None, true) => {
                let at = self.cookies.partition_point(|other| other.path.len() >= cookie.path.len());
                self.cookies.insert(at, cookie);
            }
            (None, false) => {}
        }
    }

    /// The `Cookie` header of a request for `path`.
    pub(super) fn header(&self, path: &str) -> Option<HeaderValue> {
        let mut line = String::new();
        for Cookie { name, value, .. } in self.sent(path) {
            let separator = if line.is_empty() { "" } else { "; " };
            line.extend([separator, name, if name.is_empty() { "" } else { "=" }, value]);
        }
        HeaderValue::try_from(line).ok().filter(|line| !line.is_empty())
    }

    /// The value of the first cookie of this name, regardless of its path.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|cookie| cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    /// `text` with every cookie value replaced by `{cookie:name}`. Values that are too short to be secret are
    /// kept.
    pub(super) fn hidden(&self, text: String) -> String {
        let secrets = self.cookies.iter().filter(|cookie| cookie.value.len() >= HIDDEN_FROM);
        secrets.fold(text, |text, cookie| text.replace(&cookie.value, &format!("{{cookie:{}}}", cookie.name)))
    }

    pub(super) fn clear(&mut self) {
        self.cookies.clear();
    }

    fn sent(&self, path: &str) -> impl Iterator<Item = &Cookie> {
        let timed = self.cookies.iter().any(|cookie| cookie.expires.is_some());
        let now = timed.then(SystemTime::now);
        self.cookies.iter().filter(move |cookie| {
            path_matches(&cookie.path, path)
                && cookie.expires.is_none_or(|expires| now.is_some_and(|now| expires > now))
        })
    }
}

/// The value that a response sets for the cookie of this name; the last one wins.
pub(super) fn set(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(SET_COOKIE).into_iter();
    let mut set = lines.filter_map(|line| parse(str::from_utf8(line.as_bytes()).ok()?, "/"));
    set.rfind(|cookie| cookie.name == name).map(|cookie| cookie.value)
}

/// RFC 6265 section 5.2.
fn parse(line: &str, request_path: &str) -> Option<Cookie> {
    let mut parts = line.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let mut cookie = Cookie {
        name: Some(name.trim()).filter(|name| !name.is_empty())?.to_owned(),
        value: value.trim().to_owned(),
        domain: None,
        path: default_path(request_path).to_owned(),
        secure: false,
        expires: None,
    };
    let mut max_age = None;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "domain" => {
                cookie.domain =
                    Some(value.trim_start_matches('.').to_ascii_lowercase()).filter(|d| !d.is_empty())
            }
            "path" if value.starts_with('/') => cookie.path = value.to_owned(),
            "path" => cookie.path = default_path(request_path).to_owned(),
            "secure" => cookie.secure = true,
            "max-age" => max_age = after(value).or(max_age),
            "expires" => cookie.expires = cookie_date::parse(value).or(cookie.expires),
            _ => {}
        }
    }
    cookie.expires = max_age.or(cookie.expires);
    Some(cookie)
}

fn after(seconds: &str) -> Option<SystemTime> {
    match seconds.strip_prefix('-') {
        Some(digits) => digits.parse::<u64>().ok().map(|_| SystemTime::UNIX_EPOCH),
        None if seconds.starts_with('+') => None,
        None => match seconds.parse::<u64>().ok()? {
            0 => Some(SystemTime::UNIX_EPOCH),
            // Limited to a hundred years, so that the addition cannot overflow.
            seconds => SystemTime::now().checked_add(Duration::from_secs(seconds.min(100 * 366 * 86400))),
        },
    }
}

/// RFC 6265 section 5.1.4.
fn default_path(request_path: &str) -> &str {
    match request_path.rfind('/') {
        Some(at @ 1..) => request_path.get(..at).unwrap_or("/"),
        _ => "/",
    }
}

/// RFC 6265 section 5.1.4.
fn path_matches(cookie: &str, request: &str) -> bool {
    let rest = request.strip_prefix(cookie);
    rest.is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jar(lines: &[&str]) -> Jar {
        let mut jar = Jar::new("app.example.com", false);
        for line in lines {
            take(&mut jar, line);
        }
        jar
    }

    fn take(jar: &mut Jar, line: &str) {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_str(line).unwrap());
        jar.take(&headers, "/shop/cart");
    }

    fn sent(jar: &Jar, path: &str) -> String {
        jar.header(path).map_or(String::new(), |line| line.to_str().unwrap().to_owned())
    }

    #[test]
    fn cookies_are_sent_below_their_path_longer_paths_first() {
        let jar = jar(&["a=1; Path=/", "b=2", "c=3; Path=/shop/cart", "d=4; path=other", "e=5; Path=/"]);
        assert_eq!(sent(&jar, "/shop/cart"), "c=3; b=2; d=4; a=1; e=5");
        assert_eq!(sent(&jar, "/shop/cart/1"), "c=3; b=2; d=4; a=1; e=5");
        assert_eq!(sent(&jar, "/shop/carts"), "b=2; d=4; a=1; e=5");
        assert_eq!(sent(&jar, "/shopping"), "a=1; e=5");
        assert_eq!(jar.value("c"), Some("3"));
    }

    #[test]
    fn a_value_is_hidden_in_what_is_told() {
        let jar = jar(&["a=1; Path=/", "sid=s3cret; Path=/"]);
        assert_eq!(jar.hidden("1: no s3cret".to_owned()), "1: no {cookie:sid}");
    }

    #[test]
    fn the_last_cookie_of_a_name_is_what_an_answer_sets() {
        let mut headers = HeaderMap::new();
        for line in ["a=1", "b=2; Path=/x", "a=3; Domain=other.example"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        assert_eq!((set(&headers, "a").as_deref(), set(&headers, "c")), (Some("3"), None));
    }

    #[test]
    fn a_cookie_is_replaced_in_its_place() {
        let mut jar = jar(&["a=1; Path=/", "b=2; Path=/", "a=3; Path=/", "a=4; Path=/x"]);
        assert_eq!(sent(&jar, "/"), "a=3; b=2");
        jar.clear();
        assert_eq!(jar.header("/"), None);
    }

    #[test]
    fn deleted_cookies_are_gone() {
        for deletion in [
            "a=; Max-Age=0; Path=/",
            "a=; Max-Age=-1; Path=/",
            "a=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/",
            "a=x; Max-Age=0; Expires=Thu, 01 Jan 2099 00:00:00 GMT; Path=/",
        ] {
            assert_eq!(sent(&jar(&["a=1; Path=/", deletion]), "/"), "", "{deletion}");
        }
        let kept = "a=2; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/";
        assert_eq!(sent(&jar(&[kept]), "/"), "a=2");
        assert_eq!(sent(&jar(&["a=2; Max-Age=soon; Max-Age=+1; Path=/"]), "/"), "a=2");
    }

    #[test]
    fn cookies_of_other_domains_are_not_kept() {
        let lines = [
            "a=1; Domain=example.com; Path=/",
            "b=2; Domain=.app.example.com; Path=/",
            "c=3; Domain=; Path=/",
        ];
        assert_eq!(sent(&jar(&lines), "/"), "a=1; b=2; c=3");
        for domain in ["other.com", "x.app.example.com", "ple.com"] {
            assert_eq!(sent(&jar(&[&format!("a=1; Domain={domain}; Path=/")]), "/"), "", "{domain}");
        }
        let mut numbered = Jar::new("10.0.0.1", false);
        take(&mut numbered, "a=1; Domain=0.0.1; Path=/");
        assert_eq!(sent(&numbered, "/"), "");
    }

    #[test]
    fn secure_cookies_need_tls_or_this_machine() {
        for (host, tls, expected) in [
            ("a.example", false, ""),
            ("a.example", true, "a=1"),
            ("localhost", false, "a=1"),
            ("127.0.0.1", false, "a=1"),
        ] {
            let mut jar = Jar::new(host, tls);
            take(&mut jar, "a=1; Secure; Path=/");
            assert_eq!(sent(&jar, "/"), expected, "{host} {tls}");
        }
    }

    #[test]
    fn values_keep_their_equals_signs_and_lines_without_any_are_no_cookies() {
        assert_eq!(sent(&jar(&[" a = b=c ; Path=/", "flag", "=x", ""]), "/"), "a=b=c");
    }

    proptest! {
        #[test]
        fn no_line_makes_reading_panic(line in "[ -~]{0,60}", path in "/?[a-z/]{0,9}") {
            let mut headers = HeaderMap::new();
            headers.append(SET_COOKIE, HeaderValue::from_str(&line).unwrap());
            let mut jar = Jar::new("a.example", true);
            jar.take(&headers, &path);
            let _ = jar.header(&path);
        }
    }
}
