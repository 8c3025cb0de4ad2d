//! The source line of a problem, with secrets masked.

use super::file::Span;

/// One line of the file and the range to underline, both in characters.
///
/// Every value except the underlined one is shown as `…`, and a comment after it is cut off: either could be
/// a secret next to the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) indent: usize,
    pub(super) width: usize,
}

/// Line and column of a byte offset, both from 1. Columns count characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The first line of `target`. `leaves` are the spans of all values. `hidden` masks `target` too.
pub(super) fn excerpt(text: &str, leaves: &[Span], target: &Span, hidden: bool) -> Excerpt {
    let start = text.get(..target.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let mut excerpt = Excerpt { line: String::new(), indent: 0, width: 0 };
    let mut shown = 0;
    for (offset, c) in text.get(start..).unwrap_or("").char_indices().take_while(|(_, c)| *c != '\n') {
        let at = start + offset;
        let mut secrets =
            hidden.then_some(target).into_iter().chain(leaves.iter().filter(|leaf| *leaf != target));
        let masked = secrets.find(|leaf| leaf.contains(&at));
        if at >= target.end && masked.is_none() && c == '#' {
            break;
        }
        let glyph = match masked {
            Some(leaf) if at != leaf.start && offset != 0 => continue,
            Some(_) => '…',
            None if c.is_control() => ' ',
            None => c,
        };
        excerpt.line.push(glyph);
        shown += 1;
        if at < target.start {
            excerpt.indent = shown;
        } else if at < target.end {
            excerpt.width += 1;
        }
    }
    excerpt.line.truncate(excerpt.line.trim_end().len());
    excerpt.width = excerpt.width.max(1);
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, leaves: &[&str], target: &str, hidden: bool) -> String {
        let span = |part: &str| {
            let start = text.find(part).unwrap();
            start..start + part.len()
        };
        let leaves: Vec<_> = leaves.iter().map(|leaf| span(leaf)).collect();
        let Excerpt { line, indent, width } = excerpt(text, &leaves, &span(target), hidden);
        format!("{line}\n{}{}", " ".repeat(indent), "^".repeat(width))
    }

    #[test]
    fn the_value_in_question_is_shown_and_underlined() {
        assert_eq!(shown("x = 1\nab = \"é\"\n", &["1", "\"é\""], "\"é\"", false), "ab = \"é\"\n     ^^^");
    }

    #[test]
    fn other_values_on_the_line_and_comments_are_not_shown() {
        let text = "s = { url = 'pw', kye = 2 } # pw";
        assert_eq!(shown(text, &["'pw'", "2"], "kye", false), "s = { url = …, kye = … }\n               ^^^");
    }

    #[test]
    fn a_hidden_value_is_not_shown() {
        assert_eq!(shown("url = 'pw#'", &["'pw#'"], "'pw#'", true), "url = …\n      ^");
    }

    #[test]
    fn nothing_inside_a_hidden_value_is_shown() {
        assert_eq!(shown("s = { pw = 1 }", &["1"], "{ pw = 1 }", true), "s = …\n    ^");
    }

    #[test]
    fn of_a_value_over_several_lines_only_the_first_is_shown() {
        let text = "a = [\n  1,\n]";
        assert_eq!(shown(text, &["1"], "[\n  1,\n]", false), "a = [\n    ^");
    }

    #[test]
    fn the_end_of_a_hidden_value_of_several_lines_is_hidden_too() {
        let text = "a = { b = '''\npw''', c = 1 }";
        assert_eq!(shown(text, &["'''\npw'''", "1"], "c", false), "…, c = … }\n   ^");
    }

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position("é = 1\néé = 2", 3), (1, 3));
        assert_eq!(position("é = 1\néé = 2", 11), (2, 3));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\n", 2), (2, 1));
    }
}
