//! Compares what the program says with what is written down.

use std::path::Path;

use similar::TextDiff;

/// Set to anything, it makes the tests write the files instead of comparing them.
const WRITE: &str = "VESTIBULE_GOLDEN_WRITE";

/// Fails with the difference when `actual` is not the text of `tests/golden/<name>`, byte for byte.
#[track_caller]
pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != actual {
        let difference = TextDiff::from_lines(expected.as_str(), actual);
        let shown = difference.unified_diff().header("written down", "now").to_string();
        panic!(
            "tests/golden/{name} is not what leaves the program now; when that is meant, run the test with {WRITE}=1 \
             and look at the difference before it is committed\n{shown}"
        );
    }
}
