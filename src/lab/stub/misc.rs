//! Small answers, and reading a JSON request.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::account::bearer;
use super::respond::{self, Refusal, Reply, VERSION};

/// Most bytes of a JSON request.
const JSON_LIMIT: usize = 1024 * 1024;

/// `GET /health`
pub(super) fn health() -> Reply {
    let body = json!({"pid": std::process::id(), "status": "ok", "version": VERSION});
    respond::json(StatusCode::OK, &body)
}

/// `GET /console/api/system-features`
pub(super) fn system_features() -> Reply {
    let body = json!({
        "sso_enforced_for_signin": false,
        "sso_enforced_for_signin_protocol": "",
        "enable_marketplace": false,
        "max_plugin_package_size": 52_428_800,
        "enable_email_code_login": false,
        "enable_email_password_login": true,
        "enable_social_oauth_login": false,
        "enable_collaboration_mode": false,
        "is_allow_register": false,
        "is_allow_create_workspace": false,
        "is_email_setup": false,
        "license": {"status": "none", "expired_at": "", "workspaces": {"enabled": false, "size": 0, "limit": 0}},
        "branding": {"enabled": false, "application_title": "", "login_page_logo": "", "workspace_logo": "", "favicon": ""},
    });
    respond::json(StatusCode::OK, &body)
}

/// `GET /v1/parameters`
pub(super) fn parameters(request: &Request<Incoming>) -> Result<Reply, Refusal> {
    app_key(request)?;
    let body = json!({
        "opening_statement": "",
        "suggested_questions": [],
        "suggested_questions_after_answer": {"enabled": false},
        "speech_to_text": {"enabled": false},
        "text_to_speech": {"enabled": false, "voice": "", "language": ""},
        "retriever_resource": {"enabled": true},
        "annotation_reply": {"enabled": false},
        "more_like_this": {"enabled": false},
        "user_input_form": [],
        "sensitive_word_avoidance": {"enabled": false},
        "file_upload": {"enabled": false, "number_limits": 3},
        "system_parameters": {
            "image_file_size_limit": 10,
            "video_file_size_limit": 100,
            "audio_file_size_limit": 50,
            "file_size_limit": 15,
            "workflow_file_upload_limit": 10,
        },
    });
    Ok(respond::json(StatusCode::OK, &body))
}

/// The caller's app key, `app-…`.
pub(super) fn app_key(request: &Request<Incoming>) -> Result<&str, Refusal> {
    let token = bearer(request.headers()).ok_or_else(|| {
        Refusal::unauthorized("Authorization header must be provided and start with 'Bearer'")
    })?;
    let known = token.strip_prefix("app-").is_some_and(|rest| !rest.is_empty());
    if known { Ok(token) } else { Err(Refusal::unauthorized("Access token is invalid")) }
}

/// The request's body as a `T`.
pub(super) async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = read(request).await?;
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| bad_request("Invalid JSON payload received or JSON payload is empty."))?;
    serde_json::from_value(value).map_err(|error| Refusal::invalid_param(error.to_string()))
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    match Limited::new(request.into_body(), JSON_LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::Error {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "request_entity_too_large",
            message: "The data value transmitted exceeds the capacity limit.".into(),
        }),
        Err(_) => Err(bad_request("The request ended too early.")),
    }
}

/// 400 for a request that cannot be read.
pub(super) fn bad_request(message: &'static str) -> Refusal {
    Refusal::Error { status: StatusCode::BAD_REQUEST, code: "bad_request", message: message.into() }
}
