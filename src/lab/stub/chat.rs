//! The generating endpoints of apps: chat, completion and workflow.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::door::Door;
use super::engine::{self, Knobs, Outcome, Registered};
use super::feed::{Feeder, feed};
use super::frames::{FAILURE, Kind, Run};
use super::misc::read_json;
use super::respond::{Refusal, Reply, event_stream, json, success};
use super::state::State;

/// A workflow's stream ends this long after its last frame (measured), under the latency scale.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    query: String,
    #[serde(default)]
    response_mode: ResponseMode,
    user: Option<String>,
    conversation_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum ResponseMode {
    Streaming,
    #[default]
    Blocking,
}

/// `POST /v1/chat-messages`, `/v1/completion-messages`, `/v1/workflows/run`, `/api/chat-messages`
pub(super) async fn generate(
    (kind, door): (Kind, Door),
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Reply, Refusal> {
    let guest = door.admit(&request, state)?;
    let kind = if kind == Kind::Chat && guest.is_advanced_chat { Kind::AdvancedChat } else { kind };
    let ask: Ask = read_json(request).await?;
    let user = guest.user.or(ask.user).filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| Refusal::invalid_param("Arg user must be provided."))?;
    let knobs: Knobs = serde_json::from_value(Value::Object(ask.inputs.clone()))
        .map_err(|error| Refusal::invalid_param(error.to_string()))?;
    knobs.check().map_err(Refusal::invalid_param)?;
    let run = Run::new(kind, user, ask.query, ask.conversation_id.unwrap_or_default(), ask.inputs);
    let registered = Registered::new(state, &run.task_id);
    match ask.response_mode {
        ResponseMode::Streaming => Ok(stream(run, knobs, registered, state)),
        ResponseMode::Blocking => block(&run, &knobs, &registered).await,
    }
}

/// The answer begins at once; a task of its own produces the rest, as a thread does in Dify.
fn stream(run: Run, knobs: Knobs, registered: Registered, state: &Arc<State>) -> Reply {
    let (feeder, body) = feed(state, registered.stopped.clone());
    let linger = state.latency.scaled(LINGER);
    tokio::spawn(async move {
        engine::stream(&run, &knobs, feeder, linger).await;
        drop(registered);
    });
    event_stream(body)
}

async fn block(run: &Run, knobs: &Knobs, registered: &Registered) -> Result<Reply, Refusal> {
    let mut feeder = Feeder::silent(registered.stopped.clone());
    match engine::produce(run, knobs, &mut feeder).await {
        Outcome::Ended(ending, tokens) => Ok(json(StatusCode::OK, &run.blocking(ending, tokens))),
        Outcome::Failed => Err(Refusal::Error {
            status: StatusCode::BAD_REQUEST,
            code: "completion_request_error",
            message: FAILURE.into(),
        }),
        Outcome::Abandoned => Err(Refusal::internal()),
    }
}

/// `POST …/<task_id>/stop`
pub(super) fn stop(
    task_id: &str,
    door: Door,
    request: &Request<Incoming>,
    state: &State,
) -> Result<Reply, Refusal> {
    door.admit(request, state)?;
    state.runs.stop(task_id);
    Ok(success())
}
