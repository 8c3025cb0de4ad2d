//! Golden test of the error responses, log reasons and metrics labels in `tests/golden/problems.txt`.

use std::fmt::Write;
use std::io;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::context::{AffinityOutcome, SessionOutcome};
use super::error::{ErrorResponse, ProxyError};
use super::respond::demands;
use crate::body::RequestBodyError;
use crate::golden::assert_golden;
use crate::headers::host::TargetError;
use crate::secret::RandomError;
use crate::session::{
    AbsentReason, IdentityError, LifecycleError, SessionCommandError, StoreError, Unreadable,
};
use crate::transport::{ConnectError, MalformedHead, SendError};

/// The error that hyper returns for input that is not a request.
async fn broken() -> hyper::Error {
    let (ours, theirs) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut { ours }, b"\0\r\n\r\n").await.unwrap();
    let service = service_fn(async |_| Ok::<_, io::Error>(http::Response::new(String::new())));
    http1::Builder::new().serve_connection(TokioIo::new(theirs), service).await.unwrap_err()
}

async fn of_requests() -> Vec<ProxyError> {
    let target = [
        TargetError::NoHost,
        TargetError::SeveralHosts,
        TargetError::BadHost,
        TargetError::HostMismatch,
        TargetError::Scheme,
        TargetError::NotAPath,
        TargetError::UnsafePath,
    ];
    let body = [
        RequestBodyError::TooLarge,
        RequestBodyError::Stalled,
        RequestBodyError::Aborted,
        RequestBodyError::Malformed,
    ];
    let mut errors = vec![
        ProxyError::Method,
        ProxyError::OddMethod,
        ProxyError::LongMethod,
        ProxyError::UriTooLong,
        ProxyError::HeaderCount,
        ProxyError::HeaderBytes,
        ProxyError::RawTarget,
        ProxyError::Framing,
        ProxyError::BodyTooLarge,
        ProxyError::NoRoute,
        ProxyError::SessionRequired,
    ];
    errors.extend(target.map(ProxyError::Target));
    errors.extend(body.map(ProxyError::Body));
    errors
}

fn of_sessions() -> Vec<ProxyError> {
    let store = [
        StoreError::Timeout,
        StoreError::Disconnected,
        StoreError::Tls,
        StoreError::Busy,
        StoreError::Auth,
        StoreError::Loading,
        StoreError::ReadOnly,
        StoreError::PrimaryDown,
        StoreError::Moving,
        StoreError::Script,
        StoreError::OutOfMemory,
        StoreError::NotDurable,
        StoreError::MaxClients,
        StoreError::WrongType,
        StoreError::Protocol,
        StoreError::Rejected,
    ];
    let mut errors = vec![
        ProxyError::Unreadable(Unreadable::WrongType),
        ProxyError::Lifecycle(LifecycleError::Store(StoreError::Timeout)),
        ProxyError::Lifecycle(LifecycleError::Random(RandomError)),
        ProxyError::Identity(IdentityError { header: http::header::COOKIE, reason: "why" }),
        ProxyError::Control(SessionCommandError::Repeated),
    ];
    errors.extend(store.map(ProxyError::Store));
    errors
}

async fn of_instances() -> Vec<ProxyError> {
    let failed = || io::Error::from(io::ErrorKind::ConnectionRefused);
    vec![
        ProxyError::NoInstance,
        ProxyError::TieLost,
        ProxyError::QueueFull,
        ProxyError::QueueTimeout,
        ProxyError::TotalTimeout,
        ProxyError::Connect(ConnectError::Failed(failed())),
        ProxyError::Connect(ConnectError::Exhausted(failed())),
        ProxyError::Connect(ConnectError::TimedOut),
        ProxyError::Connect(ConnectError::Full),
        ProxyError::Connect(ConnectError::TooMany),
        ProxyError::Connect(ConnectError::Setup(broken().await)),
        ProxyError::Send(SendError::Unsent),
        ProxyError::Send(SendError::Broken(broken().await)),
        ProxyError::Send(SendError::Silent(broken().await)),
        ProxyError::Send(SendError::HeadTooLarge),
        ProxyError::Send(SendError::Malformed(MalformedHead::Syntax(broken().await))),
        ProxyError::Send(SendError::TimedOut),
        ProxyError::Send(SendError::Stalled),
        ProxyError::UnexpectedUpgrade,
        ProxyError::Answer("why"),
        ProxyError::Upgrade(broken().await),
    ]
}

fn line(error: &ProxyError) -> String {
    let ErrorResponse { status, reason, detail, limit, retry_after, close } = error.response();
    let mut line = format!("{} {reason}: {detail}", status.as_u16());
    if let Some(limit) = limit {
        let _ = write!(line, " limit={limit}");
    }
    if let Some(pause) = retry_after {
        let _ = write!(line, " retry-after={}", pause.as_secs());
    }
    if close {
        line.push_str(" connection=close");
    }
    if let Some((name, value)) = demands(status, "session-id") {
        let _ = write!(line, " {name}={value:?}");
    }
    line.push('\n');
    line
}

#[tokio::test]
async fn golden_failed_requests_have_their_status_reason_and_sentence() {
    let mut lines: Vec<String> = of_requests().await.iter().map(line).collect();
    lines.extend(of_sessions().iter().map(line));
    lines.extend(of_instances().await.iter().map(line));
    lines.sort();
    lines.dedup();
    assert_golden("problems.txt", &lines.concat());
}

#[test]
fn golden_outcomes_of_sessions_and_ties_have_their_words() {
    let sessions = [
        SessionOutcome::Off,
        SessionOutcome::Active,
        SessionOutcome::Stale,
        SessionOutcome::Absent(AbsentReason::NoId),
        SessionOutcome::Ended,
        SessionOutcome::Unknown,
        SessionOutcome::Unreadable,
        SessionOutcome::Unavailable,
    ];
    let words = ["off", "active", "stale", "no_id", "ended", "unknown", "unreadable", "unavailable"];
    assert_eq!(sessions.map(SessionOutcome::as_str), words);
    let ties = [
        AffinityOutcome::Kept,
        AffinityOutcome::New,
        AffinityOutcome::Moved,
        AffinityOutcome::Lost,
        AffinityOutcome::Expired,
        AffinityOutcome::Forged,
    ];
    assert_eq!(ties.map(AffinityOutcome::as_str), ["kept", "new", "moved", "lost", "expired", "forged"]);
}
