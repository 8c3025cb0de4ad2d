use std::time::Duration;

use super::*;
use crate::config::parse;

const CONFIG: &str = r#"
version = 1
listener = [{ address = "127.0.0.1:0" }]
upstream = [
    { name = "app", instance = [{ address = "127.0.0.1:5001" }] },
    { name = "app-v2", instance = [{ address = "127.0.0.1:5002" }] },
]
[[route]]
upstream = "app"
[route.canary]
upstream = "app-v2"
percent = "10%"
[[route.canary.match]]
header = { name = "x-canary", value = "yes" }
"#;

const AUTO: &str = "[route.canary.auto]\nsteps = [\"50%\", \"100%\"]\nhold = \"1s\"\n";

fn config(text: &str) -> Config {
    parse(text, "x").unwrap_or_else(|problems| panic!("{problems}"))
}

fn canary(more: &str) -> Canary {
    let mut canaries = Canaries::new(&config(&format!("{CONFIG}{more}"))).unwrap();
    canaries.routes.remove(0).unwrap()
}

fn percent(value: f64) -> Percent {
    Percent::new(value).unwrap()
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    [(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect()
}

/// The `Cookie` header of a client with this choice.
fn kept(canary: &Canary, choice: Choice) -> HeaderMap {
    let cookie = canary.set_cookie(choice, false).unwrap();
    headers("cookie", cookie.to_str().unwrap().split(';').next().unwrap())
}

/// Draws new clients until each side has one, and returns their cookies.
fn one_of_each(canary: &Canary) -> [HeaderMap; 2] {
    Variant::BOTH.map(|side| {
        let choices = (0..).map(|n| canary.choose(&HeaderMap::new(), Some(format!("{n}").as_bytes()), None));
        kept(canary, choices.into_iter().find(|choice| choice.side == side).unwrap())
    })
}

#[test]
fn nobody_changes_side_when_the_share_changes() {
    let canary = canary("");
    let [stable, tried] = one_of_each(&canary);
    for share in [0.0, 100.0, 50.0, 10.0] {
        canary.set(percent(share));
        assert_eq!(canary.live(), (State::Manual, percent(share)));
        for (headers, side) in [(&stable, Variant::Stable), (&tried, Variant::Canary)] {
            let expected = Choice { side, drawn_at: Some(percent(10.0)), tell: false };
            assert_eq!(canary.choose(headers, None, None), expected, "{share}");
        }
    }
}

#[test]
fn a_rollback_takes_everybody_back_and_a_promotion_only_new_clients() {
    let canary = canary("");
    let [stable, tried] = one_of_each(&canary);
    let matching = headers("x-canary", "yes");
    assert_eq!(
        canary.choose(&matching, None, None),
        Choice { side: Variant::Canary, drawn_at: None, tell: false }
    );
    canary.promote();
    assert_eq!(canary.choose(&stable, None, None).side, Variant::Stable);
    assert_eq!(canary.choose(&HeaderMap::new(), None, None).side, Variant::Canary);
    canary.roll_back();
    for headers in [&stable, &tried, &matching, &HeaderMap::new()] {
        let choice = canary.choose(headers, None, None);
        assert_eq!(choice, Choice { side: Variant::Stable, drawn_at: None, tell: false });
        assert_eq!(canary.set_cookie(choice, false), None);
    }
}

#[test]
fn only_clients_drawn_at_the_present_share_are_compared() {
    let canary = canary(AUTO);
    let [stable, _] = one_of_each(&canary);
    assert!(canary.compares(canary.choose(&stable, None, None)));
    assert!(!canary.compares(canary.choose(&headers("x-canary", "yes"), None, None)));
    canary.set(percent(20.0));
    assert_eq!(canary.live(), (State::Comparing, percent(20.0)));
    assert!(!canary.compares(canary.choose(&stable, None, None)));
    assert!(canary.compares(canary.choose(&HeaderMap::new(), None, None)));
    canary.set(Percent::ALL);
    assert_eq!(canary.live(), (State::Manual, Percent::ALL));
}

fn tallies(requests: u64, one_fails_in: u64) -> Tallies {
    let tally = |requests: u64, one_fails_in: u64| {
        let mut tally = Tally::default();
        for n in 0..requests {
            match n % one_fails_in == 0 {
                true => tally.failed(),
                false => tally.answered(Some(Duration::from_millis(10 + n % 10))),
            }
        }
        tally
    };
    Tallies { canary: tally(requests, one_fails_in), stable: tally(requests, 100) }
}

#[test]
fn a_good_canary_goes_step_by_step_to_everybody() {
    let canary = canary(AUTO);
    let mut now = Instant::now();
    let mut counted = 0;
    for after in [(State::Comparing, percent(50.0)), (State::Promoted, Percent::ALL)] {
        canary.look(&tallies(counted, 100), now);
        counted += 20_000;
        now += Duration::from_secs(1);
        canary.look(&tallies(counted, 100), now);
        assert_eq!(canary.live(), after);
    }
}

#[test]
fn a_bad_canary_is_rolled_back_and_what_the_operator_says_then_stands() {
    let canary = canary(AUTO);
    let now = Instant::now();
    canary.look(&Tallies::default(), now);
    canary.look(&tallies(2_000, 10), now);
    assert_eq!(canary.live(), (State::RolledBack, Percent::NONE));
    let shown = canary.evidence().unwrap().tallies.canary.trials;
    assert_eq!((shown.requests, shown.failed), (2_000, 200));
    canary.look(&tallies(200_000, 100), now + Duration::from_secs(60));
    assert_eq!(canary.live(), (State::RolledBack, Percent::NONE));
    canary.set(percent(5.0));
    assert_eq!((canary.live(), canary.evidence()), ((State::Comparing, percent(5.0)), None));
}

#[test]
fn what_failed_before_the_operator_begins_anew_is_forgotten() {
    let canary = canary(AUTO);
    let now = Instant::now();
    canary.look(&Tallies::default(), now);
    canary.look(&tallies(2_000, 10), now);
    assert_eq!(canary.live().0, State::RolledBack);
    canary.set(percent(10.0));
    canary.look(&tallies(2_000, 10), now);
    assert_eq!(canary.live(), (State::Comparing, percent(10.0)));
    assert_eq!(canary.evidence().unwrap().tallies, Tallies::default());
}

#[test]
fn a_changed_configuration_leaves_what_it_does_not_name_alone() {
    let before = Canaries::new(&config(CONFIG)).unwrap();
    let [stable, tried] = one_of_each(before.of_route(0).unwrap());
    before.iter().for_each(|canary| canary.set(percent(30.0)));
    let other_place = CONFIG.replace(
        "upstream = [\n",
        "upstream = [\n    { name = \"x\", instance = [{ address = \"127.0.0.1:5003\" }] },\n",
    );
    let same = before.renewed(&config(&other_place)).unwrap();
    let (old, new) = (before.of_route(0).unwrap(), same.of_route(0).unwrap());
    assert_eq!((old.upstream(), new.upstream()), (1, 2));
    assert_eq!((old.id(), new.live()), (new.id(), (State::Manual, percent(30.0))));
    assert_eq!([&stable, &tried].map(|headers| new.choose(headers, None, None).side), Variant::BOTH);

    let other_share = before.renewed(&config(&CONFIG.replace("10%", "20%"))).unwrap();
    assert_eq!(other_share.of_route(0).unwrap().live(), (State::Manual, percent(20.0)));
    assert_eq!(
        [&stable, &tried].map(|headers| other_share.of_route(0).unwrap().choose(headers, None, None).side),
        Variant::BOTH
    );

    let other_version = before.renewed(&config(&CONFIG.replace("app-v2", "app-v3"))).unwrap();
    assert!(other_version.of_route(0).unwrap().choose(&tried, None, None).tell);
}
