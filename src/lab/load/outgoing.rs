//! Request bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The boundary between the parts of a form. The generated files do not contain it, and a form with a field
/// that does is refused.
const BOUNDARY: &str = "vestibule-load-7d1f0c";
/// The media type of an upload.
pub(super) const FORM: &str = "multipart/form-data; boundary=vestibule-load-7d1f0c";
const END: &str = "\r\n--vestibule-load-7d1f0c--\r\n";
/// The content of files.
static FILLING: [u8; 64 << 10] = [b'v'; 64 << 10];

/// A request body that is generated while it is sent, so that a large one is never held in memory.
#[derive(Debug)]
pub(super) struct Outgoing {
    before: Bytes,
    filling: u64,
    after: Bytes,
}

impl Outgoing {
    /// A body of these bytes; no body if empty.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Outgoing { before: bytes, filling: 0, after: Bytes::new() }
    }

    /// A form (RFC 7578) with these fields and a file of `bytes` bytes. `None` if a field contains the
    /// boundary.
    pub(super) fn upload(bytes: u64, fields: &[(String, String)]) -> Option<Self> {
        let mut head = String::new();
        for (name, value) in fields {
            let disposition = format!("Content-Disposition: form-data; name=\"{}\"", quoted(name));
            head.push_str(&format!("--{BOUNDARY}\r\n{disposition}\r\n\r\n{value}\r\n"));
        }
        let boundaries = head.matches(BOUNDARY).count();
        head.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"load.txt\"\r\n\
             Content-Type: text/plain\r\n\r\n"
        ));
        (boundaries == fields.len()).then(|| Outgoing {
            before: Bytes::from(head),
            filling: bytes,
            after: Bytes::from_static(END.as_bytes()),
        })
    }
}

/// A field's name in quotes, escaped as browsers do (HTML standard, section 4.10.22.8).
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
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
            let upload = Outgoing::upload(bytes, &[("user".to_owned(), "7".to_owned())]).unwrap();
            let said = upload.size_hint().exact().unwrap();
            let sent = upload.collect().await.unwrap().to_bytes();
            assert_eq!(sent.len() as u64, said);
            let filling = sent.windows(8).filter(|window| *window == b"vvvvvvvv").count() as u64;
            assert_eq!(filling, bytes.saturating_sub(7));
        }
        assert!(Outgoing::whole(Bytes::new()).is_end_stream());
        assert!(Outgoing::upload(1, &[("a".to_owned(), format!("\r\n--{BOUNDARY}--"))]).is_none());
        assert_eq!(Outgoing::whole(Bytes::from_static(b"a")).collect().await.unwrap().to_bytes(), "a");
    }
}
