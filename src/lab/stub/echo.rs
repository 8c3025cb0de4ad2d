//! `/__stub/echo`: what of a request arrived here, the oracle of header tests.

use aws_lc_rs::digest;
use http::header::HeaderMap;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;

use super::misc::bad_request;
use super::respond::{Refusal, Reply, json};

/// What was received. Header names are in lower case and lines of one name together and in order, because
/// that is what the HTTP library keeps; bytes above 0x7f appear as the Latin-1 character of that number.
#[derive(Serialize)]
struct Echo {
    method: String,
    /// The request target as it stood in the request line.
    target: String,
    version: String,
    headers: Vec<[String; 2]>,
    trailers: Vec<[String; 2]>,
    body_length: u64,
    /// Lower-case hexadecimal.
    body_sha256: String,
}

/// Reads the whole request without keeping its body.
pub(super) async fn echo(request: Request<Incoming>) -> Result<Reply, Refusal> {
    let (head, mut body) = request.into_parts();
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut body_length = 0;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| bad_request("The request ended too early."))?;
        match frame.into_data() {
            Ok(data) => {
                hash.update(&data);
                body_length += data.len() as u64;
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let echo = Echo {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        version: format!("{:?}", head.version),
        headers: lines(&head.headers),
        trailers: lines(&trailers),
        body_length,
        body_sha256: hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    Ok(json(StatusCode::OK, &echo))
}

fn lines(headers: &HeaderMap) -> Vec<[String; 2]> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
    headers.iter().map(|(name, value)| [name.to_string(), text(value.as_bytes())]).collect()
}
