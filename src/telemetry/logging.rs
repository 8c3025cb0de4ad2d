//! Diagnostic logging to standard error.

use std::fmt::{self, Debug};
use std::str::FromStr;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// The format of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The text is neither a level nor a list of levels.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level; write error, warn, info, debug, trace or off, or levels of parts, such as \
     \"info,vestibule::session=debug\""
)]
pub struct LevelError(String);

/// Log levels: a default level and levels per target, such as `info` or `warn,vestibule::session=debug`.
/// Without a default it is `info`.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels(Targets);

/// Installs the process-wide subscriber. Only the first call of a process has an effect.
pub fn init(format: Format, Levels(levels): Levels) {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match format {
        Format::Text => layer.fmt_fields(debug_fn(write_field).delimited(" ")).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // A second subscriber is refused; the first one stays, so this is not an error.
    let _ = registry().with(layer.with_filter(levels)).try_init();
}

impl FromStr for Levels {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let (mut default, mut targets) = (LevelFilter::INFO, Targets::new());
        for directive in text.split(',').map(str::trim) {
            let (part, word) = match directive.split_once('=') {
                Some((part, word)) => (Some(part.trim()), word.trim()),
                None => (None, directive),
            };
            let level = level(word).ok_or_else(|| LevelError(directive.to_owned()))?;
            match part {
                None => default = level,
                Some("") => return Err(LevelError(directive.to_owned())),
                Some(part) => targets = targets.with_target(part, level),
            }
        }
        Ok(Levels(targets.with_default(default)))
    }
}

/// Parses the common names of the levels.
fn level(word: &str) -> Option<LevelFilter> {
    match word.to_ascii_lowercase().as_str() {
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" | "warning" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

/// Writes `name=value`. A value with spaces is quoted so that its end is unambiguous.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() == "message" {
        return write!(out, "{value:?}");
    }
    let text = format!("{value:?}");
    let is_plain =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    // `Debug` of a string has already quoted it.
    let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    match is_plain || is_quoted {
        true => write!(out, "{}={text}", field.name()),
        false => write!(out, "{}={text:?}", field.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_understood_by_the_names_that_are_in_use() {
        for (text, expected) in [
            ("warn", "warn"),
            ("warning", "warn"),
            ("INFO", "info"),
            ("vestibule::session=debug", "info,vestibule::session=debug"),
            ("error, vestibule=trace", "error,vestibule=trace"),
            ("off", "off"),
        ] {
            assert_eq!(text.parse::<Levels>().unwrap().0, expected.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_no_level_is_refused_and_silences_nothing() {
        for text in ["inof", "", "info,", "vestibule", "vestibule=inof", "=info", "info debug", "2"] {
            assert!(text.parse::<Levels>().is_err(), "{text:?}");
        }
        let said = "warn,inof".parse::<Levels>().unwrap_err().to_string();
        assert!(said.starts_with("\"inof\" is not a level; write error, warn, info"), "{said}");
    }

    #[test]
    fn values_of_several_words_are_quoted() {
        use std::sync::{Arc, Mutex};

        #[derive(Clone, Default)]
        struct Output(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Output {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let output = Output::default();
        let writer = output.clone();
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(registry().with(layer), || {
            let (several, one) = ("two words", "a\"b c");
            tracing::info!(shown = %several, text = several, odd = %one, number = 7, word = %"x", none = %"", "it is so");
        });
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let expected =
            "it is so shown=\"two words\" text=\"two words\" odd=\"a\\\"b c\" number=7 word=x none=\"\"\n";
        assert!(written.ends_with(expected), "{written}");
    }
}
