//! Escapes untrusted text.

/// Escapes `text` for HTML and SVG, both for content and for quoted attributes. Characters that are invalid
/// in XML become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes `text` for a line of Markdown or a table cell.
pub(super) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '@' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes `text` as a CSV field (RFC 4180). A field that a spreadsheet would treat as a formula gets a
/// leading apostrophe.
pub(super) fn escape_csv(text: &str) -> String {
    let lead = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{lead}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{lead}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script><script>alert('1')&\"\u{0}";

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape(HOSTILE), "&lt;/script&gt;&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;\u{fffd}");
        assert_eq!(escape_markdown("a|b <img> `x` @all\nc"), "a\\|b &lt;img> \\`x\\` \\@all c");
    }

    #[test]
    fn a_field_of_csv_stays_one_field_and_is_no_formula() {
        assert_eq!(escape_csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(escape_csv("=cmd()"), "'=cmd()");
        assert_eq!(escape_csv("shared"), "shared");
    }
}
