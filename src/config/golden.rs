//! Golden test of every key of every file, written to `tests/golden`: its name, how the annotated file shows
//! it, and the help text for invalid values, which lists the valid ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Problem, Problems, parse, parse_application, parse_scenario};
use crate::golden::assert_golden;

/// An unknown key. No known key resembles it, so the help text lists the known keys instead of suggesting
/// one.
const STRAY: &str = "stray-1234567890";
/// Values that almost no key accepts.
const ODD: [&str; 5] = ["1979-05-27", "\"?\"", "-1", "[\"?\"]", "{ stray-1234567890 = 0 }"];

/// An annotated file with every table, and its parser.
struct Annotated {
    lines: Vec<&'static str>,
    read: fn(&str) -> Option<Problems>,
}

impl Annotated {
    fn new(text: &'static str, read: fn(&str) -> Option<Problems>) -> Self {
        Annotated { lines: text.lines().collect(), read }
    }

    /// Uncomments the tables that are commented out.
    fn in_force(mut self) -> Self {
        let mut in_table = false;
        for line in &mut self.lines {
            in_table = (in_table || line.starts_with("# [")) && line.starts_with("# ");
            *line = line.strip_prefix("# ").filter(|_| in_table).unwrap_or(line);
        }
        self
    }

    /// The index of the line after each table header, with the table's name. The first entry is the whole
    /// file.
    fn tables(&self) -> Vec<(usize, String)> {
        let header = |(index, line): (usize, &&str)| {
            let name = line.strip_prefix('[')?.split(']').next()?;
            Some((index + 1, name.trim_start_matches('[').to_owned()))
        };
        let tables = self.lines.iter().enumerate().filter_map(header);
        std::iter::once((0, String::new())).chain(tables).collect()
    }

    /// The file with the given keys replaced. Each value names its table by the line that begins it.
    fn with(&self, values: &[(usize, &str, &str)]) -> String {
        let mut text = String::new();
        let (mut table, mut in_text) = (0, None);
        for index in 0..=self.lines.len() {
            if index > 0 && self.lines[index - 1].starts_with('[') {
                table = index;
            }
            for (_, key, value) in values.iter().filter(|(line, ..)| *line == index) {
                let _ = writeln!(text, "{key} = {value}");
            }
            let Some(line) = self.lines.get(index) else { break };
            let is_replaced = |(at, key, _): &(usize, &str, &str)| {
                *at == table && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
            };
            let leaves_out = in_text.unwrap_or_else(|| values.iter().any(is_replaced));
            if !leaves_out {
                let _ = writeln!(text, "{line}");
            }
            // A multi-line value begins or ends here.
            if !line.starts_with('#') && line.matches("'''").count() == 1 {
                in_text = if in_text.is_some() { None } else { Some(leaves_out) };
            }
        }
        text
    }

    /// The help texts for each of `keys` in `table` when all have this value.
    fn said(&self, table: &(usize, String), keys: &BTreeSet<String>, value: &str) -> Vec<(String, String)> {
        let values: Vec<_> = keys.iter().map(|key| (table.0, key.as_str(), value)).collect();
        let problems = (self.read)(&self.with(&values));
        let problems = problems.iter().flat_map(|problems| problems.iter());
        let said = |one: &Problem| {
            let path = unindexed(&one.place.key);
            (path.strip_suffix(&format!(".{STRAY}")).unwrap_or(&path).to_owned(), one.help.clone())
        };
        problems.map(said).collect()
    }

    /// How the file shows `key`: with its value, commented out with an example, or not at all.
    fn shown(&self, table: &(usize, String), key: &str) -> String {
        let own = || self.lines.iter().skip(table.0).take_while(|line| !line.starts_with('['));
        let value = |line: &'static str| {
            let value = line.strip_prefix(key)?.strip_prefix(" = ")?;
            Some(value.split(" #").next().unwrap_or(value).trim_end())
        };
        if let Some(value) = own().find_map(|line| value(line)) {
            return format!(" = {value}");
        }
        let example = own().find_map(|line| value(line.strip_prefix("# ")?));
        example.map_or(String::new(), |example| format!(" (such as {example})"))
    }

    /// The known keys, by table.
    fn keys(&self) -> BTreeMap<String, BTreeSet<String>> {
        let tables = self.tables();
        let strays: Vec<_> = tables.iter().map(|(line, _)| (*line, STRAY, "0")).collect();
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for problem in (self.read)(&self.with(&strays)).iter().flat_map(|problems| problems.iter()) {
            let path = unindexed(&problem.place.key);
            let known = problem.help.strip_prefix("known here: ");
            if let (Some(table), Some(known)) = (path.strip_suffix(STRAY), known) {
                let table = table.trim_end_matches('.').to_owned();
                keys.entry(table).or_default().extend(known.split(", ").map(str::to_owned));
            }
        }
        keys
    }

    fn page(&self) -> String {
        let (tables, keys) = (self.tables(), self.keys());
        let mut page = String::new();
        for table in &tables {
            // Of several tables of the same name only the first is documented. Tables with user-chosen keys
            // have no list of known keys.
            let is_first = tables.iter().find(|other| other.1 == table.1) == Some(table);
            let Some(keys) = keys.get(&table.1).filter(|_| is_first) else { continue };
            let is_table = |key: &&String| {
                let path = join(&table.1, key);
                tables.iter().any(|(_, name)| *name == path || name.starts_with(&format!("{path}.")))
            };
            let values = keys.iter().filter(|key| !is_table(key)).cloned().collect();
            let said: BTreeSet<_> = ODD.iter().flat_map(|value| self.said(table, &values, value)).collect();
            for key in keys {
                let path = join(&table.1, key);
                if is_table(&key) {
                    let _ = writeln!(page, "{path}: table");
                    continue;
                }
                let _ = writeln!(page, "{path}{}", self.shown(table, key));
                for (_, help) in said.iter().filter(|(about, _)| *about == path) {
                    let _ = writeln!(page, "    {help}");
                }
            }
        }
        page
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The key's path without list indices.
fn unindexed(path: &str) -> String {
    let mut names = path.split('[');
    let first = names.next().unwrap_or_default().to_owned();
    names.fold(first, |path, rest| path + rest.split_once(']').map_or("", |(_, rest)| rest))
}

#[test]
fn golden_the_proxy_reads_these_keys() {
    let text = include_str!("../../config/vestibule.toml");
    let file = Annotated::new(text, |text| parse(text, "x").err());
    assert_golden("config-keys.txt", &file.in_force().page());
}

#[test]
fn golden_the_lab_reads_these_keys() {
    let scenario = |text| Annotated::new(text, |text| parse_scenario(text, "x").err());
    let session = scenario(include_str!("../../config/scenarios/dify-chat.toml")).page();
    let compared = scenario(include_str!("../../config/scenarios/published-writes.toml")).page();
    let own = include_str!("../../config/applications/own.toml");
    let own = Annotated::new(own, |text| parse_application(text, "x").err()).page();
    let page =
        format!("# A scenario\n{session}\n# One that is compared\n{compared}\n# An application\n{own}");
    assert_golden("config-lab-keys.txt", &page);
}
