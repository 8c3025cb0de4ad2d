//! What JSON looks like, whatever its values are.

use std::collections::BTreeSet;

use serde_json::Value;

/// The paths of all members with the types of their values, in the order of their names; what is in a list has one
/// description for all. The names of members below `open` are values themselves and shown as `*`.
pub(super) fn shape(value: &Value, open: &[&str]) -> String {
    let mut lines = BTreeSet::new();
    gather(value, String::new(), open, &mut lines);
    lines.into_iter().map(|line| format!("    {line}\n")).collect()
}

fn gather(value: &Value, path: String, open: &[&str], lines: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| gather(item, format!("{path}[]"), open, lines));
            "list"
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = if open.contains(&path.as_str()) { "*" } else { name };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                gather(member, path, open, lines);
            }
            "object"
        }
    };
    if !path.is_empty() {
        lines.insert(format!("{path}: {kind}"));
    }
}
