//! `--fail-if`: limits on the figures of a load test or a comparison, for the exit code of a script.

use std::io::{self, Write};

use anyhow::{Context, bail, ensure};

use crate::lab::compare::SessionMode;

/// A limit was exceeded, or a figure is worse than in the baseline.
pub(super) const EXIT_BEYOND: u8 = 10;

/// A limit that fails a load test or a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Threshold {
    /// The limit as written.
    text: String,
    /// The mode of a comparison. `None`: every mode.
    pub(super) mode: Option<SessionMode>,
    pub(super) measure: Measure,
    relation: Relation,
    /// In the measure's unit.
    limit: f64,
}

/// The figures that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Percent of the sessions.
    Lost,
    /// Percent of the actions.
    Failed,
    /// Successful actions per second.
    Rate,
    /// Milliseconds, as for all below: the latency of an action.
    Mean,
    P50,
    P95,
    P99,
    /// Median time to the first event of a stream.
    FirstEvent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Measure {
    const ALL: [Measure; 8] = [
        Measure::Lost,
        Measure::Failed,
        Measure::Rate,
        Measure::Mean,
        Measure::P50,
        Measure::P95,
        Measure::P99,
        Measure::FirstEvent,
    ];

    fn name(self) -> &'static str {
        match self {
            Measure::Lost => "lost",
            Measure::Failed => "failed",
            Measure::Rate => "rate",
            Measure::Mean => "mean",
            Measure::P50 => "p50",
            Measure::P95 => "p95",
            Measure::P99 => "p99",
            Measure::FirstEvent => "first_event",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Measure::Lost | Measure::Failed => "%",
            Measure::Rate => "/s",
            _ => "ms",
        }
    }

    /// The factor from `unit` to the measure's own unit.
    fn factor(self, unit: &str) -> Option<f64> {
        match (self.unit(), unit) {
            ("ms", "s") => Some(1000.0),
            (own, unit) => (own == unit).then_some(1.0),
        }
    }
}

impl Threshold {
    /// Parses a limit such as `lost > 1%`, or `shared p99 >= 1.5s` for one mode.
    pub(super) fn parse(text: &str) -> anyhow::Result<Threshold> {
        let at =
            text.find(['<', '>']).context("write a figure, < or >, and a number, such as \"lost > 1%\"")?;
        let (left, right) = text.split_at(at);
        let (relation, number) = [
            (">=", Relation::AtLeast),
            ("<=", Relation::AtMost),
            (">", Relation::Above),
            ("<", Relation::Below),
        ]
        .into_iter()
        .find_map(|(sign, relation)| Some((relation, right.strip_prefix(sign)?.trim())))
        .context("neither < nor >")?;
        let (mode, measure) = match left.split_whitespace().collect::<Vec<_>>().as_slice() {
            [measure] => (None, self::measure(measure)?),
            [mode, measure] => (Some(self::mode(mode)?), self::measure(measure)?),
            _ => bail!("{left:?} is not a figure; known: {}", known()),
        };
        let digits = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, unit) = number.split_at(digits);
        let value: f64 = number.parse().ok().context("there is no number to compare with")?;
        let factor = measure.factor(unit.trim());
        let factor = factor.with_context(|| {
            format!("{} is counted in {}: write it behind the number", measure.name(), measure.unit())
        })?;
        Ok(Threshold { text: text.trim().to_owned(), mode, measure, relation, limit: value * factor })
    }

    /// A message when `value` exceeds the limit, or when there is no value. `of` is the mode's name, possibly
    /// empty.
    pub(super) fn passed(&self, of: &str, value: Option<f64>) -> Option<String> {
        let of = if of.is_empty() { String::new() } else { format!("{of}: ") };
        let Some(value) = value else { return Some(format!("{of}{}: nothing was measured", self.text)) };
        let is_passed = match self.relation {
            Relation::Above => value > self.limit,
            Relation::AtLeast => value >= self.limit,
            Relation::Below => value < self.limit,
            Relation::AtMost => value <= self.limit,
        };
        is_passed.then(|| format!("{of}{}: it is {value:.2} {}", self.text, self.measure.unit()))
    }
}

/// Prints the exceeded limits.
pub(super) fn tell(passed: &[String], out: &mut impl Write) -> io::Result<()> {
    if passed.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nfailed by --fail-if:")?;
    passed.iter().try_for_each(|passed| writeln!(out, "  {passed}"))
}

/// A limit of a load test, which has no modes.
pub(super) fn without_mode(text: &str) -> anyhow::Result<Threshold> {
    let threshold = Threshold::parse(text)?;
    ensure!(threshold.mode.is_none(), "a load has no modes: leave the mode out");
    Ok(threshold)
}

fn measure(name: &str) -> anyhow::Result<Measure> {
    let found = Measure::ALL.into_iter().find(|measure| measure.name() == name);
    found.with_context(|| format!("{name:?} is not a figure; known: {}", known()))
}

fn mode(name: &str) -> anyhow::Result<SessionMode> {
    let known = SessionMode::ALL.map(SessionMode::as_str).join(", ");
    SessionMode::parse(name).with_context(|| format!("{name:?} is not a mode; known: {known}"))
}

fn known() -> String {
    Measure::ALL.map(Measure::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_figure_a_relation_and_a_number_with_its_unit() {
        let lost = Threshold::parse("lost > 1%").unwrap();
        assert_eq!((lost.mode, lost.measure, lost.limit), (None, Measure::Lost, 1.0));
        let p99 = Threshold::parse(" shared p99>=1.5 s").unwrap();
        assert_eq!((p99.mode, p99.measure, p99.limit), (Some(SessionMode::Shared), Measure::P99, 1500.0));
        for wrong in [
            "",
            "lost",
            "lost > 1",
            "lost > %",
            "lots > 1%",
            "p99 > 5%",
            "rate < 5ms",
            "odd p99 > 1s",
            "lost > -1%",
            "a b lost > 1%",
        ] {
            assert!(Threshold::parse(wrong).is_err(), "{wrong}");
        }
        assert!(without_mode("shared lost > 1%").is_err());
    }

    #[test]
    fn a_limit_is_passed_on_its_side_and_by_what_was_not_measured() {
        for (text, passing, keeping) in [
            ("lost > 1%", 1.1, 1.0),
            ("lost >= 1%", 1.0, 0.9),
            ("rate < 50/s", 49.0, 50.0),
            ("rate <= 50/s", 50.0, 51.0),
        ] {
            let threshold = Threshold::parse(text).unwrap();
            assert!(threshold.passed("", Some(passing)).is_some(), "{text}");
            assert_eq!(threshold.passed("", Some(keeping)), None, "{text}");
            assert_eq!(
                threshold.passed("shared", None).unwrap(),
                format!("shared: {text}: nothing was measured")
            );
        }
        let told = Threshold::parse("p99 > 1s").unwrap().passed("", Some(1234.5));
        assert_eq!(told.as_deref(), Some("p99 > 1s: it is 1234.50 ms"));
    }
}
