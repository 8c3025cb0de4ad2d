//! Variables of the environment, found by how they are written in the sources.

use std::collections::BTreeSet;
use std::path::Path;

use super::assert_golden;

/// What a name of a variable stands behind, whatever it looks like.
const BEHIND: [&str; 5] = ["var(", "var_os(", ".env(", "env_remove(", "env = "];

/// All names in quotes that are a variable's, or could be: capital letters, with an underscore.
fn names(source: &str, found: &mut BTreeSet<String>) {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let pieces: Vec<_> = code.split('"').collect();
    for pair in pieces.windows(2) {
        let [before, name] = pair else { continue };
        let is_upper = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let is_asked_for = BEHIND.iter().any(|word| before.ends_with(word));
        if is_upper && !name.is_empty() && (is_asked_for || name.trim_matches('_').contains('_')) {
            found.insert((*name).to_owned());
        }
    }
}

fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file_name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            walk(&path, found);
        } else if file_name.ends_with(".rs") && !file_name.starts_with("tests") {
            names(&std::fs::read_to_string(path).unwrap(), found);
        }
    }
}

#[test]
fn golden_variables_keep_their_names() {
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let page: String = found.into_iter().map(|name| name + "\n").collect();
    assert_golden("environment.txt", &page);
}
