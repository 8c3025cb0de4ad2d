//! HTTP/1.1 messages exactly as they were sent: nothing is normalised, joined or forgiven.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Header lines in the order and spelling received. Bytes are read as Latin-1, so none is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The value of the only line called `name` in any case; fails the test when there are several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match self.all(name).as_slice() {
            [] => None,
            [value] => Some(value),
            several => panic!("`{name}` stands several times: {several:?}"),
        }
    }

    /// The values of all lines called `name` in any case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// All names in lower case.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

/// Everything before the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) headers: Headers,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    /// By what the headers say, `otherwise` when they say nothing.
    pub(crate) fn of(headers: &Headers, otherwise: Framing) -> Self {
        if headers.get("transfer-encoding").is_some() {
            Framing::Chunked
        } else if let Some(length) = headers.get("content-length") {
            Framing::Length(length.parse().unwrap())
        } else {
            otherwise
        }
    }
}

/// Room made for each read.
const ROOM: usize = 64 * 1024;

/// A byte stream and what was read from it too early.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Waits for more bytes; 0 = the peer ended the stream. Cancel safe.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(ROOM);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Waits for `event`; an error when the peer goes away meanwhile.
    pub(crate) async fn until<T>(&mut self, event: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(event);
        loop {
            tokio::select! {
                output = &mut event => return Ok(output),
                filled = self.fill_more() => filled?,
            }
        }
    }

    /// Takes what was read and not used.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    async fn fill_more(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill_more().await?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// The next line without its CRLF.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(line[..end].iter().map(|&byte| char::from(byte)).collect());
            }
            self.fill_more().await?;
        }
    }

    async fn header_lines(&mut self) -> io::Result<Headers> {
        let mut headers = Headers::default();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.0.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// The next head; `None` = the stream ended cleanly before it.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        Ok(Some(Head { start_line: self.line().await?, headers: self.header_lines().await? }))
    }

    /// The next piece of a body, one chunk when it is chunked; `None` = its end, with `trailers` filled.
    /// A stream that ends too early is `UnexpectedEof`.
    pub(crate) async fn piece(
        &mut self,
        framing: &mut Framing,
        trailers: &mut Headers,
    ) -> io::Result<Option<Vec<u8>>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.buffer.is_empty() {
                    self.fill_more().await?;
                }
                let piece = self.take(self.buffer.len().min(*left)).await?;
                *left -= piece.len();
                Ok(Some(piece))
            }
            Framing::Chunked => {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
                if size == 0 {
                    *trailers = self.header_lines().await?;
                    *framing = Framing::Length(0);
                    return Ok(None);
                }
                let piece = self.take(size).await?;
                match self.take(2).await?.as_slice() {
                    b"\r\n" => Ok(Some(piece)),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && self.fill().await? == 0 {
                    return Ok(None);
                }
                Ok(Some(self.take_buffer()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(bytes: &[u8], mut framing: Framing) -> io::Result<(Vec<u8>, Headers)> {
        let (mut wire, mut body, mut trailers) = (Wire::new(bytes), Vec::new(), Headers::default());
        while let Some(piece) = wire.piece(&mut framing, &mut trailers).await? {
            body.extend(piece);
        }
        Ok((body, trailers))
    }

    #[tokio::test]
    async fn a_head_keeps_spelling_order_and_duplicates() {
        let mut wire = Wire::new(&b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a:\t\xe9 \r\n\r\nrest"[..]);
        let head = wire.head().await.unwrap().unwrap();
        assert_eq!(head.start_line, "GET / HTTP/1.1");
        assert_eq!(head.headers.0, [("X-A".into(), "1".into()), ("x-a".into(), "\u{e9}".into())]);
        assert_eq!(wire.take_buffer(), b"rest");
    }

    #[tokio::test]
    async fn a_clean_end_is_no_head_and_a_cut_one_an_error() {
        assert_eq!(Wire::new(&b""[..]).head().await.unwrap(), None);
        let cut = Wire::new(&b"GET / HT"[..]).head().await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        let chunked = body(b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\nmore", Framing::Chunked).await.unwrap();
        assert_eq!(chunked, (b"abcd".to_vec(), Headers(vec![("X-T".into(), "1".into())])));
        assert_eq!(body(b"abcd", Framing::Length(3)).await.unwrap().0, b"abc");
        assert_eq!(body(b"abcd", Framing::UntilClose).await.unwrap().0, b"abcd");
    }

    #[tokio::test]
    async fn a_truncated_body_is_told_from_a_whole_one() {
        for (bytes, framing) in [(&b"ab"[..], Framing::Length(3)), (b"3\r\nabc\r\n", Framing::Chunked)] {
            let cut = body(bytes, framing).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
