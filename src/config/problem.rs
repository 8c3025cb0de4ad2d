//! The mistakes in a configuration file, reported together so that they can be fixed in one pass.

use std::error::Error;
use std::fmt;

use super::excerpt::Excerpt;

/// One mistake. Values are quoted only for keys that never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// How to fix it.
    pub help: String,
    pub(super) excerpt: Option<Excerpt>,
}

/// A position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Path of the key, such as `upstream[1].instance[0].address`; empty for the whole file.
    pub key: String,
}

/// All mistakes in one file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: String,
    problems: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Problems { file: file.to_owned(), problems }
    }

    /// In the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.problems.iter()
    }
}

impl Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{}\n", Shown { problem, file: &self.file })?;
        }
        match self.problems.len() {
            1 => write!(f, "1 problem in {}", self.file),
            count => write!(f, "{count} problems in {}", self.file),
        }
    }
}

struct Shown<'a> {
    problem: &'a Problem,
    file: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { place, what, why, help, excerpt } = self.problem;
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "error: {what}")?;
        write!(f, "{margin}--> {}:{number}:{}", self.file, place.column)?;
        if !place.key.is_empty() {
            write!(f, " {}", place.key)?;
        }
        if let Some(Excerpt { line, indent, width }) = excerpt {
            write!(f, "\n{margin} |\n{number} | {line}\n{margin} | ")?;
            write!(f, "{:indent$}{}", "", "^".repeat(*width))?;
        }
        writeln!(f, "\n{margin} = why:  {why}")?;
        write!(f, "{margin} = help: {help}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize, key: &str, excerpt: Option<Excerpt>) -> Problem {
        let place = Place { line, column: 5, key: key.to_owned() };
        Problem { place, what: "A".into(), why: "B".into(), help: "C".into(), excerpt }
    }

    #[test]
    fn problems_are_shown_with_place_line_reason_and_remedy() {
        let excerpt = Excerpt { line: "a = 2".into(), indent: 4, width: 1 };
        let problems = Problems::new("x.toml", vec![problem(12, "t.a", Some(excerpt)), problem(1, "", None)]);
        let expected = "\
error: A
  --> x.toml:12:5 t.a
   |
12 | a = 2
   |     ^
   = why:  B
   = help: C

error: A
 --> x.toml:1:5
  = why:  B
  = help: C

2 problems in x.toml";
        assert_eq!(problems.to_string(), expected);
    }
}
