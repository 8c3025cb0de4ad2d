//! `[upstream.health]` and `[upstream.outlier]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Method};

use super::http_text::target;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::health::{CheckKind, HealthCheck, HttpCheck, Outlier, StatusSet};
use crate::config::section::Section;
use crate::config::value::{boolean, choice, duration, integer, text};

pub(super) fn health(s: &mut Section<'_>) -> HealthCheck {
    let is_tcp = s.value("kind", choice(&[("http", false), ("tcp", true)]), false);
    let http = http_check(s, is_tcp);
    HealthCheck {
        kind: if is_tcp { CheckKind::Tcp } else { CheckKind::Http(http) },
        interval: s.value("interval", duration, Duration::from_secs(1)),
        timeout: s.value("timeout", duration, Duration::from_secs(1)),
        rise: s.value("rise", integer(1..=1000), 2),
        fall: s.value("fall", integer(1..=1000), 3),
        unproven_after: s.value("unproven_after", duration, Duration::from_secs(2)),
    }
}

fn http_check(s: &mut Section<'_>, is_tcp: bool) -> HttpCheck {
    let method = s.optional("method", method);
    let path = s.optional("path", target);
    let host = s.optional("host", host);
    let status = s.optional("status", statuses);
    let body = s.optional("body", sought);
    let given = [
        ("method", method.is_some()),
        ("path", path.is_some()),
        ("host", host.is_some()),
        ("status", status.is_some()),
        ("body", body.is_some()),
    ];
    for (key, _) in given.iter().filter(|(_, given)| is_tcp && *given) {
        s.fault(s.spot(key), no_http(key));
    }
    if body.is_some() && method == Some(Method::HEAD) {
        s.fault(s.spot("body"), no_body());
    }
    HttpCheck {
        method: method.unwrap_or(Method::GET),
        path: path.unwrap_or_else(|| "/health".to_owned()),
        host,
        status: status.unwrap_or_else(|| StatusSet(vec![200..=399])),
        body,
    }
}

fn method(node: &Node) -> Result<Method, Fault> {
    let known = &[("GET", 0), ("HEAD", 1), ("OPTIONS", 2), ("POST", 3)];
    choice(known)(node).map(|which| match which {
        0 => Method::GET,
        1 => Method::HEAD,
        2 => Method::OPTIONS,
        _ => Method::POST,
    })
}

/// The value of `Host`: a name or an address, with or without a port.
fn host(node: &Node) -> Result<HeaderValue, Fault> {
    let text = text(node)?;
    let valid = text.parse::<Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
    let value = valid.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a host"),
            "instances would refuse the check",
            "write a name or an address, such as \"app.example.com\" or \"app.example.com:8080\"",
        )
    })
}

/// Statuses and ranges of statuses, separated by commas. A single one may be an integer.
fn statuses(node: &Node) -> Result<StatusSet, Fault> {
    if let Value::Integer(_) = node.value {
        return integer(100..=599)(node).map(|status: u16| StatusSet(vec![status..=status]));
    }
    let text = text(node)?;
    let ranges = text.split(',').map(|part| range(part.trim())).collect::<Option<Vec<_>>>();
    ranges.map(StatusSet).ok_or_else(|| {
        Fault::new(
            format!("{text:?} names no statuses"),
            "no answer, or every answer, would be a good one",
            "write statuses from 100 to 599 and ranges of them, such as \"200-299,304\"",
        )
    })
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|status| (100..=599).contains(status))
    };
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

fn sought(node: &Node) -> Result<String, Fault> {
    match text(node)? {
        "" => Err(Fault::new(
            "the text is empty",
            "every body holds it",
            "write what a good answer holds, or leave the key out",
        )),
        text => Ok(text.to_owned()),
    }
}

fn no_http(key: &str) -> Fault {
    Fault::new(
        format!("`{key}` is nothing a TCP check looks at"),
        "the check would be weaker than it looks",
        format!("leave out `{key}`, or write kind = \"http\""),
    )
}

fn no_body() -> Fault {
    let why = "no answer would be a good one";
    Fault::new("an answer to HEAD has no body", why, "leave out `body`, or write method = \"GET\"")
}

pub(super) fn outlier(s: &mut Section<'_>) -> Outlier {
    let outlier = Outlier {
        consecutive: s.value("consecutive", or_off(1..=1_000_000), Outlier::DEFAULT.consecutive),
        error_rate: s.value("error_rate", or_off(1..=100), None),
        latency: s.value("latency", or_off(2..=1000), None),
        internal_errors: s.value("internal_errors", boolean, true),
        window: s.value("window", duration, Outlier::DEFAULT.window),
        min_requests: s.value("min_requests", integer(1..=1_000_000), Outlier::DEFAULT.min_requests),
        eject: s.value("eject", duration, Outlier::DEFAULT.eject),
        max_eject: s.value("max_eject", duration, Outlier::DEFAULT.max_eject),
        max_ejected: s.value("max_ejected", integer(1..=100), Outlier::DEFAULT.max_ejected),
    };
    if outlier.max_eject < outlier.eject && s.are_sound(&["eject", "max_eject"]) {
        let key = if s.has("max_eject") { "max_eject" } else { "eject" };
        s.fault(s.spot(key), crossed());
    }
    outlier
}

/// A number, `None` for `"off"`.
fn or_off<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<Option<T>, Fault>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let number = integer(range);
    move |node| match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        Value::Text(text) => Err(Fault::new(
            format!("{text:?} is neither a number nor \"off\""),
            "what was meant would have to be guessed",
            "write the number without quotes and unit, or \"off\"",
        )),
        _ => number(node).map(Some),
    }
}

fn crossed() -> Fault {
    Fault::new(
        "`max_eject` is shorter than `eject`",
        "the first time would be longer than the longest",
        "write a `max_eject` that is at least as long as `eject`",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(text: &str) -> Node {
        Node { span: 0..0, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn statuses_are_single_ones_and_ranges() {
        let parsed = statuses(&node("200-299, 304,401-401")).unwrap();
        assert_eq!(parsed, StatusSet(vec![200..=299, 304..=304, 401..=401]));
        let one = Node { span: 0..0, value: Value::Integer(204) };
        assert_eq!(statuses(&one).unwrap(), StatusSet(vec![204..=204]));
    }

    #[test]
    fn what_names_no_statuses_is_refused() {
        for wrong in ["", "200-", "-200", "2xx", "299-200", "99", "600", "200,", "200 299", "+20", "0200"] {
            assert!(statuses(&node(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_host_has_no_user_and_no_path() {
        for good in ["app", "app.example.com:8080", "[::1]:80", "10.0.0.1"] {
            assert_eq!(host(&node(good)).unwrap(), good);
        }
        for wrong in ["", "a b", "user@app", "http://app", "app/", "app\r\nx: y"] {
            assert!(host(&node(wrong)).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_is_written_and_nothing_else(first in 100_u16..600, more in 0_u16..500, status in 100_u16..600) {
            let last = (first + more).min(599);
            let set = statuses(&node(&format!("{first}-{last}"))).unwrap();
            let code = http::StatusCode::from_u16(status).unwrap();
            prop_assert_eq!(set.contains(code), (first..=last).contains(&status));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let _ = statuses(&node(&text));
            let _ = host(&node(&text));
        }
    }
}
