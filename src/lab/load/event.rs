//! Parses the data of events in a stream (`text/event-stream`, HTML standard, section 9.2.6).

use memchr::memchr2;

/// Incremental parser. Buffers one line and one event's data, each up to a limit.
#[derive(Debug)]
pub(super) struct EventData {
    most: usize,
    line: Vec<u8>,
    /// Whether the line was longer than the buffered part.
    line_cut: bool,
    data: Vec<u8>,
    has_data: bool,
    data_cut: bool,
    /// Whether the last byte was a carriage return, which ends a line with or without a following line feed.
    after_return: bool,
}

/// The data of an event exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl EventData {
    /// For events of at most `most` bytes of data.
    pub(super) fn new(most: usize) -> Self {
        EventData {
            most,
            line: Vec::new(),
            line_cut: false,
            data: Vec::new(),
            has_data: false,
            data_cut: false,
            after_return: false,
        }
    }

    /// Parses `piece` and calls `each` with the data of every completed event.
    pub(super) fn push(&mut self, mut piece: &[u8], mut each: impl FnMut(Result<&[u8], TooLong>)) {
        while !piece.is_empty() {
            if std::mem::take(&mut self.after_return)
                && let Some(rest) = piece.strip_prefix(b"\n")
            {
                piece = rest;
                continue;
            }
            let Some((text, end, rest)) = split(piece) else { return self.keep(piece) };
            self.keep(text);
            self.end_line(&mut each);
            self.after_return = end == b'\r';
            piece = rest;
        }
    }

    fn keep(&mut self, text: &[u8]) {
        let room = (self.most + b"data: ".len()).saturating_sub(self.line.len());
        self.line.extend_from_slice(text.get(..room).unwrap_or(text));
        self.line_cut |= text.len() > room;
    }

    fn end_line(&mut self, each: &mut impl FnMut(Result<&[u8], TooLong>)) {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.line_cut);
        if line.is_empty() {
            self.end_event(each);
        } else if let Some(value) = data(&line) {
            let newline = b"\n".get(..usize::from(self.has_data)).unwrap_or_default();
            self.has_data = true;
            if cut || self.data.len() + newline.len() + value.len() > self.most {
                self.data_cut = true;
            } else {
                self.data.extend_from_slice(newline);
                self.data.extend_from_slice(value);
            }
        }
        self.line = line;
        self.line.clear();
    }

    fn end_event(&mut self, each: &mut impl FnMut(Result<&[u8], TooLong>)) {
        let cut = std::mem::take(&mut self.data_cut);
        if std::mem::take(&mut self.has_data) {
            each(if cut { Err(TooLong) } else { Ok(&self.data) });
        }
        self.data.clear();
    }
}

/// The value of a line with the field `data`.
fn data(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        // A field name alone is a field with an empty value.
        None => rest.is_empty().then_some(rest),
    }
}

/// Splits a piece after its first line: the line, its terminator, and the rest.
fn split(piece: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let at = memchr2(b'\n', b'\r', piece)?;
    Some((piece.get(..at)?, *piece.get(at)?, piece.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(most: usize, pieces: &[&[u8]]) -> Vec<Result<String, TooLong>> {
        let (mut events, mut all) = (EventData::new(most), Vec::new());
        for piece in pieces {
            let note =
                |data: Result<&[u8], _>| all.push(data.map(|data| String::from_utf8(data.to_vec()).unwrap()));
            events.push(piece, note);
        }
        all
    }

    fn read(text: &str) -> Vec<String> {
        events(100, &[text.as_bytes()]).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn an_event_is_the_data_of_its_lines() {
        assert_eq!(read("event: ping\n\n: data\n\nid: 1\ndata:  a\nother: b\ndata:c\n\n"), [" a\nc"]);
        assert_eq!(read("data: a\r\n\r\ndata\r\rdatum: b\n\ndata:\n\ndata: unfinished\n"), ["a", "", ""]);
    }

    #[test]
    fn what_is_too_long_is_told_and_does_not_hide_the_next() {
        let text = "data: 12345\n\ndata: 123\ndata: 4\n\n: a long comment, 1234567890\n\ndata: 1234\n\n";
        let told: Vec<_> = events(4, &[text.as_bytes()]);
        assert_eq!(told, [Err(TooLong), Err(TooLong), Ok("1234".to_owned())]);
    }

    proptest! {
        #[test]
        fn cutting_a_stream_changes_nothing(text in "(data|:| |ab|\n|\r){0,40}", cut in 0_usize..80, most in 0_usize..9) {
            let (one, two) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(events(most, &[one, two]), events(most, &[text.as_bytes()]));
        }

        #[test]
        fn no_event_is_longer_than_its_bound(text in "(data|:| |ab|\n){0,60}", most in 0_usize..6) {
            prop_assert!(events(most, &[text.as_bytes()]).into_iter().flatten().all(|data| data.len() <= most));
        }

        #[test]
        fn there_are_as_many_events_as_are_counted(text in "(data|:| |a|\n|\r){0,40}") {
            let counted = super::super::reading::Events::default().push(text.as_bytes());
            prop_assert_eq!(events(100, &[text.as_bytes()]).len(), counted as usize);
        }
    }
}
