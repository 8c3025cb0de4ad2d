//! Conditions under which a request goes to the canary whatever the share.

use http::HeaderMap;
use http::header::USER_AGENT;

use crate::config::{CanaryMatch, Condition, Device, ValueTest};
use crate::headers::cookie::cookie_values;

/// Words that occur only in the `User-Agent` of programs and crawlers, in lower case.
const BOTS: [&str; 9] =
    ["bot", "crawl", "spider", "slurp", "curl/", "wget/", "python-", "headless", "http-client"];

/// Whether all conditions hold for a request with these headers. `user` is the user of its session, if known.
pub(super) fn matches(conditions: &CanaryMatch, headers: &HeaderMap, user: Option<&str>) -> bool {
    conditions.0.iter().all(|condition| holds(condition, headers, user))
}

fn holds(condition: &Condition, headers: &HeaderMap, user: Option<&str>) -> bool {
    match condition {
        Condition::Header { name, value } => {
            headers.get_all(name).iter().any(|line| passes(value, line.as_bytes()))
        }
        Condition::Cookie { name, value } => cookie_values(headers, name).any(|found| passes(value, found)),
        Condition::User(users) => user.is_some_and(|user| users.iter().any(|known| known == user)),
        Condition::Country { header, codes } => {
            headers.get(header).is_some_and(|line| codes.iter().any(|code| line == code.as_str()))
        }
        Condition::Device(device) => {
            let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
            agent.and_then(self::device) == Some(*device)
        }
    }
}

fn passes(test: &ValueTest, value: &[u8]) -> bool {
    match test {
        ValueTest::Is(text) => text.as_bytes() == value,
        ValueTest::Matches(pattern) => std::str::from_utf8(value).is_ok_and(|value| pattern.is_match(value)),
    }
}

/// The device class according to the `User-Agent`; `None` if it is empty. By convention browsers on phones
/// send `Mobi`; Android without it is a tablet.
fn device(agent: &str) -> Option<Device> {
    let agent = agent.to_ascii_lowercase();
    let says = |word: &str| agent.contains(word);
    match () {
        () if agent.trim().is_empty() => None,
        () if BOTS.iter().any(|bot| says(bot)) => Some(Device::Bot),
        () if says("ipad") || says("tablet") || (says("android") && !says("mobi")) => Some(Device::Tablet),
        () if says("mobi") || says("iphone") || says("ipod") => Some(Device::Mobile),
        () => Some(Device::Desktop),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::COOKIE;
    use regex::Regex;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        lines.iter().map(line).collect()
    }

    fn matches(conditions: &CanaryMatch, headers: &HeaderMap) -> bool {
        super::matches(conditions, headers, None)
    }

    fn is(text: &str) -> ValueTest {
        ValueTest::Is(text.to_owned())
    }

    #[test]
    fn a_header_matches_by_any_of_its_lines() {
        let name = HeaderName::from_static("x-canary");
        let one = CanaryMatch(vec![Condition::Header { name: name.clone(), value: is("yes") }]);
        assert!(matches(&one, &headers(&[("x-canary", "no"), ("x-canary", "yes")])));
        assert!(!matches(&one, &headers(&[("x-canary", "yes!")])));
        assert!(!matches(&one, &headers(&[])));
        let pattern = ValueTest::Matches(Regex::new("^(?:v[0-9]+)$").unwrap().into());
        let by_pattern = CanaryMatch(vec![Condition::Header { name, value: pattern }]);
        assert!(matches(&by_pattern, &headers(&[("x-canary", "v12")])));
        assert!(!matches(&by_pattern, &headers(&[("x-canary", "xv12")])));
    }

    #[test]
    fn a_cookie_matches_by_name_and_value() {
        let beta = CanaryMatch(vec![Condition::Cookie { name: "beta".into(), value: is("1") }]);
        assert!(matches(&beta, &headers(&[(COOKIE.as_str(), "a=2; beta=1")])));
        assert!(!matches(&beta, &headers(&[(COOKIE.as_str(), "xbeta=1; beta=12")])));
    }

    #[test]
    fn users_and_countries_are_lists() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let users = CanaryMatch(vec![Condition::User(list(&["7", "42"]))]);
        for (user, expected) in [(Some("42"), true), (Some("4"), false), (None, false)] {
            assert_eq!(super::matches(&users, &HeaderMap::new(), user), expected);
        }
        let header = HeaderName::from_static("cf-ipcountry");
        let countries = CanaryMatch(vec![Condition::Country { header, codes: list(&["DE", "FR"]) }]);
        assert!(matches(&countries, &headers(&[("cf-ipcountry", "FR")])));
        assert!(!matches(&countries, &headers(&[("cf-ipcountry", "US")])));
    }

    #[test]
    fn all_conditions_must_hold() {
        let name = HeaderName::from_static("x-canary");
        let both = CanaryMatch(vec![
            Condition::Header { name, value: is("yes") },
            Condition::Cookie { name: "beta".into(), value: is("1") },
        ]);
        assert!(matches(&both, &headers(&[("x-canary", "yes"), ("cookie", "beta=1")])));
        assert!(!matches(&both, &headers(&[("x-canary", "yes")])));
    }

    #[test]
    fn devices_are_told_by_what_browsers_say() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) Mobile/15E148 Safari/604.1",
                Device::Mobile,
            ),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/126.0 Mobile Safari/537.36", Device::Mobile),
            ("Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0", Device::Mobile),
            ("Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) Mobile/15E148 Safari/604.1", Device::Tablet),
            ("Mozilla/5.0 (Linux; Android 13; SM-X700) Chrome/126.0 Safari/537.36", Device::Tablet),
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0 Safari/537.36", Device::Desktop),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Version/17.5 Safari/605.1.15", Device::Desktop),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Device::Bot),
            ("curl/8.8.0", Device::Bot),
        ] {
            assert_eq!(device(agent), Some(expected), "{agent}");
        }
        assert_eq!(device(" "), None);
    }
}
