//! The page and the requests it steers with.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ControlError, Controls, State};
use crate::config::Mode;

const PAGE: &str = include_str!("page.html");
/// The page is one file and talks to its own origin only.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Most bytes of a control request.
const BODY_LIMIT: usize = 1024;

type Reply = Response<Full<Bytes>>;

/// What a control request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Page,
    State,
    SetMode,
    Stop(usize),
    Start(usize),
}

impl Action {
    fn of(path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix("/demo/api/instances/") {
            let (instance, verb) = rest.split_once('/')?;
            let instance = instance.parse().ok()?;
            return match verb {
                "stop" => Some(Action::Stop(instance)),
                "start" => Some(Action::Start(instance)),
                _ => None,
            };
        }
        match path {
            "/" => Some(Action::Page),
            "/demo/api/state" => Some(Action::State),
            "/demo/api/mode" => Some(Action::SetMode),
            _ => None,
        }
    }

    fn method(self) -> Method {
        match self {
            Action::Page | Action::State => Method::GET,
            Action::SetMode | Action::Stop(_) | Action::Start(_) => Method::POST,
        }
    }
}

/// Why a request is not obeyed; the status and a word for the page.
struct Refusal(StatusCode, &'static str);

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, controls: &dyn Controls) -> Reply {
    let mut reply = match Action::of(request.uri().path()) {
        None => refused(Refusal(StatusCode::NOT_FOUND, "no such page")),
        Some(action) if action.method() != *request.method() => not_allowed(action),
        Some(action) => act(action, request, controls).await.unwrap_or_else(refused),
    };
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

async fn act(action: Action, request: Request<Incoming>, controls: &dyn Controls) -> Result<Reply, Refusal> {
    if action.method() == Method::POST {
        check_sender(request.headers())?;
    }
    match action {
        Action::Page => return Ok(reply(StatusCode::OK, "text/html; charset=utf-8", PAGE.into())),
        Action::State => {}
        Action::SetMode => controls.set_mode(read_mode(request).await?).await?,
        Action::Stop(instance) => controls.stop(instance).await?,
        Action::Start(instance) => controls.start(instance).await?,
    }
    Ok(json_reply(StatusCode::OK, &state_json(&controls.state().await)))
}

/// Other sites must not steer: a form of theirs cannot send JSON, and their scripts carry their own origin.
fn check_sender(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let authority =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Refusal(StatusCode::FORBIDDEN, "the request comes from another site")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeRequest {
    mode: String,
}

async fn read_mode(request: Request<Incoming>) -> Result<Mode, Refusal> {
    const WANTED: Refusal = Refusal(StatusCode::BAD_REQUEST, "expected {\"mode\":\"local|sticky|shared\"}");
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await.map_err(|_| WANTED)?;
    let ModeRequest { mode } = serde_json::from_slice(&body.to_bytes()).map_err(|_| WANTED)?;
    [Mode::Local, Mode::Sticky, Mode::Shared].into_iter().find(|known| known.as_str() == mode).ok_or(WANTED)
}

fn state_json(state: &State) -> Value {
    let started = state.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({"mode": state.mode.as_str(), "started": started, "instances": state.instances})
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NoSuchInstance => Refusal(StatusCode::NOT_FOUND, "there is no such instance"),
            ControlError::Failed(_) => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "it could not be done"),
        }
    }
}

fn refused(Refusal(status, message): Refusal) -> Reply {
    json_reply(status, &json!({"message": message}))
}

fn not_allowed(action: Action) -> Reply {
    let mut reply = refused(Refusal(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here"));
    if let Ok(allowed) = HeaderValue::from_str(action.method().as_str()) {
        reply.headers_mut().insert(ALLOW, allowed);
    }
    reply
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", value.to_string().into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(lines: &[(&'static str, &'static str)]) -> Result<(), StatusCode> {
        let headers = lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        check_sender(&headers).map_err(|Refusal(status, _)| status)
    }

    #[test]
    fn only_json_of_the_same_origin_steers() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "localhost:8080");
        assert_eq!(sender(&[json, host]), Ok(()));
        assert_eq!(sender(&[json, host, ("origin", "http://localhost:8080")]), Ok(()));
        for origin in ["http://localhost:8081", "https://evil.example", "null"] {
            assert_eq!(sender(&[json, host, ("origin", origin)]), Err(StatusCode::FORBIDDEN), "{origin}");
        }
        assert_eq!(sender(&[json, ("origin", "http://localhost:8080")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(sender(&[host, ("content-type", "text/plain")]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(sender(&[host]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }

    #[test]
    fn paths_name_actions_whole() {
        assert_eq!(Action::of("/demo/api/instances/2/stop"), Some(Action::Stop(2)));
        assert_eq!(Action::of("/demo/api/instances/0/start"), Some(Action::Start(0)));
        for path in
            ["/demo/api/instances/x/stop", "/demo/api/instances/1", "/demo/api/instances/1/kill", "/demo"]
        {
            assert_eq!(Action::of(path), None, "{path}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for outside in ["src=", "@import", "url(", "http://", "https://"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
