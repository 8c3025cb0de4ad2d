//! Faults: mistakes while they are collected, before they become [`Problems`].

use super::excerpt::{excerpt, position};
use super::file::Span;
use super::problem::{Place, Problem, Problems};

/// A mistake in a value. The caller adds the position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) help: String,
    /// Whether the value must be masked in the excerpt.
    pub(super) hidden: bool,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>, help: impl Into<String>) -> Self {
        Fault { what: what.into(), why: why.into(), help: help.into(), hidden: false }
    }
}

/// A position in the file: the key's path and the span of its value.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) key: String,
    pub(super) span: Span,
}

/// The faults found so far.
#[derive(Default)]
pub(super) struct Report(Vec<(Spot, Fault)>);

impl Report {
    pub(super) fn push(&mut self, spot: Spot, fault: Fault) {
        self.0.push((spot, fault));
    }

    /// The positions of all faults.
    pub(super) fn spots(&self) -> impl Iterator<Item = &Spot> {
        self.0.iter().map(|(spot, _)| spot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All faults as problems, in the order of the file. `leaves` are the spans of all values in `text`.
    pub(super) fn into_problems(mut self, file: &str, text: &str, leaves: &[Span]) -> Problems {
        self.0.sort_by_key(|(spot, _)| spot.span.start);
        let problem = |(spot, fault): (Spot, Fault)| {
            let (line, column) = position(text, spot.span.start);
            let excerpt = (!spot.span.is_empty()).then(|| excerpt(text, leaves, &spot.span, fault.hidden));
            let place = Place { line, column, key: spot.key };
            Problem { place, what: fault.what, why: fault.why, help: fault.help, excerpt }
        };
        Problems::new(file, self.0.into_iter().map(problem).collect())
    }
}
