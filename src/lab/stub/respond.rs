//! Answers: the headers every one carries, and the two shapes of Dify's errors.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SERVER, VARY, WWW_AUTHENTICATE};
use http::{Response, StatusCode, Version};
use http_body_util::{Either, Full};
use serde::Serialize;

use super::feed::Feed;

/// A whole answer or a stream of frames.
pub(super) type Body = Either<Full<Bytes>, Feed>;
pub(super) type Reply = Response<Body>;

/// The Dify release this instance behaves like.
pub(super) const VERSION: &str = "1.14.0";

const X_VERSION: HeaderName = HeaderName::from_static("x-version");
const X_ENV: HeaderName = HeaderName::from_static("x-env");
const X_STUB_INSTANCE: HeaderName = HeaderName::from_static("x-stub-instance");

/// Werkzeug's page for an unknown URL.
const NOT_FOUND: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n\
    <p>The requested URL was not found on the server. If you entered the URL manually please check your \
    spelling and try again.</p>\n";

/// Werkzeug's page for a known URL and a method it does not take.
const METHOD_NOT_ALLOWED: &str = "<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n\
    <h1>Method Not Allowed</h1>\n<p>The method is not allowed for the requested URL.</p>\n";

/// Why a request gets no normal answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Dify's `{"code","message","status"}`.
    Error {
        status: StatusCode,
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// A valid token without an account or session behind it.
    NotLoggedIn,
    /// 401 of the token refresh, which has a shape of its own.
    RefreshFailed(&'static str),
    NotFound,
    MethodNotAllowed,
}

impl Refusal {
    pub(super) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Refusal::Error { status: StatusCode::UNAUTHORIZED, code: "unauthorized", message: message.into() }
    }

    pub(super) fn invalid_param(message: impl Into<Cow<'static, str>>) -> Self {
        Refusal::Error { status: StatusCode::BAD_REQUEST, code: "invalid_param", message: message.into() }
    }

    /// The answer to a fault of this instance or its store.
    pub(super) fn internal() -> Self {
        Refusal::Error {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "unknown",
            message: "Internal Server Error".into(),
        }
    }

    pub(super) fn into_reply(self) -> Reply {
        match self {
            Refusal::Error { status, code, message } => error(status, code, &message),
            Refusal::NotLoggedIn => json(
                StatusCode::UNAUTHORIZED,
                &serde_json::json!({"code": "unauthorized", "message": "Unauthorized."}),
            ),
            Refusal::RefreshFailed(message) => {
                json(StatusCode::UNAUTHORIZED, &serde_json::json!({"result": "fail", "message": message}))
            }
            Refusal::NotFound => html(StatusCode::NOT_FOUND, NOT_FOUND),
            Refusal::MethodNotAllowed => html(StatusCode::METHOD_NOT_ALLOWED, METHOD_NOT_ALLOWED),
        }
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({"code": code, "message": message, "status": status.as_u16()});
    let mut reply = json(status, &body);
    if status == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"api\""));
    }
    reply
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    whole(status, "application/json", json_bytes(value).into())
}

/// `{"result":"success"}`.
pub(super) fn success() -> Reply {
    json(StatusCode::OK, &serde_json::json!({"result": "success"}))
}

fn html(status: StatusCode, page: &'static str) -> Reply {
    whole(status, "text/html; charset=utf-8", Bytes::from_static(page.as_bytes()))
}

fn whole(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A stream of server-sent events; like Dify's it carries no `Cache-SessionCommand`.
pub(super) fn event_stream(feed: Feed) -> Reply {
    let mut reply = Response::new(Either::Right(feed));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("X-Env, X-Trace-Id, X-Version"),
    );
    reply
}

/// Adds what every answer carries.
pub(super) fn stamp(reply: &mut Reply, instance: &HeaderValue, version: Version) {
    let headers = reply.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("gunicorn"));
    headers.insert(X_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(X_ENV, HeaderValue::from_static("PRODUCTION"));
    headers.insert(VARY, HeaderValue::from_static("Cookie"));
    headers.insert(X_STUB_INSTANCE, instance.clone());
    if version == Version::HTTP_11 {
        // hyper turns it into `close` when this is the connection's last answer.
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
}

/// `value` as JSON. For plain data only: structs, strings, numbers, lists and maps with string keys, which
/// cannot fail to serialise.
pub(super) fn json_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(reply: Reply) -> Bytes {
        reply.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn an_error_has_the_three_fields_and_a_401_its_challenge() {
        let reply = Refusal::unauthorized("Token has expired.").into_reply();
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(reply.headers()[WWW_AUTHENTICATE], "Bearer realm=\"api\"");
        let expected = r#"{"code":"unauthorized","message":"Token has expired.","status":401}"#;
        assert_eq!(body(reply).await, expected);
    }

    #[tokio::test]
    async fn an_unknown_url_gets_the_page_of_207_bytes() {
        assert_eq!(body(Refusal::NotFound.into_reply()).await.len(), 207);
    }

    #[test]
    fn only_http_1_1_is_told_to_keep_alive() {
        let (mut old, mut new) = (success(), success());
        let instance = HeaderValue::from_static("a");
        stamp(&mut old, &instance, Version::HTTP_10);
        stamp(&mut new, &instance, Version::HTTP_11);
        assert_eq!(old.headers().get(CONNECTION), None);
        assert_eq!(new.headers()[CONNECTION], "keep-alive");
        assert_eq!(new.headers()["x-stub-instance"], "a");
    }
}
