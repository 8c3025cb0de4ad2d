//! The bodies of requests.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Stands between the parts of every form; no file here holds it.
const BOUNDARY: &str = "vestibule-load-7d1f0c";
/// The media type of an upload.
pub(super) const FORM: &str = "multipart/form-data; boundary=vestibule-load-7d1f0c";
const END: &str = "\r\n--vestibule-load-7d1f0c--\r\n";
/// What files consist of.
static FILLING: [u8; 64 << 10] = [b'v'; 64 << 10];

/// The body of a request, sent as it is read: a large one is never held in memory.
#[derive(Debug)]
pub(super) struct Outgoing {
    before: Bytes,
    filling: u64,
    after: Bytes,
}

impl Outgoing {
    /// These bytes; none: no body.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Outgoing { before: bytes, filling: 0, after: Bytes::new() }
    }

    /// A form with a file of so many bytes, and the field `user`.
    pub(super) fn upload(bytes: u64, user: &str) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\n{user}\r\n--{BOUNDARY}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"load.txt\"\r\nContent-Type: text/plain\r\n\r\n"
        );
        Outgoing { before: Bytes::from(head), filling: bytes, after: Bytes::from_static(END.as_bytes()) }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut next = std::mem::take(&mut self.before);
        if next.is_empty() && self.filling > 0 {
            let whole = Bytes::from_static(&FILLING);
            next = whole.slice(..usize::try_from(self.filling).unwrap_or(usize::MAX).min(whole.len()));
            self.filling -= next.len() as u64;
        } else if next.is_empty() {
            next = std::mem::take(&mut self.after);
        }
        Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.before.len() as u64 + self.filling + self.after.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_is_as_long_as_it_says() {
        for bytes in [0, 1, 65_536, 200_000] {
            let upload = Outgoing::upload(bytes, "7");
            let said = upload.size_hint().exact().unwrap();
            let sent = upload.collect().await.unwrap().to_bytes();
            assert_eq!(sent.len() as u64, said);
            let filling = sent.windows(8).filter(|window| *window == b"vvvvvvvv").count() as u64;
            assert_eq!(filling, bytes.saturating_sub(7));
        }
        assert!(Outgoing::whole(Bytes::new()).is_end_stream());
        assert_eq!(Outgoing::whole(Bytes::from_static(b"a")).collect().await.unwrap().to_bytes(), "a");
    }
}
