//! The configuration file as a syntax tree: keys and values with their spans in the text.

use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

/// Byte range in the text.
pub(super) type Span = Range<usize>;

pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// A kind of value that no key accepts; the text is its name.
    Other(&'static str),
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

/// Entries in the order of the file.
pub(super) struct Table(Vec<Entry>);

/// The text is not valid TOML. The message does not quote the text.
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Span,
}

/// Parses TOML 1.1.
pub(super) fn parse(text: &str) -> Result<Table, SyntaxError> {
    match DeTable::parse(text) {
        Ok(document) => Ok(Table::from(document.into_inner())),
        Err(error) => Err(SyntaxError {
            message: error.message().to_owned(),
            span: error.span().unwrap_or(text.len()..text.len()),
        }),
    }
}

impl Table {
    pub(super) const EMPTY: &'static Table = &Table(Vec::new());

    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The spans of all values that are neither lists nor tables.
    pub(super) fn leaves(&self) -> Vec<Span> {
        self.0.iter().flat_map(|entry| entry.node.leaves()).collect()
    }
}

impl Node {
    /// The kind of this value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    fn leaves(&self) -> Vec<Span> {
        match &self.value {
            Value::List(items) => items.iter().flat_map(Node::leaves).collect(),
            Value::Table(table) => table.leaves(),
            _ => vec![self.span.clone()],
        }
    }
}

impl From<DeTable<'_>> for Table {
    fn from(table: DeTable<'_>) -> Self {
        let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<_>)| Entry {
            key_span: key.span(),
            key: std::borrow::Cow::into_owned(key.into_inner()),
            node: Node::from(value),
        };
        let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table(entries)
    }
}

impl From<toml::Spanned<DeValue<'_>>> for Node {
    fn from(value: toml::Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => integer(&number),
            DeValue::Boolean(yes) => Value::Boolean(yes),
            DeValue::Array(items) => Value::List(items.into_iter().map(Node::from).collect()),
            DeValue::Table(table) => Value::Table(Table::from(table)),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
        };
        Node { span, value }
    }
}

fn integer(number: &DeInteger<'_>) -> Value {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::Other("a number beyond 64 bits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_the_order_of_the_file_and_know_their_place() {
        let text = "b = 1\na = \"x\"\n[t]\n";
        let table = parse(text).ok().unwrap();
        let seen: Vec<_> = table
            .entries()
            .iter()
            .map(|entry| (&text[entry.key_span.clone()], &text[entry.node.span.clone()], entry.node.kind()))
            .collect();
        assert_eq!(seen, [("b", "1", "a number"), ("a", "\"x\"", "text"), ("t", "[t]", "a table")]);
    }

    #[test]
    fn numbers_of_any_radix_are_read_and_too_large_ones_are_no_numbers() {
        let table = parse("a = 0x1_0\nb = -7\nc = 99999999999999999999\nd = 1.5").ok().unwrap();
        let kinds: Vec<_> = table.entries().iter().map(|entry| entry.node.kind()).collect();
        assert!(matches!(table.get("a").unwrap().value, Value::Integer(16)));
        assert!(matches!(table.get("b").unwrap().value, Value::Integer(-7)));
        assert_eq!(kinds[2..], ["a number beyond 64 bits", "a number with a fraction"]);
    }

    #[test]
    fn leaves_are_found_in_lists_and_tables() {
        let text = "a = [1, { b = 'x' }]\n[c]\nd = true";
        let table = parse(text).ok().unwrap();
        let leaves: Vec<_> = table.leaves().into_iter().map(|span| &text[span]).collect();
        assert_eq!(leaves, ["1", "'x'", "true"]);
    }

    #[test]
    fn a_syntax_error_has_a_place_and_quotes_nothing() {
        let error = parse("url = redis://:hunter2@host").err().unwrap();
        assert_eq!(error.span.start, 6);
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }
}
