//! Parsers for values: booleans, numbers, durations, sizes, words.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::Fault;
use super::file::{Node, Value};
use super::nearest::nearest;

const NOT_GUESSED: &str = "what was meant would have to be guessed";

/// Maximum duration. Larger than any practical value, and safe to add to a clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Any text.
pub(super) fn text(node: &Node) -> Result<&str, Fault> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(wrong_kind("text", node, "write the value in quotes")),
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, Fault> {
    match node.value {
        Value::Boolean(yes) => Ok(yes),
        _ => Err(wrong_kind("true or false", node, "write true or false, without quotes")),
    }
}

/// The values of a list.
pub(super) fn list(node: &Node) -> Result<&[Node], Fault> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(wrong_kind("a list", node, "write the values in brackets, separated by commas")),
    }
}

/// An integer within `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, Fault>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |node| match node.value {
        Value::Integer(number) => match T::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(out_of_range(number, "number", range.start(), range.end())),
        },
        _ => Err(wrong_kind("a number", node, "write the number without quotes")),
    }
}

/// One of a fixed set of words.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&Node) -> Result<T, Fault> {
    move |node| {
        let text = text(node)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let help = match nearest(text, words.iter().copied()) {
                Some(near) => format!("did you mean {near:?}? Known: {}", words.join(", ")),
                None => format!("write one of: {}", words.join(", ")),
            };
            Fault::new(format!("{text:?} is not known here"), NOT_GUESSED, help)
        })
    }
}

/// A duration greater than zero, such as `"250ms"`, `"30s"`, `"5m"`, `"12h"`.
pub(super) fn duration(node: &Node) -> Result<Duration, Fault> {
    match duration_or_zero(node)? {
        Duration::ZERO => Err(Fault::new(
            "the duration is zero",
            "a limit of zero time would be over before anything could happen",
            "write a duration greater than zero, such as \"30s\"",
        )),
        duration => Ok(duration),
    }
}

/// A duration greater than zero, or `None` for the word `off`.
pub(super) fn duration_or_off(node: &Node) -> Result<Option<Duration>, Fault> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => duration(node).map(Some),
    }
}

/// Parses a duration, zero included. Returns `None` for an invalid text and beyond the maximum of ten years.
pub fn duration_of_text(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|duration| *duration <= LONGEST)
}

/// A duration that may be zero.
pub(super) fn duration_or_zero(node: &Node) -> Result<Duration, Fault> {
    let text = text(node)?;
    let duration = parse_duration(text).ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a duration"),
            "a time without a known unit could mean milliseconds or hours",
            "write a whole number and ms, s, m or h, such as \"250ms\", \"30s\", \"5m\" or \"12h\"",
        )
    })?;
    if duration > LONGEST {
        let why = "a clock cannot be set that far ahead";
        return Err(Fault::new(format!("{text:?} is too long"), why, "write at most \"87600h\" (ten years)"));
    }
    Ok(duration)
}

/// A duration of whole seconds, at least one: the resolution of `Max-Age`.
pub(super) fn whole_seconds(node: &Node) -> Result<Duration, Fault> {
    let duration = duration(node)?;
    if duration.subsec_nanos() != 0 {
        let why = "a cookie's Max-Age counts whole seconds; less than one deletes the cookie at once";
        return Err(Fault::new("the duration is not in whole seconds", why, "write it in s, m or h"));
    }
    Ok(duration)
}

/// A number of bytes within `range`, such as `"64KiB"`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Node) -> Result<usize, Fault> {
    move |node| {
        let text = text(node)?;
        let bytes = parse_size(text).ok_or_else(|| not_a_size(text, ""))?;
        match usize::try_from(bytes) {
            Ok(bytes) if range.contains(&bytes) => Ok(bytes),
            _ => Err(out_of_range(text, "size", show_size(*range.start()), show_size(*range.end()))),
        }
    }
}

/// A number of bytes, `None` for `"unlimited"`.
pub(super) fn size_or_unlimited(node: &Node) -> Result<Option<u64>, Fault> {
    match text(node)? {
        "unlimited" => Ok(None),
        text => parse_size(text).map(Some).ok_or_else(|| not_a_size(text, ", or \"unlimited\"")),
    }
}

fn wrong_kind(expected: &str, node: &Node, help: &str) -> Fault {
    Fault::new(format!("expected {expected}, found {}", node.kind()), NOT_GUESSED, help)
}

fn out_of_range(found: impl Display, noun: &str, from: impl Display, to: impl Display) -> Fault {
    Fault::new(
        format!("{found} is out of range"),
        "outside its range the setting cannot do what it promises",
        format!("write a {noun} from {from} to {to}"),
    )
}

fn not_a_size(text: &str, or: &str) -> Fault {
    Fault::new(
        format!("{text:?} is not a size"),
        "a number of bytes without a known unit could be off by a thousand times",
        format!("write a whole number and B, KiB, MiB or GiB, such as \"64KiB\"{or}"),
    )
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let shift = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(1 << shift)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    Some((number.parse().ok()?, unit))
}

const UNITS: [(&str, u32); 4] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30)];

fn show_size(bytes: usize) -> String {
    let fits = |(_, shift): &&(&str, u32)| bytes.trailing_zeros() >= *shift;
    let (unit, shift) = UNITS.iter().rev().find(fits).unwrap_or(&("B", 0));
    format!("{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(text: &str) -> Node {
        Node { span: 0..0, value: Value::Text(text.to_owned()) }
    }

    fn number(number: i64) -> Node {
        Node { span: 0..0, value: Value::Integer(number) }
    }

    fn what<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        result.unwrap_err().what
    }

    #[test]
    fn durations_have_a_unit() {
        let cases = [("250ms", 250), ("1500ms", 1500), ("30s", 30_000), ("5m", 300_000), ("12h", 43_200_000)];
        for (text, millis) in cases {
            assert_eq!(duration(&node(text)), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let wrong =
            ["", "5", "s", " 5s", "5 s", "5S", "1.5s", "-5s", "+5s", "1m30s", "5d", "99999999999999999999s"];
        for text in wrong {
            assert_eq!(what(duration(&node(text))), format!("{text:?} is not a duration"));
        }
        assert_eq!(what(duration(&number(5))), "expected text, found a number");
    }

    #[test]
    fn zero_is_a_duration_only_where_allowed() {
        assert_eq!(duration_or_zero(&node("0s")), Ok(Duration::ZERO));
        assert_eq!(what(duration(&node("0h"))), "the duration is zero");
    }

    #[test]
    fn durations_end_at_ten_years() {
        assert!(duration(&node("87600h")).is_ok());
        for text in ["87601h", "18446744073709551615ms", "18446744073709551615s"] {
            assert_eq!(what(duration(&node(text))), format!("{text:?} is too long"));
        }
        assert_eq!(
            what(duration(&node("18446744073709551615h"))),
            "\"18446744073709551615h\" is not a duration"
        );
    }

    #[test]
    fn cookie_ages_are_whole_seconds() {
        assert_eq!(whole_seconds(&node("2000ms")), Ok(Duration::from_secs(2)));
        assert_eq!(what(whole_seconds(&node("1500ms"))), "the duration is not in whole seconds");
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        for (text, bytes) in
            [("100B", 100), ("0B", 0), ("64KiB", 65536), ("15MiB", 15 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size_or_unlimited(&node(text)), Ok(Some(bytes)), "{text}");
        }
        assert_eq!(size_or_unlimited(&node("unlimited")), Ok(None));
        for text in ["", "64", "64KB", "64k", "1.5MiB", "-1B", "18446744073709551615GiB"] {
            assert_eq!(what(size_or_unlimited(&node(text))), format!("{text:?} is not a size"));
        }
    }

    #[test]
    fn a_size_outside_its_range_is_told_the_range() {
        let fault = size(8192..=(16 << 20))(&node("8191B")).unwrap_err();
        assert_eq!(
            (fault.what.as_str(), fault.help.as_str()),
            ("8191B is out of range", "write a size from 8KiB to 16MiB")
        );
        assert_eq!(what(size(1..=65534)(&node("unlimited"))), "\"unlimited\" is not a size");
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert_eq!(integer(1..=1000_u32)(&number(1000)), Ok(1000));
        for wrong in [0, 1001, -1, i64::MAX, i64::MIN] {
            assert_eq!(what(integer(1..=1000_u32)(&number(wrong))), format!("{wrong} is out of range"));
        }
        assert_eq!(what(integer(1..=1000_u32)(&node("7"))), "expected a number, found text");
    }

    #[test]
    fn a_word_that_is_not_known_gets_the_nearest() {
        let mode = choice(&[("shared", 1), ("sticky", 2)]);
        assert_eq!(mode(&node("sticky")), Ok(2));
        assert_eq!(mode(&node("stiky")).unwrap_err().help, "did you mean \"sticky\"? Known: shared, sticky");
        assert_eq!(mode(&node("round")).unwrap_err().help, "write one of: shared, sticky");
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(millis in 1_u64..1_000_000_000) {
            prop_assert_eq!(duration(&node(&format!("{millis}ms"))), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn a_shown_size_reads_back(bytes in 0_usize..1 << 40) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes as u64));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let _ = duration(&node(&text));
            let _ = size(0..=usize::MAX)(&node(&text));
        }
    }
}
