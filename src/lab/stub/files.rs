//! `POST /v1/files/upload` and `/api/files/upload`: reads a file of any size without holding it, and says what it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::door::Door;
use super::misc::bad_request;
use super::multipart::{File, Scanner, boundary};
use super::ordered::object;
use super::respond::{Refusal, Reply, json};
use super::state::{State, unix_now, uuid};

/// Largest accepted file, in bytes: Dify's default of 15 MiB.
const FILE_LIMIT: u64 = 15 * 1024 * 1024;

/// Takes one file in the field `file`. Like Dify it reads the whole body before it refuses.
pub(super) async fn upload(
    door: Door,
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Reply, Refusal> {
    door.admit(&request, state)?;
    let file = only_file(read(request).await?)?;
    if file.size > FILE_LIMIT {
        return Err(Refusal::Error {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "file_too_large",
            message: "File size exceeded.".into(),
        });
    }
    state.stats.uploads.fetch_add(1, Relaxed);
    state.stats.upload_bytes.fetch_add(file.size, Relaxed);
    let extension =
        Path::new(&file.name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let body = object! {
        "id": uuid(),
        "name": file.name.as_str(),
        "size": file.size,
        "extension": extension.to_lowercase(),
        "mime_type": file.mime_type.as_str(),
        "created_by": uuid(),
        "created_at": unix_now(),
    };
    Ok(json(StatusCode::CREATED, &body))
}

async fn read(request: Request<Incoming>) -> Result<Vec<File>, Refusal> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(boundary).ok_or_else(no_file)?;
    let mut scanner = Scanner::new(boundary);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| bad_request("The request ended too early."))?;
        if let Ok(data) = frame.into_data() {
            scanner.push(&data).map_err(|_| no_file())?;
        }
    }
    scanner.finish().map_err(|_| no_file())
}

fn only_file(files: Vec<File>) -> Result<File, Refusal> {
    let mut files = files.into_iter();
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        (None, _) => Err(no_file()),
        (Some(_), Some(_)) => Err(Refusal::Error {
            status: StatusCode::BAD_REQUEST,
            code: "too_many_files",
            message: "Only one file is allowed.".into(),
        }),
    }
}

fn no_file() -> Refusal {
    Refusal::Error {
        status: StatusCode::BAD_REQUEST,
        code: "no_file_uploaded",
        message: "Please upload your file.".into(),
    }
}
