//! API errors as RFC 9457 problem documents.

use http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::admin::hosts::HostError;
use crate::admin::reply::{self, Reply};
use crate::proxy::drill::DrillError;
use crate::proxy::instance_admin::InstanceUpdateError;
use crate::session::StoreError;

/// Why a call was not carried out. The texts never quote the call.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum Problem {
    #[error(
        "the API is off until it has a token: set `token` in [admin], such as \
         token = \"env:VESTIBULE_ADMIN_TOKEN\", and restart vestibule"
    )]
    NoToken,
    #[error("send the token of [admin] in one header: Authorization: Bearer <token>")]
    Unauthorized,
    #[error(transparent)]
    Host(HostError),
    #[error("the API has no such address")]
    NotFound,
    #[error(transparent)]
    Order(InstanceUpdateError),
    #[error(transparent)]
    Drill(DrillError),
    #[error("this address takes only {0}")]
    Method(String),
    #[error("the body must be application/json")]
    MediaType,
    #[error("the body is larger than 16 KiB")]
    TooLarge,
    #[error("the body did not arrive within 10 seconds")]
    TooSlow,
    #[error("the body broke off")]
    BrokenOff,
    /// The expected body.
    #[error("the body must be {0}")]
    Malformed(&'static str),
    /// What is wrong with a well-formed body.
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0}; what has happened is unknown: repeat the call")]
    Store(#[source] StoreError),
    /// The configuration file that this process actually reads.
    #[error(
        "this vestibule reads its configuration from {0} and from nowhere else: change it there, or start it with the \
         other file"
    )]
    OtherConfig(String),
    /// Why the previous configuration stays in use.
    #[error("{0}")]
    NotReloaded(String),
    /// Why this process keeps serving.
    #[error("{0}")]
    NotUpgraded(String),
    #[error("vestibule failed; what has happened is unknown: repeat the call")]
    Internal,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Problem::NoToken => StatusCode::FORBIDDEN,
            Problem::Unauthorized => StatusCode::UNAUTHORIZED,
            Problem::Host(error) => error.status(),
            Problem::Order(InstanceUpdateError::Over)
            | Problem::Drill(DrillError::Instance(InstanceUpdateError::Over)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Problem::Order(InstanceUpdateError::Several(_))
            | Problem::Drill(
                DrillError::Instance(InstanceUpdateError::Several(_)) | DrillError::Running(_),
            )
            | Problem::OtherConfig(_) => StatusCode::CONFLICT,
            Problem::Drill(DrillError::Embedded) => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::NotFound | Problem::Order(_) | Problem::Drill(_) => StatusCode::NOT_FOUND,
            Problem::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Problem::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Problem::BrokenOff | Problem::Malformed(_) => StatusCode::BAD_REQUEST,
            Problem::Invalid(_) | Problem::NotReloaded(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::Store(_) | Problem::NotUpgraded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The name in logs.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Problem::NoToken => "no_token",
            Problem::Unauthorized => "unauthorized",
            Problem::Host(_) => "host",
            Problem::NotFound => "not_found",
            Problem::Order(InstanceUpdateError::Over)
            | Problem::Drill(DrillError::Instance(InstanceUpdateError::Over)) => "over",
            Problem::Order(InstanceUpdateError::Several(_))
            | Problem::Drill(DrillError::Instance(InstanceUpdateError::Several(_))) => "several",
            Problem::Drill(DrillError::Running(_)) => "running",
            Problem::Drill(DrillError::Embedded) => "embedded",
            Problem::Order(_) | Problem::Drill(_) => "unknown",
            Problem::Method(_) => "method",
            Problem::MediaType => "media_type",
            Problem::TooLarge => "too_large",
            Problem::TooSlow => "too_slow",
            Problem::BrokenOff => "broken_off",
            Problem::Malformed(_) => "malformed",
            Problem::Invalid(_) => "invalid",
            Problem::Store(error) => error.kind(),
            Problem::OtherConfig(_) => "other_config",
            Problem::NotReloaded(_) => "not_reloaded",
            Problem::NotUpgraded(_) => "not_upgraded",
            Problem::Internal => "internal",
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let status = problem.status();
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: problem.to_string(),
        };
        let mut reply = reply::json("application/problem+json", status, &document);
        let header = match problem {
            Problem::Unauthorized => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Problem::Store(_) => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            // The rest of the body may still arrive on this connection.
            Problem::TooSlow | Problem::TooLarge => Some((CONNECTION, HeaderValue::from_static("close"))),
            _ => None,
        };
        reply.headers_mut().extend(header);
        reply
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::golden::assert_golden;
    use crate::headers::host::TargetError;

    fn all() -> Vec<Problem> {
        let known = || vec!["app".to_owned(), "api".to_owned()];
        vec![
            Problem::NoToken,
            Problem::Unauthorized,
            Problem::Host(HostError::Unclear(TargetError::NoHost)),
            Problem::Host(HostError::Misdirected),
            Problem::NotFound,
            Problem::Order(InstanceUpdateError::NoUpstream(known())),
            Problem::Order(InstanceUpdateError::NoInstance(known())),
            Problem::Order(InstanceUpdateError::Over),
            Problem::Drill(DrillError::Running("what".to_owned())),
            Problem::Drill(DrillError::None),
            Problem::Drill(DrillError::Embedded),
            Problem::Drill(DrillError::Instance(InstanceUpdateError::NoInstance(known()))),
            Problem::Drill(DrillError::Instance(InstanceUpdateError::Over)),
            Problem::Method("GET, HEAD".to_owned()),
            Problem::MediaType,
            Problem::TooLarge,
            Problem::TooSlow,
            Problem::BrokenOff,
            Problem::Malformed("this"),
            Problem::Invalid("this is wrong"),
            Problem::Store(StoreError::Timeout),
            Problem::OtherConfig("/this".to_owned()),
            Problem::NotReloaded("why".to_owned()),
            Problem::NotUpgraded("why".to_owned()),
            Problem::Internal,
        ]
    }

    /// The name in logs, the whole response, and an empty line.
    async fn shown(problem: Problem) -> String {
        let word = problem.outcome();
        let (head, body) = Reply::from(problem).into_parts();
        let mut headers: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect();
        headers.sort();
        let body = body.collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        format!("{word}\n{}\n{}{body}\n\n", head.status, headers.concat())
    }

    #[tokio::test]
    async fn golden_problems_of_the_api_keep_their_documents() {
        let mut page = String::new();
        for problem in all() {
            page.push_str(&shown(problem).await);
        }
        assert_golden("admin-problems.txt", &page);
    }
}
