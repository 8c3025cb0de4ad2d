//! The `compare` table of a scenario, which only comparisons use.

use std::time::Duration;

use super::scenario::{on_lost, think};
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::section::Section;
use crate::config::staging::{Assumption, Change, Claim, Staging, StubStaging};
use crate::config::value::{choice, duration, duration_or_zero, integer, text};

const MODES: [(&str, &str); 5] = [
    ("local", "local"),
    ("sticky", "sticky"),
    ("shared", "shared"),
    ("shared-uncached", "shared-uncached"),
    ("shared-synchronous", "shared-synchronous"),
];
const EVENTS: [(&str, &str); 5] = [
    ("scale-out", "scale-out"),
    ("instance-killed", "instance-killed"),
    ("rolling-restart", "rolling-restart"),
    ("store-failover", "store-failover"),
    ("hot-spot", "hot-spot"),
];
/// The figures that can be published for an application; the proxy's own costs are not among them.
const FIGURES: [(&str, &str); 7] = [
    ("latency_mean", "latency_mean"),
    ("latency_p50", "latency_p50"),
    ("latency_p95", "latency_p95"),
    ("latency_p99", "latency_p99"),
    ("sessions_lost", "sessions_lost"),
    ("actions_failed", "actions_failed"),
    ("actions_per_second", "actions_per_second"),
];
const MOST_INSTANCES: usize = 64;
const MOST_SLOTS: u32 = 10_000;

pub(super) fn staging(s: &mut Section<'_>) -> Staging {
    Staging {
        modes: s.list("modes", choice(&MODES)),
        events: events(s),
        stubs: stubs(s),
        store_delay: s.value("store_delay", duration_or_zero, Duration::ZERO),
        published: s.any_tables("published", claim).into_iter().flatten().collect(),
        assumptions: s.any_tables("assumption", assumption).into_iter().flatten().collect(),
    }
}

fn events(s: &mut Section<'_>) -> Option<Vec<&'static str>> {
    s.has("events").then(|| s.list("events", choice(&EVENTS)))
}

fn stubs(s: &mut Section<'_>) -> StubStaging {
    StubStaging {
        instances: s.optional("instances", integer(1..=MOST_INSTANCES)),
        slots: s.optional("slots", integer(1..=MOST_SLOTS)),
        answer: s.optional("answer", duration),
        login: s.optional("login", duration),
    }
}

fn claim(s: &mut Section<'_>) -> Option<Claim> {
    let mode = s.required("mode", "a figure belongs to one", "\"shared\"", choice(&MODES));
    let figure = s.required("figure", "it tells what the number is", "\"latency_mean\"", choice(&FIGURES));
    let value = s.required("value", "it is what was published", "\"130\"", number);
    Some(Claim { mode: mode?, figure: figure?, value: value? })
}

fn assumption(s: &mut Section<'_>) -> Option<Assumption> {
    let why = "its figures are shown beside these words";
    let about =
        s.required("about", why, "\"a login takes twice as long\"", |node| text(node).map(str::to_owned));
    let change = Change {
        users: s.optional("users", integer(1..=super::scenario::MOST_USERS)),
        think: s.optional_table("think", think).flatten(),
        on_lost: s.optional("on_lost", on_lost),
        login_attempts: s.optional("login_attempts", integer(1..=100)),
        events: events(s),
        stubs: stubs(s),
        store_delay: s.optional("store_delay", duration_or_zero),
    };
    let about = about?;
    if change == Change::default() {
        let help = "give one of `users`, `think`, `on_lost`, `login_attempts`, `events`, `instances`, `slots`, \
                    `answer`, `login` and `store_delay`";
        s.fault(s.own_spot(), Fault::new("nothing is changed", "it would be measured for nothing", help));
    }
    Some(Assumption { about, change })
}

fn number(node: &Node) -> Result<f64, Fault> {
    let text = text(node)?;
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| {
        let help = "write a number without a unit in quotes, such as \"12.4\"; times are milliseconds, shares percent";
        Fault::new(format!("{text:?} is not a figure"), "nothing could be held against it", help)
    })
}
