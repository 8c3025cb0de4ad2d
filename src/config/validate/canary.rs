//! `[route.canary]`: a second upstream of a route.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::canary_match::canary_match;
use super::route::upstream;
use crate::config::canary::{Canary, CanaryAuto, Percent};
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::{Identity, Session};
use crate::config::section::Section;
use crate::config::upstream::Upstream;
use crate::config::value::{duration, text};

const WHOLE: u32 = 10_000;

/// The context that a route and its canary are validated against.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) upstreams: &'a [Upstream],
    pub(super) session: &'a Session,
    pub(super) identity: &'a Identity,
}

/// The canary next to the route's own upstream, `stable`. `None` has been reported.
pub(super) fn canary(s: &mut Section<'_>, around: Around<'_>, stable: Option<usize>) -> Option<Canary> {
    let percent = s.value("percent", share, Percent::NONE);
    let begins = percent > Percent::NONE || !s.are_sound(&["percent"]);
    let why = "every table makes some requests go to the canary";
    let matches = s.optional_tables("match", why, |s| canary_match(s, around)).into_iter().flatten();
    let matches: Vec<_> = matches.collect();
    let auto = s.optional_table("auto", |s| auto(s, begins));
    let why = "it is the version that is tried";
    let upstream =
        s.required("upstream", why, "\"app-v2\"", |node| upstream(text(node)?, around.upstreams))??;
    if Some(upstream) == stable {
        let what = "the canary is the route's own upstream";
        let why = "both sides would be the same, and nothing would be tried";
        s.fault(s.spot("upstream"), Fault::new(what, why, "name the upstream of the new version"));
    }
    Some(Canary { upstream, percent, matches, auto })
}

fn auto(s: &mut Section<'_>, begins: bool) -> CanaryAuto {
    let steps = match s.has("steps") {
        true => s.list("steps", share),
        false => {
            s.list("steps", share);
            [10, 25, 50, 100].into_iter().filter_map(|step| Percent::new(f64::from(step))).collect()
        }
    };
    let ascending = steps.is_sorted_by(|a, b| a < b);
    if s.are_sound(&["steps"]) && !(ascending && steps.last() == Some(&Percent::ALL)) {
        s.fault(s.spot("steps"), wrong_steps());
    }
    if !begins {
        s.fault(s.spot("steps"), no_beginning());
    }
    CanaryAuto {
        steps,
        hold: s.value("hold", duration, Duration::from_secs(600)),
        max_error_increase: s.value("max_error_increase", part(1..=5_000), 0.01),
        max_latency_increase: s.value("max_latency_increase", part(1..=100_000), 0.1),
        false_alarm: s.value("false_alarm", part(1..=2_000), 0.01),
    }
}

fn wrong_steps() -> Fault {
    Fault::new(
        "the steps do not ascend to \"100%\"",
        "each is a greater share than the one before, and a canary that is good ends with all of it",
        "write them like [\"10%\", \"25%\", \"50%\", \"100%\"]",
    )
}

fn no_beginning() -> Fault {
    Fault::new(
        "there are steps, but the canary begins with no share",
        "without requests there is nothing to compare, so no step would ever be taken",
        "give [route.canary] a `percent`, such as \"10%\"",
    )
}

/// A share, such as `"10%"` or `"2.5%"`.
pub(super) fn share(node: &Node) -> Result<Percent, Fault> {
    let hundredths = hundredths(node, 0..=WHOLE)?;
    let share = u16::try_from(hundredths).ok().and_then(Percent::from_hundredths);
    share.ok_or_else(|| not_percent(text(node).unwrap_or_default()))
}

/// A fraction within `range`, which is in hundredths of a percent.
fn part(range: RangeInclusive<u32>) -> impl Fn(&Node) -> Result<f64, Fault> {
    move |node| hundredths(node, range.clone()).map(|hundredths| f64::from(hundredths) / f64::from(WHOLE))
}

fn hundredths(node: &Node, range: RangeInclusive<u32>) -> Result<u32, Fault> {
    let text = text(node)?;
    let hundredths = parse(text).ok_or_else(|| not_percent(text))?;
    if range.contains(&hundredths) {
        return Ok(hundredths);
    }
    let shown = |hundredths: u32| format!("\"{}%\"", f64::from(hundredths) / 100.0);
    Err(Fault::new(
        format!("{text:?} is out of range"),
        "outside its range the setting cannot do what it promises",
        format!("write a percentage from {} to {}", shown(*range.start()), shown(*range.end())),
    ))
}

fn parse(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 2 {
        return None;
    }
    let scale = if decimals.len() == 1 { 10 } else { 1 };
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(decimals.parse::<u32>().ok()? * scale)
}

fn not_percent(text: &str) -> Fault {
    Fault::new(
        format!("{text:?} is not a percentage"),
        "a number alone could mean a part of one or of a hundred",
        "write a number, with two decimals at most, and %, such as \"10%\" or \"0.25%\"",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentages_have_their_sign_and_two_decimals_at_most() {
        for (text, hundredths) in [("10%", 1000), ("2.5%", 250), ("0.25%", 25), ("100.00%", WHOLE), ("0%", 0)]
        {
            assert_eq!(parse(text), Some(hundredths), "{text}");
        }
        for text in ["", "%", "10", "10 %", ".5%", "5.%", "-1%", "+1%", "1.234%", "1e1%", "99999999999%"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_share_reads_back(hundredths in 0..=10_000_u16) {
            let share = Percent::from_hundredths(hundredths).unwrap();
            prop_assert_eq!(parse(&share.to_string()), Some(u32::from(hundredths)));
        }

        #[test]
        fn no_text_makes_reading_panic(text in "[0-9.%]{0,14}|.*") {
            let _ = parse(&text);
        }
    }
}
