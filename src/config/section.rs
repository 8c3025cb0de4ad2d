//! Reads one table of the file.
//!
//! The code that reads a table is the only list of its keys: every key that it requests is known, and every
//! other key is reported when the reader returns. So no key can be accepted and then ignored.

use super::fault::{Fault, Report, Spot};
use super::file::{Entry, Node, Table, Value};
use super::nearest::nearest;
use super::value::list;

/// One table while it is being read.
pub(super) struct Section<'a> {
    spot: Spot,
    table: &'a Table,
    known: Vec<&'static str>,
    report: &'a mut Report,
}

/// Reads the whole file.
pub(super) fn root<T>(table: &Table, report: &mut Report, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    section(Spot { key: String::new(), span: 0..0 }, table, report, read)
}

fn section<T>(spot: Spot, table: &Table, report: &mut Report, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let mut section = Section { spot, table, known: Vec::new(), report };
    let read = read(&mut section);
    section.report_unknown();
    read
}

impl<'a> Section<'a> {
    /// The value of a key. `None` if it is absent or invalid.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'a Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let node = self.find(key)?;
        self.check(self.spot(key), parse(node))
    }

    /// The value of a key, or `default` if it is absent or invalid.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Fault>,
        default: T,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The value of a required key. `why` is the reason for the requirement and `example` a sample value;
    /// both appear in the problem. `None` has been reported.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        why: &str,
        example: &str,
        parse: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.table.get(key).is_none() {
            let fault = Fault::new(
                format!("`{key}` is missing"),
                why,
                format!("add it here, such as `{key} = {example}`"),
            );
            self.report.push(self.spot(key), fault);
        }
        self.optional(key, parse)
    }

    /// A table whose keys all have defaults. An absent table reads like an empty one.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = self.find(key).and_then(|node| self.as_table(key, node));
        section(self.spot(key), table.unwrap_or(Table::EMPTY), self.report, read)
    }

    /// A table that may be absent.
    pub(super) fn optional_table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let node = self.find(key)?;
        let table = self.as_table(key, node)?;
        Some(section(self.spot(key), table, self.report, read))
    }

    /// One or more tables of the same kind. `why` is the reason that one is required.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        why: &str,
        read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let is_empty = |node: &Node| matches!(&node.value, Value::List(items) if items.is_empty());
        if self.table.get(key).is_none_or(is_empty) {
            let help = format!("add a table `{}`", self.header(key));
            self.report.push(self.spot(key), Fault::new(format!("there is no `{key}`"), why, help));
        }
        self.any_tables(key, read)
    }

    /// Zero or more tables of the same kind; an absent key reads as none.
    pub(super) fn any_tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let items = match self.find(key).map(|node| &node.value) {
            Some(Value::List(items)) => items.as_slice(),
            None => &[],
            Some(_) => {
                let what = format!("`{key}` is not a list of tables");
                let help = format!("write `{}` with two brackets, once for each", self.header(key));
                self.report.push(self.spot(key), Fault::new(what, "there can be several of them", help));
                return Vec::new();
            }
        };
        let mut done = Vec::new();
        for (index, node) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{index}]", self.path(key)), span: node.span.clone() };
            match &node.value {
                Value::Table(table) => done.push(section(spot, table, self.report, &mut read)),
                _ => self.report.push(spot, not_a_table(node)),
            }
        }
        done
    }

    /// Like [`tables`](Self::tables), but an absent key reads as none.
    pub(super) fn optional_tables<T>(
        &mut self,
        key: &'static str,
        why: &str,
        read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        if self.find(key).is_none() {
            return Vec::new();
        }
        self.tables(key, why, read)
    }

    /// A list of values, empty if absent. Invalid items are reported and left out.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Fn(&Node) -> Result<T, Fault>) -> Vec<T> {
        let items = self.optional(key, list).unwrap_or_default();
        let mut parsed = Vec::new();
        for (index, node) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{index}]", self.path(key)), span: node.span.clone() };
            parsed.extend(self.check(spot, parse(node)));
        }
        parsed
    }

    /// A table with user-chosen keys. Invalid entries are reported and left out.
    pub(super) fn entries<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str, &Node) -> Result<T, Fault>,
    ) -> Vec<(Spot, T)> {
        let Some(table) = self.find(key).and_then(|node| self.as_table(key, node)) else {
            return Vec::new();
        };
        let mut parsed = Vec::new();
        for Entry { key: name, node, .. } in table.entries() {
            let spot = Spot { key: join(&self.path(key), name), span: node.span.clone() };
            parsed.extend(self.check(spot.clone(), parse(name, node)).map(|value| (spot, value)));
        }
        parsed
    }

    /// Whether `key` is present in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Whether `key` is present and a table.
    pub(super) fn has_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|node| matches!(node.value, Value::Table(_)))
    }

    /// The position of the value of `key`; for an absent key the position of the table.
    pub(super) fn spot(&self, key: &str) -> Spot {
        let span = self.table.get(key).map_or(&self.spot.span, |node| &node.span);
        Spot { key: self.path(key), span: span.clone() }
    }

    /// The position of the table.
    pub(super) fn own_spot(&self) -> Spot {
        self.spot.clone()
    }

    /// Whether no fault has been reported for these keys, so that the values read are those of the file.
    pub(super) fn are_sound(&self, keys: &[&str]) -> bool {
        let paths: Vec<_> = keys.iter().map(|key| self.path(key)).collect();
        self.report.spots().all(|spot| !paths.contains(&spot.key))
    }

    /// The value of `checked`. A fault is reported at `spot`.
    pub(super) fn check<T>(&mut self, spot: Spot, checked: Result<T, Fault>) -> Option<T> {
        checked.map_err(|fault| self.report.push(spot, fault)).ok()
    }

    /// Reports a fault at `spot`.
    pub(super) fn fault(&mut self, spot: Spot, fault: Fault) {
        self.report.push(spot, fault);
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn as_table(&mut self, key: &str, node: &'a Node) -> Option<&'a Table> {
        match &node.value {
            Value::Table(table) => Some(table),
            _ => {
                self.report.push(self.spot(key), not_a_table(node));
                None
            }
        }
    }

    fn path(&self, key: &str) -> String {
        join(&self.spot.key, key)
    }

    /// The header of a list of tables: without the indices of the enclosing tables.
    fn header(&self, key: &str) -> String {
        let path = self.path(key);
        let names: Vec<_> =
            path.split('.').map(|name| name.split_once('[').map_or(name, |(name, _)| name)).collect();
        format!("[[{}]]", names.join("."))
    }

    fn report_unknown(&mut self) {
        for entry in self.table.entries() {
            if !self.known.contains(&entry.key.as_str()) {
                let spot = Spot { key: self.path(&entry.key), span: entry.key_span.clone() };
                self.report.push(spot, unknown_key(&entry.key, &self.known));
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = if key.chars().all(is_bare) { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn unknown_key(key: &str, known: &[&str]) -> Fault {
    let help = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    Fault::new(format!("unknown key {key:?}"), "nothing reads it, so it would silently have no effect", help)
}

fn not_a_table(node: &Node) -> Fault {
    let what = format!("expected a table, found {}", node.kind());
    Fault::new(
        what,
        "its keys cannot be read",
        "write it as `[name]` with its keys below, or as `{ key = value }`",
    )
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::problem::{Place, Problem};
    use super::super::value::{boolean, integer};
    use super::*;

    /// `size` and `on` of `[t]`, `n` of each `[[item]]`.
    type Read = (u32, Option<bool>, Vec<Option<u32>>);

    fn read(text: &str) -> Result<Read, String> {
        let table = file::parse(text).ok().unwrap();
        let mut report = Report::default();
        let read = root(&table, &mut report, |s| {
            let (size, on) =
                s.table("t", |s| (s.value("size", integer(1..=9), 5), s.optional("on", boolean)));
            (size, on, s.tables("item", "some", |s| s.required("n", "needed", "1", integer(0..=9))))
        });
        if report.is_empty() {
            return Ok(read);
        }
        let shown = |p: &Problem| {
            let Place { line, column, key } = &p.place;
            format!("{line}:{column} {key}: {}; {}", p.what, p.help)
        };
        Err(report.into_problems("x", text, &[]).iter().map(shown).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn absent_keys_have_their_defaults() {
        assert_eq!(read("[[item]]\nn = 1"), Ok((5, None, vec![Some(1)])));
        assert_eq!(read("item = [{ n = 1 }]\nt = { size = 2 }"), Ok((2, None, vec![Some(1)])));
    }

    #[test]
    fn every_fault_is_reported_with_its_path() {
        let text = "tt = 1\n[t]\nsize = 0\nonn = true\n[[item]]\n[[item]]\nn = 'x'\nzebra = 1\n";
        let expected = "\
1:1 tt: unknown key \"tt\"; did you mean `t`?
3:8 t.size: 0 is out of range; write a number from 1 to 9
4:1 t.onn: unknown key \"onn\"; did you mean `on`?
5:1 item[0].n: `n` is missing; add it here, such as `n = 1`
7:5 item[1].n: expected a number, found text; write the number without quotes
8:1 item[1].zebra: unknown key \"zebra\"; known here: n";
        assert_eq!(read(text).unwrap_err(), expected);
    }

    #[test]
    fn a_single_table_is_no_list_and_a_value_is_no_table() {
        let text = "t = 3\n[item]\nn = 1\n";
        let expected = "\
1:5 t: expected a table, found a number; write it as `[name]` with its keys below, or as `{ key = value }`
2:1 item: `item` is not a list of tables; write `[[item]]` with two brackets, once for each";
        assert_eq!(read(text).unwrap_err(), expected);
    }

    #[test]
    fn a_missing_list_is_reported_once_for_the_file() {
        assert_eq!(read("").unwrap_err(), "1:1 item: there is no `item`; add a table `[[item]]`");
    }
}
