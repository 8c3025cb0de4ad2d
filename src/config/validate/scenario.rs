//! Scenario files.

use std::time::Duration;

use super::canary::share;
use crate::config::canary::Percent;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::scenario::{Arrival, Hot, Login, OnLost, Scenario, Spacing, Think, Users};
use crate::config::section::Section;
use crate::config::value::{boolean, choice, duration, duration_or_zero, integer, text};

use super::scenario_ask::{actions, any_header, ask, asks};
use super::scenario_capture::Names;
use super::staging::staging;

pub(super) const MOST_USERS: u32 = 100_000;
const MOST_PER_SECOND: u32 = 1_000_000;

/// Reads the whole file. `None` has been reported.
pub(in crate::config) fn scenario(s: &mut Section<'_>) -> Option<Scenario> {
    let name = s.required("name", "results are told apart by it", "\"shop\"", word);
    let about = s.value("about", |node| text(node).map(str::to_owned), String::new());
    let warm_up = s.value("warm_up", duration_or_zero, Duration::from_secs(5));
    let counted = s.value("duration", duration, Duration::from_secs(30));
    let timeout = s.value("timeout", duration, Duration::from_secs(30));
    let keep_alive = s.value("keep_alive", boolean, true);
    let (instance_header, login_header) =
        (s.optional("instance_header", any_header), s.optional("login_header", any_header));
    let users = s.table("users", users);
    let arrival = s.optional_table("arrival", arrival).flatten().unwrap_or(Arrival::Closed);
    let mut names = Names::default();
    let session = s.optional_table("session", |s| login(s, &mut names));
    let actions = actions(s, session.is_some(), &mut names);
    names.check(s);
    let staging = s.table("compare", staging);
    Some(Scenario {
        name: name?,
        about,
        warm_up,
        duration: counted,
        timeout,
        keep_alive,
        instance_header,
        login_header,
        users,
        arrival,
        session: session.flatten(),
        actions,
        staging,
    })
}

/// A name that is safe in a file name and in a table.
fn word(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(letter) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a scenario's name"),
        "it stands in tables and files' names",
        "use letters, digits, `-`, `_` and `.`",
    ))
}

fn users(s: &mut Section<'_>) -> Users {
    Users {
        count: s.value("count", integer(1..=MOST_USERS), 50),
        think: s.optional_table("think", think).flatten(),
        hot: s.optional_table("hot", hot).flatten(),
    }
}

pub(super) fn think(s: &mut Section<'_>) -> Option<Think> {
    let median = s.required("median", "it is half of what the pauses are known by", "\"2s\"", duration);
    let p95 = s.required("p95", "it tells how much the pauses differ", "\"6s\"", duration);
    let think = Think { median: median?, p95: p95? };
    if think.p95 < think.median {
        let fault = Fault::new(
            "more than 95 in 100 pauses would be shorter than half of them",
            "no distribution is like that",
            "let `p95` be as long as `median` or longer",
        );
        s.fault(s.spot("p95"), fault);
    }
    Some(think)
}

fn hot(s: &mut Section<'_>) -> Option<Hot> {
    let share = s.required("share", "otherwise nobody is hot", "\"5%\"", share);
    let times = s.required("times", "it tells how hot they are", "10", integer(1..=1000));
    Some(Hot { share: share?, times: times? })
}

fn arrival(s: &mut Section<'_>) -> Option<Arrival> {
    let per_second = integer(1..=MOST_PER_SECOND);
    let rate = s.required("rate", "actions are due so many times a second", "100", per_second);
    let spacings = choice(&[("even", Spacing::Even), ("poisson", Spacing::Poisson)]);
    let spacing = s.value("spacing", spacings, Spacing::Poisson);
    Some(Arrival::Open { rate: f64::from(rate?), spacing })
}

fn login(s: &mut Section<'_>, names: &mut Names) -> Option<Login> {
    let login = asks(s, "login", true, names);
    let login = Login {
        logout: asks(s, "logout", false, names),
        check: s.optional_table("check", |s| ask(s, names)).flatten(),
        on_lost: s.value("on_lost", on_lost, OnLost::Login),
        login_attempts: s.value("login_attempts", integer(1..=100), 3),
        log_out: s.value("log_out", share, Percent::NONE),
        login,
    };
    (!login.login.is_empty()).then_some(login)
}

pub(super) fn on_lost(node: &Node) -> Result<OnLost, Fault> {
    choice(&[("login", OnLost::Login), ("leave", OnLost::Leave)])(node)
}
