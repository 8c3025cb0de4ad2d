//! Secrets by reference: `env:NAME` or `file:PATH`.

use std::{env, fs};

use super::fault::Fault;
use crate::secret::Secret;

/// Why a secret cannot be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("a secret is given by reference: env:NAME or file:PATH")]
    NoReference,
    /// The variable or file cannot be read: what is wrong, and how to fix it.
    #[error("{what}; {help}")]
    Unreadable { what: String, help: String },
}

/// Resolves `env:NAME` or `file:PATH`. One trailing line end of a file is removed. Blocks.
pub fn secret(reference: &str) -> Result<Secret<Vec<u8>>, ReferenceError> {
    match resolve(reference) {
        Some(Ok(bytes)) => Ok(Secret::new(bytes)),
        Some(Err(Fault { what, help, .. })) => Err(ReferenceError::Unreadable { what, help }),
        None => Err(ReferenceError::NoReference),
    }
}

/// Resolves `text`. Returns `None` if it is not a reference. One trailing line end of a file is removed.
///
/// Errors name the variable or the file, never its content.
pub(super) fn resolve(text: &str) -> Option<Result<Vec<u8>, Fault>> {
    if let Some(name) = text.strip_prefix("env:") {
        return Some(variable(name));
    }
    text.strip_prefix("file:").map(file)
}

fn variable(name: &str) -> Result<Vec<u8>, Fault> {
    let value = env::var_os(name).filter(|value| !value.is_empty());
    value.map(|value| value.into_encoded_bytes()).ok_or_else(|| {
        Fault::new(
            format!("the environment variable {name:?} is not set"),
            "the secret is taken from there",
            "set it, not empty, in the environment vestibule is started in",
        )
    })
}

fn file(path: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = fs::read(path).map_err(|error| {
        Fault::new(
            format!("the file {path:?} cannot be read: {error}"),
            "the secret is taken from there",
            "check that it exists and that vestibule's user may read it",
        )
    })?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        bytes.pop_if(|byte| *byte == b'\r');
    }
    if bytes.is_empty() {
        let what = format!("the file {path:?} is empty");
        return Err(Fault::new(what, "the secret is taken from there", "write the secret into it"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn from_file(content: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        resolve(&format!("file:{}", file.path().display())).unwrap()
    }

    #[test]
    fn plain_text_is_no_reference() {
        assert_eq!(resolve("redis://host"), None);
        assert_eq!(resolve(" env:X"), None);
    }

    #[test]
    fn a_secret_comes_from_its_reference_and_is_never_quoted() {
        let manifest = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert_eq!(secret("env:CARGO_MANIFEST_DIR").unwrap().expose(), manifest);
        assert_eq!(secret("hunter2"), Err(ReferenceError::NoReference));
        let missing = secret("env:VESTIBULE_NOT_SET").unwrap_err().to_string();
        assert!(missing.starts_with("the environment variable \"VESTIBULE_NOT_SET\" is not set; set it"));
    }

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        assert_eq!(from_file(b"ab").unwrap(), b"ab");
        assert_eq!(from_file(b"ab\n").unwrap(), b"ab");
        assert_eq!(from_file(b"ab\r\n").unwrap(), b"ab");
        assert_eq!(from_file(b"ab\n\n").unwrap(), b"ab\n");
        assert_eq!(from_file(b"ab\r").unwrap(), b"ab\r");
    }

    #[test]
    fn an_empty_or_missing_file_is_a_fault() {
        assert!(from_file(b"\n").unwrap_err().what.ends_with("is empty"));
        let missing = resolve("file:/nowhere/at/all").unwrap().unwrap_err();
        assert!(missing.what.starts_with("the file \"/nowhere/at/all\" cannot be read: "), "{missing:?}");
    }

    #[test]
    fn a_variable_is_read_and_a_missing_one_is_a_fault() {
        let manifest = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert_eq!(resolve("env:CARGO_MANIFEST_DIR").unwrap().unwrap(), manifest);
        for name in ["VESTIBULE_NOT_SET", "", "A=B"] {
            let fault = resolve(&format!("env:{name}")).unwrap().unwrap_err();
            assert_eq!(fault.what, format!("the environment variable {name:?} is not set"));
        }
    }
}
