//! Tracks whether an HTTP/2 connection is within a request head (RFC 9113 sections 4.1 and 6.2).
//!
//! A head may span several frames, and no other frame may be interleaved. hyper does not expose the start of
//! a head, so the duration of a head is measured from the frames.

/// Length in bytes of the client connection preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Position in the client's byte stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to skip before the next frame header.
    payload: usize,
    header: [u8; FRAME_HEADER],
    /// Number of bytes read of `header`.
    count: usize,
    /// Whether a head has begun and is incomplete.
    in_head: bool,
    /// Whether the head is complete after the current payload.
    ends_head: bool,
    heads: u64,
}

impl Frames {
    pub(super) fn new() -> Self {
        Frames {
            payload: PREFACE,
            header: [0; FRAME_HEADER],
            count: 0,
            in_head: false,
            ends_head: false,
            heads: 0,
        }
    }

    /// The sequence number of the incomplete head, if there is one.
    pub(super) fn open_head(&self) -> Option<u64> {
        self.in_head.then_some(self.heads)
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let (passed, rest) = bytes.split_at(self.payload.min(bytes.len()));
                self.payload -= passed.len();
                bytes = rest;
            } else {
                let wanted = FRAME_HEADER - self.count;
                let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
                if let Some(space) = self.header.get_mut(self.count..self.count + part.len()) {
                    space.copy_from_slice(part);
                }
                self.count += part.len();
                bytes = rest;
                if self.count == FRAME_HEADER {
                    self.begin();
                }
            }
            if self.payload == 0 && std::mem::take(&mut self.ends_head) {
                self.in_head = false;
                self.heads += 1;
            }
        }
    }

    /// Called when a frame header is complete.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.count = 0;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_head = true;
            self.ends_head = flags & END_HEADERS != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEADER + length, 7);
        frame
    }

    fn after(frames: &[Vec<u8>]) -> Frames {
        let mut place = Frames::new();
        place.read(&[b'P'; PREFACE]);
        place.read(&frames.concat());
        place
    }

    #[test]
    fn a_head_is_open_until_the_last_of_its_frames_is_whole() {
        let (settings, data) = (frame(4, 0, 6), frame(0, 4, 300));
        assert_eq!(after(&[settings.clone(), data.clone()]).open_head(), None);
        assert_eq!(after(&[settings, frame(HEADERS, 0, 20)]).open_head(), Some(0));
        assert_eq!(after(&[frame(HEADERS, 0, 20), frame(CONTINUATION, 0, 0)]).open_head(), Some(0));
        assert_eq!(after(&[frame(HEADERS, 0, 20), frame(CONTINUATION, END_HEADERS, 0)]).open_head(), None);
        let mut cut = frame(HEADERS, END_HEADERS | 1, 20);
        cut.pop();
        assert_eq!(after(&[frame(HEADERS, END_HEADERS, 5), data, cut]).open_head(), Some(1));
    }

    proptest! {
        #[test]
        fn where_the_pieces_are_cut_makes_no_difference(
            kinds in proptest::collection::vec((0u8..10, 0u8..8, 0usize..40), 0..6), size in 1usize..50,
        ) {
            let frames: Vec<_> = kinds.into_iter().map(|(kind, flags, length)| frame(kind, flags, length)).collect();
            let mut place = Frames::new();
            for piece in [vec![b'P'; PREFACE], frames.concat()].concat().chunks(size) {
                place.read(piece);
            }
            prop_assert_eq!(place.open_head(), after(&frames).open_head());
        }
    }
}
