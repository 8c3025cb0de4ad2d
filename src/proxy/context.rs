//! The per-request context that the pipeline fills in. Dropping it ends the request: the drop writes the
//! access-log line and updates the metrics, whatever the result.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use crate::body::RequestBodyState;
use crate::canary::Variant;
use crate::config::Mode;
use crate::session::{AbsentReason, SessionId};
use crate::upstream::{Lease, Stream};

use super::canary::CanaryAssignment;
use super::client::Client;
use super::cohort::Comparison;
use super::outlier_report;
use super::runtime_config::RuntimeConfig;
use super::service::Service;

/// nginx's status for a client that disconnected before the response began. It is logged and counted but
/// never sent.
const CLIENT_LEFT: u16 = 499;

/// Result of the session resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionOutcome {
    /// Sessions are not resolved for this request.
    Off,
    Active,
    /// The session comes from the cache because the store is unavailable.
    Stale,
    Absent(AbsentReason),
    Ended,
    Unknown,
    Unreadable,
    Unavailable,
}

impl SessionOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            SessionOutcome::Off => "off",
            SessionOutcome::Active => "active",
            SessionOutcome::Stale => "stale",
            SessionOutcome::Absent(reason) => reason.as_str(),
            SessionOutcome::Ended => "ended",
            SessionOutcome::Unknown => "unknown",
            SessionOutcome::Unreadable => "unreadable",
            SessionOutcome::Unavailable => "unavailable",
        }
    }
}

/// Reason for the choice of the instance, in sticky mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AffinityOutcome {
    /// The client stays on its instance.
    Kept,
    /// The client had no affinity.
    New,
    /// The session was idle and was moved to an instance that was added later.
    Moved,
    /// The instance that the client was bound to cannot serve or is no longer a member.
    Lost,
    /// The affinity cookie had expired.
    Expired,
    /// The cookie failed verification: this proxy did not issue it.
    Forged,
}

impl AffinityOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            AffinityOutcome::Kept => "kept",
            AffinityOutcome::New => "new",
            AffinityOutcome::Moved => "moved",
            AffinityOutcome::Lost => "lost",
            AffinityOutcome::Expired => "expired",
            AffinityOutcome::Forged => "forged",
        }
    }
}

/// How the response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The response has not ended. A context dropped in this state means that the client disconnected.
    Open,
    /// The last byte was handed to the server connection.
    Whole,
    /// The upstream body ended prematurely.
    Cut,
}

/// State of one request.
#[derive(Debug)]
pub(super) struct RequestContext {
    pub(super) service: Arc<Service>,
    /// The configuration for the whole request.
    pub(super) plan: Arc<RuntimeConfig>,
    pub(super) started: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    /// The client's address, as determined from trusted peers.
    pub(super) client: IpAddr,
    /// The client connection on which the request arrived.
    pub(super) connection: Arc<Client>,
    /// `Host` as sent by the client, set after validation.
    pub(super) host: Option<HeaderValue>,
    pub(super) request_id: Option<HeaderValue>,
    /// Index into the configuration's routes.
    pub(super) route: Option<usize>,
    /// The canary assignment, set on a route with a canary once the variant is chosen.
    pub(super) visit: Option<CanaryAssignment>,
    /// `None` until the cohort is chosen, while modes are compared.
    pub(super) mode: Option<Mode>,
    /// Counterfactual outcome in another mode, while modes are compared.
    pub(super) comparison: Option<Comparison>,
    pub(super) session: SessionOutcome,
    /// The session id, where one was found.
    pub(super) session_id: Option<SessionId>,
    /// Set in sticky mode once an instance is chosen.
    pub(super) affinity: Option<AffinityOutcome>,
    /// The lease on the instance of the current or last attempt.
    pub(super) lease: Option<Lease>,
    /// The registered stream, once the response is classified as long-lived or large.
    pub(super) stream: Option<Stream>,
    /// Number of attempts begun.
    pub(super) attempts: u32,
    /// State of the request body; `None` without a body.
    pub(super) upload: Option<Arc<RequestBodyState>>,
    /// Status of the response head; `None` before it.
    pub(super) status: Option<StatusCode>,
    /// Time from the start of the request to the head of the response.
    pub(super) first_byte: Option<Duration>,
    /// Payload bytes of the request body.
    pub(super) received: u64,
    /// Payload bytes of the response body.
    pub(super) sent: u64,
    pub(super) ending: Ending,
    /// Short stable reason for a failure.
    pub(super) reason: Option<&'static str>,
    /// Error chain behind the failure, for the log only.
    pub(super) cause: Option<String>,
}

impl RequestContext {
    /// Starts the context of a request and counts the request as in flight until the context is dropped.
    pub(super) fn begin(
        service: &Arc<Service>,
        plan: Arc<RuntimeConfig>,
        parts: &Parts,
        upload: Option<Arc<RequestBodyState>>,
        client: &Arc<Client>,
    ) -> Self {
        service.worker().running.fetch_add(1, Relaxed);
        RequestContext {
            service: service.clone(),
            started: Instant::now(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            client: client.address,
            connection: client.clone(),
            host: None,
            request_id: None,
            route: None,
            visit: None,
            mode: plan.modes.one(),
            comparison: None,
            session: SessionOutcome::Off,
            session_id: None,
            affinity: None,
            lease: None,
            stream: None,
            attempts: 0,
            upload,
            status: None,
            first_byte: None,
            received: 0,
            sent: 0,
            ending: Ending::Open,
            reason: None,
            cause: None,
            plan,
        }
    }

    /// Records the status and the time of the response head.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }

    /// Index of the upstream that serves the request. `None` before a route is found.
    pub(super) fn upstream(&self) -> Option<usize> {
        let route = self.route?;
        match (self.plan.canaries.of_route(route), &self.visit) {
            (Some(canary), Some(visit)) if visit.choice.side == Variant::Canary => Some(canary.upstream()),
            _ => self.plan.config.routes.get(route).map(|route| route.upstream),
        }
    }

    /// Registers the response as a stream on its instance. With `endless` it counts as a stream immediately.
    pub(super) fn takes_its_time(&mut self, endless: bool) {
        if let (None, Some(lease)) = (&self.stream, &self.lease) {
            self.stream = Some(Stream::begin(lease.instance(), endless));
        }
    }

    /// Ready when the response must be aborted because its instance was closed. Records the reason.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &self.stream else { return Poll::Pending };
        ready!(stream.poll_closed(cx));
        self.ending = Ending::Cut;
        self.reason = Some("instance_closed");
        Poll::Ready(())
    }

    /// The status for the log and the metrics.
    pub(super) fn final_status(&self) -> u16 {
        self.status.map_or(CLIENT_LEFT, |status| status.as_u16())
    }

    /// The failure reason for the log.
    pub(super) fn final_reason(&self) -> Option<&'static str> {
        self.reason.or(match self.ending {
            Ending::Open if self.service.is_cutting() => Some("shutdown"),
            Ending::Open => Some("client_left"),
            Ending::Cut => Some("truncated"),
            Ending::Whole => None,
        })
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            self.received = upload.bytes();
        }
        outlier_report::ended(self);
        let took = self.started.elapsed();
        self.service.worker().running.fetch_sub(1, Relaxed);
        self.service.record(self, took);
    }
}
