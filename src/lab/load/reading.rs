//! Incremental analysis of response bodies.

use memchr::memmem;
use tokio::time::Instant;

/// Searches for a text in a body that arrives in pieces.
#[derive(Debug)]
pub(super) struct Search<'a> {
    text: &'a [u8],
    /// The end of the previous data, shorter than the text.
    tail: Vec<u8>,
    found: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Search { text: text.as_bytes(), tail: Vec::new(), found: text.is_empty() }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.found {
            return;
        }
        self.found = memmem::find(piece, self.text).is_some();
        let most = self.text.len() - 1;
        self.tail.extend_from_slice(piece.get(..most).unwrap_or(piece));
        self.found |= memmem::find(&self.tail, self.text).is_some();
        if piece.len() > most {
            self.tail.clear();
            self.tail.extend_from_slice(piece.get(piece.len() - most..).unwrap_or_default());
        } else {
            let surplus = self.tail.len().saturating_sub(most);
            self.tail.drain(..surplus);
        }
    }

    pub(super) fn found(&self) -> bool {
        self.found
    }
}

/// Counts the events of a stream (`text/event-stream`, HTML standard, section 9.2). An event ends with an
/// empty line and contains data. Comments and events without data, such as pings, do not count.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The parser state within the current line.
    line: Line,
    has_data: bool,
    after_return: bool,
    /// When the last event arrived.
    last: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The line so far is a prefix of `data` of this length.
    Name(usize),
    Data,
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Line::Name(0)
    }
}

const DATA: &[u8] = b"data";

impl Events {
    /// Processes a piece. Returns the number of events that it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> u32 {
        let mut ended = 0;
        for byte in piece {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => ended += u32::from(self.end_line()),
                byte => self.line = self.line.with(*byte),
            }
        }
        ended
    }

    /// Processes a line end. Returns whether it completes an event.
    fn end_line(&mut self) -> bool {
        match std::mem::take(&mut self.line) {
            Line::Name(0) => return std::mem::take(&mut self.has_data),
            // A field name alone is a field with an empty value.
            Line::Data | Line::Name(4) => self.has_data = true,
            Line::Name(_) | Line::Other => {}
        }
        false
    }

    /// Records the arrival of an event. Returns when the previous one arrived.
    pub(super) fn note(&mut self, now: Instant) -> Option<Instant> {
        self.last.replace(now)
    }

    /// Whether any event has arrived.
    pub(super) fn any(&self) -> bool {
        self.last.is_some()
    }
}

impl Line {
    fn with(self, byte: u8) -> Line {
        match self {
            Line::Name(length) if DATA.get(length) == Some(&byte) => Line::Name(length + 1),
            Line::Name(length) if length == DATA.len() && byte == b':' => Line::Data,
            Line::Data => Line::Data,
            Line::Name(_) | Line::Other => Line::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &str) -> u32 {
        Events::default().push(text.as_bytes())
    }

    #[test]
    fn only_events_with_data_count() {
        assert_eq!(events("data: a\n\ndata: b\ndata: c\n\n"), 2);
        assert_eq!(events("event: ping\n\n: comment\n\nid: 1\n\n\n"), 0);
        assert_eq!(events("event: x\ndata: y\n\ndatum: z\n\ndata\n\ndata:\n\n"), 3);
        assert_eq!(events("data: unfinished\n"), 0);
    }

    #[test]
    fn lines_end_in_any_of_three_ways() {
        assert_eq!(events("data: a\r\n\r\ndata: b\r\rdata: c\n\r\n"), 3);
        assert_eq!(events("data: a\r\ndata: b\r\n\r\n"), 1);
    }

    proptest! {
        #[test]
        fn cutting_a_stream_changes_nothing(text in "(data|:|a|\n|\r){0,40}", cut in 0_usize..200) {
            let whole = events(&text);
            let (one, two) = text.as_bytes().split_at(cut.min(text.len()));
            let mut events = Events::default();
            prop_assert_eq!(events.push(one) + events.push(two), whole);
        }

        #[test]
        fn a_text_is_found_wherever_the_body_is_cut(body in "[ab]{0,20}", text in "[ab]{1,5}", size in 1_usize..7) {
            let mut search = Search::new(&text);
            body.as_bytes().chunks(size).for_each(|piece| search.push(piece));
            prop_assert_eq!(search.found(), body.contains(&text));
        }
    }
}
