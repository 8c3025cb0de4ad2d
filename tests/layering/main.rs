//! The module layers, enforced: imports only go down, and some crates have one home.
//!
//! Reads every file under `src/`. A new top-level module needs a line in [`rules::LAYERS`].

#[cfg(test)]
mod paths;
#[cfg(test)]
mod rules;

#[cfg(test)]
mod house {
    use std::path::{Path, PathBuf};

    use crate::rules;

    /// Fewer files than this means that the test looked in the wrong place. Raise it as the house grows.
    const FEWEST_FILES: usize = 90;

    fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_import_goes_down_and_every_crate_stays_at_home() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        rust_files(&root, &mut files);
        files.sort();

        let mut offences = Vec::new();
        for file in &files {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
            let source = std::fs::read_to_string(file).unwrap();
            offences.extend(rules::offences(name, &source));
        }
        assert!(files.len() >= FEWEST_FILES, "inspected only {} files", files.len());
        assert!(offences.is_empty(), "\n{}", offences.join("\n"));
    }
}
