//! `[upstream.retry]` and `[upstream.hedge]`.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::nearest::nearest;
use crate::config::retry::{Hedge, NeverAgain, Retry, RetryBudget, RetryOn};
use crate::config::section::Section;
use crate::config::value::{duration, duration_or_off, integer, text};

/// Maximum number of instances that one request may be sent to.
const MAX_ATTEMPTS: u32 = 10;

pub(super) fn retry(s: &mut Section<'_>) -> Retry {
    let default = Retry::default();
    let retry = Retry {
        attempts: s.value("attempts", integer(1..=MAX_ATTEMPTS), default.attempts),
        on: on(s, default.on),
        budget: RetryBudget {
            percent: s.value("budget", integer(0..=100), default.budget.percent),
            per_second: s.value("min_per_second", integer(0..=1_000_000), default.budget.per_second),
        },
        never: s.list("never", never),
        per_try_timeout: s.value("per_try_timeout", duration_or_off, default.per_try_timeout),
        total_timeout: s.value("total_timeout", duration_or_off, default.total_timeout),
    };
    if let Some(per_try) = retry.per_try_timeout {
        if retry.attempts == 1 || !retry.on.timeout {
            s.fault(s.spot("per_try_timeout"), no_second_try());
        }
        if retry.total_timeout.is_some_and(|total| total <= per_try) {
            s.fault(s.spot("per_try_timeout"), too_patient());
        }
    }
    retry
}

pub(super) fn hedge(s: &mut Section<'_>, retry: &Retry) -> Hedge {
    if retry.attempts == 1 {
        s.fault(s.spot("after"), no_hedge());
    }
    Hedge { after: s.value("after", duration, Duration::from_millis(200)) }
}

/// One retryable outcome.
enum Cause {
    Broken,
    Timeout,
    Status(StatusCode),
}

fn on(s: &mut Section<'_>, default: RetryOn) -> RetryOn {
    let causes = s.list("on", cause);
    if !s.has("on") {
        return default;
    }
    let mut on = RetryOn { broken: false, timeout: false, statuses: Vec::new() };
    for cause in causes {
        match cause {
            Cause::Broken => on.broken = true,
            Cause::Timeout => on.timeout = true,
            Cause::Status(status) => on.statuses.push(status),
        }
    }
    on
}

fn cause(node: &Node) -> Result<Cause, Fault> {
    let text = text(node)?;
    let status = || StatusCode::from_bytes(text.as_bytes()).ok();
    match text {
        "broken" => Ok(Cause::Broken),
        "timeout" => Ok(Cause::Timeout),
        _ => match status().filter(|status| status.is_server_error() || *status == 429) {
            Some(status) => Ok(Cause::Status(status)),
            None => Err(no_cause(text)),
        },
    }
}

fn no_cause(text: &str) -> Fault {
    let help = match nearest(text, ["broken", "timeout"]) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "write \"broken\", \"timeout\", \"429\" or a status from \"500\" to \"599\"".to_owned(),
    };
    let why = "another instance would say the same, or the request would silently not be sent again";
    Fault::new(format!("{text:?} is no reason to ask another instance"), why, help)
}

/// `"GET /api/passport"`, or `"* /api"` for any method.
fn never(node: &Node) -> Result<NeverAgain, Fault> {
    let text = text(node)?;
    let pair = text.split_once(' ').filter(|(_, path)| is_beginning(path));
    let pair = pair.and_then(|(method, path)| {
        let method = match method {
            "*" => None,
            word => Some(Method::from_bytes(word.as_bytes()).ok().filter(|_| is_upper_case(word))?),
        };
        Some(NeverAgain { method, path: path.trim_end_matches('/').to_owned() })
    });
    pair.ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a method and a path"),
            "no request would match it, so the ones that are meant would be sent again",
            "write such as \"GET /api/passport\" or \"* /console/api/oauth\": decoded, `*` for any one segment",
        )
    })
}

fn is_upper_case(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Paths are compared decoded and with single slashes, so the rule must not contain anything that this
/// removes.
fn is_beginning(path: &str) -> bool {
    let fits = |c: char| !c.is_control() && !" ?#%\\".contains(c);
    path.starts_with('/') && !path.contains("//") && path.chars().all(fits)
}

fn no_second_try() -> Fault {
    Fault::new(
        "no second instance is asked when the first takes too long",
        "the key would silently have no effect",
        "let `attempts` be 2 or more and `on` hold \"timeout\", or leave `per_try_timeout` out",
    )
}

fn too_patient() -> Fault {
    Fault::new(
        "the first try may take as long as all of them together",
        "no second one could ever begin",
        "let `per_try_timeout` be shorter than `total_timeout`",
    )
}

fn no_hedge() -> Fault {
    Fault::new(
        "`retry.attempts` is 1, so no second instance is ever asked",
        "the table would silently have no effect",
        "let `attempts` be 2 or more, or leave the table out",
    )
}
