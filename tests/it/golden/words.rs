//! Closed sets of words in metrics, logs, JSON and the configuration.

use http::Method;
use vestibule::canary::{State, Variant};
use vestibule::config::{Balance, InstanceState, Mode};
use vestibule::proxy::OtherModeOutcome;
use vestibule::proxy::drill::Why;
use vestibule::proxy::metrics::{RequestKey, RetryReason};
use vestibule::session::{AbsentReason, RevokeTarget, SessionId, StoreError, Unreadable};
use vestibule::upstream::{Cause, CheckResult, Condition, DeadlineAction};

use super::assert_golden;

/// A line with the words of all variants; one that is not listed does not compile.
macro_rules! words {
    ($what:literal, $type:ident :: { $($variant:ident),* }, $word:ident) => {{
        let _ = |value: $type| match value { $($type::$variant => ()),* };
        let words = [$($type::$variant.$word()),*];
        format!("{}: {}\n", $what, words.join(" "))
    }};
}

fn methods() -> String {
    let sent = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND"];
    let label = |method: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        RequestKey::new(None, None, &method, 200).method()
    };
    format!("method: {}\n", sent.map(label).join(" "))
}

fn retries() -> String {
    let reasons = [
        RetryReason::Connect,
        RetryReason::Unsent,
        RetryReason::Broken,
        RetryReason::Timeout,
        RetryReason::Status(503),
    ];
    format!("retry reason: {}\n", reasons.map(|reason| reason.to_string()).join(" "))
}

fn unreadable() -> String {
    let kinds = [
        Unreadable::WrongType,
        Unreadable::NoObject(""),
        Unreadable::TooLarge,
        Unreadable::Expires,
        Unreadable::User,
    ];
    format!("unreadable session: {}\n", kinds.map(Unreadable::kind).join(" "))
}

fn revoked() -> String {
    let targets = [RevokeTarget::Session(SessionId::new("a")), RevokeTarget::User("a".to_owned())];
    format!("revoked by: {}\n", targets.map(|target| target.kind()).join(" "))
}

#[test]
fn golden_closed_sets_keep_their_words() {
    let balance = [Balance::RoundRobin, Balance::LeastRequests, Balance::TwoChoices, Balance::Random];
    let page = [
        words!("mode", Mode::{ Shared, Sticky, Local }, as_str),
        words!("instance state", InstanceState::{ Ready, Drain, Down }, as_str),
        words!("condition", Condition::{ Unchecked, Up, Down, Ejected, BackingOff, Unproven, Fenced }, as_str),
        words!("ejection reason", Cause::{ Consecutive, ErrorRate, Latency }, as_str),
        words!("check result", CheckResult::{ Ok, Failed, Busy }, as_str),
        words!("then", DeadlineAction::{ Keep, Close }, as_str),
        format!("balance: {}\n", balance.each_ref().map(Balance::as_str).join(" ")),
        words!("absent session", AbsentReason::{ NoId, Ambiguous, BadId, Replaced }, as_str),
        words!("store error", StoreError::{
            Timeout, Disconnected, Tls, Busy, Auth, Loading, ReadOnly, PrimaryDown, Moving, Script, OutOfMemory,
            NotDurable, MaxClients, WrongType, Protocol, Rejected
        }, kind),
        words!("side", Variant::{ Stable, Canary }, as_str),
        words!("canary state", State::{ Manual, Comparing, Promoted, RolledBack }, as_str),
        words!("other mode", OtherModeOutcome::{ Same, Elsewhere, New }, as_str),
        words!("drill ended by", Why::{ Time, Asked, Silence, Shutdown }, as_str),
        methods(),
        retries(),
        unreadable(),
        revoked(),
    ];
    assert_golden("words.txt", &page.concat());
}
