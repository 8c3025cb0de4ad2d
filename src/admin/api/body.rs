//! Reads a JSON body with limits on size and time.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Problem;

/// Maximum bytes of a body.
const MAX_BYTES: usize = 16 << 10;
/// Timeout of a whole body.
const DEADLINE: Duration = Duration::from_secs(10);

/// Parses `body` as JSON. `expected` describes the valid bodies for the error text.
pub(super) async fn json<T: DeserializeOwned, B>(
    headers: &HeaderMap,
    body: B,
    expected: &'static str,
) -> Result<T, Problem>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if !is_json(headers) {
        return Err(Problem::MediaType);
    }
    // The parser's error may quote the body, so it is discarded.
    serde_json::from_slice(&read(body).await?).map_err(|_| Problem::Malformed(expected))
}

async fn read<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(Problem::TooLarge);
    }
    let collected = timeout(DEADLINE, Limited::new(body, MAX_BYTES).collect()).await;
    match collected.map_err(|_| Problem::TooSlow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge),
        Err(_) => Err(Problem::BrokenOff),
    }
}

/// Whether there is exactly one `Content-Type` and it is JSON; parameters are ignored (RFC 8259, section 11).
fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let essence = line.to_str().ok().and_then(|line| line.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{self, StreamExt};
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use tokio::time::Instant;

    use super::*;

    fn is_json_type(kinds: &[&str]) -> bool {
        is_json(&kinds.iter().map(|kind| (CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())).collect())
    }

    #[test]
    fn the_media_type_is_json_whatever_its_parameters() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"] {
            assert!(is_json_type(&[kind]), "{kind}");
        }
        for kind in ["", "text/plain", "application/jsonx", "text/plain; application/json"] {
            assert!(!is_json_type(&[kind]), "{kind}");
        }
        assert!(!is_json_type(&[]));
        assert!(!is_json_type(&["application/json", "application/json"]));
    }

    /// A body of unknown length.
    fn pieces(sizes: &'static [usize]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frame = |size: &usize| Ok(Frame::data(Bytes::from(vec![b'x'; *size])));
        StreamBody::new(stream::iter(sizes.iter().map(frame)))
    }

    #[tokio::test]
    async fn a_body_ends_at_sixteen_kibibytes_declared_or_counted() {
        assert_eq!(read(pieces(&[MAX_BYTES - 1, 1])).await.unwrap().len(), MAX_BYTES);
        assert_eq!(read(pieces(&[MAX_BYTES, 1])).await, Err(Problem::TooLarge));
        assert_eq!(read(Full::from(vec![0; MAX_BYTES])).await.unwrap().len(), MAX_BYTES);
        assert_eq!(read(Full::from(vec![0; MAX_BYTES + 1])).await, Err(Problem::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up_at_the_deadline() {
        let start = Instant::now();
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let body = StreamBody::new(first.chain(stream::pending()));
        assert_eq!(read(body).await, Err(Problem::TooSlow));
        assert_eq!(start.elapsed(), DEADLINE);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_body() {
        let pieces = [Ok(Frame::data(Bytes::from_static(b"{}"))), Err("broken")];
        assert_eq!(read(StreamBody::new(stream::iter(pieces))).await, Err(Problem::BrokenOff));
    }
}
