//! Sessions that exist in the store but cannot be read.

/// Why a session cannot be read. None of these is an outage: a retry returns the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    #[error("the key is of another type than the configured format is kept in")]
    WrongType,
    /// With the format that the value seems to have.
    #[error("the value is no JSON object")]
    NoObject(&'static str),
    #[error("the session is larger than 1 MiB")]
    TooLarge,
    #[error("the field `expires` is no number of seconds since 1970")]
    Expires,
    #[error("the user is no text")]
    User,
}

impl Unreadable {
    /// The token for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Unreadable::WrongType => "wrong_type",
            Unreadable::NoObject(_) => "no_object",
            Unreadable::TooLarge => "too_large",
            Unreadable::Expires => "expires",
            Unreadable::User => "user",
        }
    }
}

/// Returned by [`looks_like`] for a JSON object.
pub(super) const JSON_OBJECT: &str = "a JSON object";

/// Guesses the format of a value from its first bytes, in words for operators.
///
/// Pickle: protocols 2 to 5 begin with 0x80 and their number. MessagePack: a map is 0x80-0x8f, 0xde or 0xdf.
/// Marshal of Ruby: 4.8. Java: 0xaced and version 5. PHP: `a:2:{` of `serialize`, `name|s:2:` of sessions.
pub(super) fn looks_like(value: &[u8]) -> &'static str {
    match value.trim_ascii_start() {
        [] => "an empty value",
        [0x80, 2..=5, ..] => "a Python pickle",
        [0xac, 0xed, 0, 5, ..] => "a serialised Java object",
        [4, 8, ..] => "Ruby's Marshal",
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => "zlib",
        [0x80..=0x8f | 0xde | 0xdf, ..] => "MessagePack",
        [b'{', ..] => JSON_OBJECT,
        [b'[', ..] => "a JSON list",
        [b'"', ..] => "a JSON string",
        [b'a' | b'O' | b's' | b'i' | b'b', b':', ..] => "PHP's serialize",
        text if is_php_session(text) => "a PHP session",
        [b'e', b'y', b'J', ..] => "base64 of JSON, perhaps signed or encrypted",
        text if text.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e)) => "plain text",
        _ => "binary data",
    }
}

/// `name|a:0:{…`, `name|s:2:"…`, `name|i:1;…`
fn is_php_session(text: &[u8]) -> bool {
    let Some(bar) = text.iter().position(|byte| *byte == b'|') else { return false };
    let (name, rest) = text.split_at(bar);
    let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-');
    is_name
        && !name.is_empty()
        && matches!(rest, [_, b'a' | b'O' | b's' | b'i' | b'b' | b'd', b':', ..] | [_, b'N', b';', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_formats_are_told_apart() {
        for (value, expected) in [
            (&b"\x80\x04\x95\x1c"[..], "a Python pickle"),
            (b"\x81\xa7user_id\x2a", "MessagePack"),
            (b"\x85\xaa_permanent\xc3", "MessagePack"),
            (b"\xac\xed\x00\x05sr", "a serialised Java object"),
            (b"\x04\x08{\x06", "Ruby's Marshal"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"x\x9cK", "zlib"),
            (b"\x28\xb5\x2f\xfd\x00", "zstd"),
            (b"a:1:{s:7:\"user_id\";i:42;}", "PHP's serialize"),
            (b"s:35:\"a:1:{\";", "PHP's serialize"),
            (b"user_id|i:42;name|s:3:\"Ada\";", "a PHP session"),
            (b"_sf2_attributes|a:0:{}", "a PHP session"),
            (b"[1]", "a JSON list"),
            (b"\"a\"", "a JSON string"),
            (b"{\"a\": 1}", JSON_OBJECT),
            (b"eyJpdiI6", "base64 of JSON, perhaps signed or encrypted"),
            (b"b64c5f9e-1d2c-4b52-8d5e", "plain text"),
            (b"", "an empty value"),
            (b"\x00\x01", "binary data"),
        ] {
            assert_eq!(looks_like(value), expected, "{value:?}");
        }
    }
}
