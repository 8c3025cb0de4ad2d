//! `/__stub/executions/ID`: what was executed, for tests about requests that must run once. The file outlives a killed
//! process, and several instances can share one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::misc::bad_request;
use super::respond::{self, Refusal, Reply};

/// A file with a line for every execution.
#[derive(Debug)]
pub(super) struct Executions(File);

impl Executions {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Executions)
    }

    fn note(&self, id: &str) -> io::Result<()> {
        // In one piece, so that the lines of several processes do not mix.
        (&self.0).write_all(format!("{id}\n").as_bytes())
    }
}

/// Executes a request that came whole: writes its id down, then answers.
pub(super) async fn execute(
    id: &str,
    request: Request<Incoming>,
    executions: Option<&Executions>,
) -> Result<Reply, Refusal> {
    let executions = executions.ok_or(Refusal::NotFound)?;
    request.into_body().collect().await.map_err(|_| bad_request("The request ended too early."))?;
    executions.note(id).map_err(|_| Refusal::internal())?;
    Ok(respond::json(StatusCode::OK, &json!({ "executed": id })))
}
