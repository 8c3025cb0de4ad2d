//! The facts of one request, gathered on its way. When it is dropped, the request is over: its line is
//! written and it is counted, however it ended.

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

/// nginx's status for a client that left before its answer began; never sent, only logged and counted.
const CLIENT_LEFT: u16 = 499;

/// What is known of the request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionOutcome {
    /// Sessions are not resolved here.
    Off,
    Active,
    /// As last known, because the store does not answer.
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

/// Why the request went to its instance, in sticky mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AffinityOutcome {
    /// The client stays where it is tied.
    Kept,
    /// The client had no tie.
    New,
    /// The session was idle, and was moved to an instance that came later.
    Moved,
    /// The instance of the tie cannot serve or is not a member any more.
    Lost,
    /// The tie's life was over.
    Expired,
    /// The cookie was not ours.
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

/// How the answer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has not: dropped like this, the client left.
    Open,
    /// The last byte was handed over.
    Whole,
    /// The upstream's part broke off.
    Cut,
}

/// One request.
#[derive(Debug)]
pub(super) struct RequestContext {
    pub(super) service: Arc<Service>,
    pub(super) plan: Arc<RuntimeConfig>,
    pub(super) started: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) client: IpAddr,
    pub(super) connection: Arc<Client>,
    /// As the client wrote it, once it is known to be well formed.
    pub(super) host: Option<HeaderValue>,
    pub(super) request_id: Option<HeaderValue>,
    /// Index into the configuration's routes.
    pub(super) route: Option<usize>,
    /// On a route with a canary, once its side is chosen.
    pub(super) visit: Option<CanaryAssignment>,
    /// `None` until it is chosen, while modes are compared.
    pub(super) mode: Option<Mode>,
    /// What another mode would have made of the request, while modes are compared.
    pub(super) comparison: Option<Comparison>,
    pub(super) session: SessionOutcome,
    pub(super) session_id: Option<SessionId>,
    pub(super) affinity: Option<AffinityOutcome>,
    pub(super) lease: Option<Lease>,
    /// The answer, as long as it does not come in one piece.
    pub(super) stream: Option<Stream>,
    pub(super) attempts: u32,
    pub(super) upload: Option<Arc<RequestBodyState>>,
    pub(super) status: Option<StatusCode>,
    /// From the beginning to the head of the answer.
    pub(super) first_byte: Option<Duration>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) ending: Ending,
    /// A word for what went wrong.
    pub(super) reason: Option<&'static str>,
    /// What lay behind it, for the log only.
    pub(super) cause: Option<String>,
}

impl RequestContext {
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

    /// Notes the head of the answer.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }

    /// Index of the upstream that the request goes to, once it has a route.
    pub(super) fn upstream(&self) -> Option<usize> {
        let route = self.route?;
        match (self.plan.canaries.of_route(route), &self.visit) {
            (Some(canary), Some(visit)) if visit.choice.side == Variant::Canary => Some(canary.upstream()),
            _ => self.plan.config.routes.get(route).map(|route| route.upstream),
        }
    }

    /// Notes that the answer takes its time; `endless`: it counts as a stream at once.
    pub(super) fn takes_its_time(&mut self, endless: bool) {
        if let (None, Some(lease)) = (&self.stream, &self.lease) {
            self.stream = Some(Stream::begin(lease.instance(), endless));
        }
    }

    /// Ready when the answer has to end, because its instance has been closed.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &self.stream else { return Poll::Pending };
        ready!(stream.poll_closed(cx));
        self.ending = Ending::Cut;
        self.reason = Some("instance_closed");
        Poll::Ready(())
    }

    /// The status as logged and counted.
    pub(super) fn final_status(&self) -> u16 {
        self.status.map_or(CLIENT_LEFT, |status| status.as_u16())
    }

    /// The reason as logged.
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
