//! The request pipeline. It has six steps: route, clean headers, resolve the session, set identity headers,
//! forward, clean the response.

use std::error::Error;
use std::sync::Arc;

use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use crate::body::RequestBody;
use crate::config::{ClearCookie, CorsPreflights, Mode, OnAbsent, OnOutage, OnUnreadable, Route};
use crate::headers::cookie::{remove_cookie, split_set_cookie};
use crate::headers::{framing, hop_by_hop, host, target};
use crate::session::{
    LifecycleError, Resolution, Resolved, Session, SessionCommand, SessionCommandError, Source,
};
use crate::transport::UpstreamBody;

use super::canary;
use super::clean::{self, ForwardedInfo};
use super::client::Client;
use super::cohort::{self, Counterfactual};
use super::context::{RequestContext, SessionOutcome};
use super::error::ProxyError;
use super::forward::{self, UpstreamSelection};
use super::hash_key;
use super::interim::Relay;
use super::respond::{self, ResponseBody};
use super::runtime_config::RuntimeConfig;
use super::sticky_binding::StickyBinding;
use super::upgrade;

/// `Set-Cookie` values to add to the response, including error responses and redirects.
#[derive(Debug, Default)]
struct NewCookies {
    /// Sets or clears the session cookie.
    session: Option<HeaderValue>,
    affinity: Option<HeaderValue>,
    /// Keeps the client on the same version of a route with a canary.
    canary: Option<HeaderValue>,
    /// Keeps the client in the same cohort while modes are compared.
    cohort: Option<HeaderValue>,
}

impl NewCookies {
    fn add_to(self, headers: &mut HeaderMap) {
        for cookie in [self.session, self.affinity, self.canary, self.cohort].into_iter().flatten() {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Reason why the pipeline ends without an upstream response.
enum EarlyResponse {
    /// Redirects the browser to the login page.
    Redirect(HeaderValue),
    Failed(ProxyError),
}

impl<E: Into<ProxyError>> From<E> for EarlyResponse {
    fn from(error: E) -> Self {
        EarlyResponse::Failed(error.into())
    }
}

/// Runs the pipeline for one request and returns its response. A failure becomes an error response.
pub(super) async fn run(
    request: Box<Request<RequestBody>>,
    client: Arc<Client>,
    mut exchange: Box<RequestContext>,
) -> Response<ResponseBody> {
    let plan = exchange.plan.clone();
    let mut cookies = NewCookies::default();
    let outcome = run_steps(request, &client, &plan, &mut exchange, &mut cookies).await;
    let mut response = match outcome {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Box::pin(upgrade::switch(answer, exchange))
                .await
                .unwrap_or_else(|(error, exchange)| fail(&error, exchange))
        }
        Ok(answer) => {
            exchange.answered(answer.status());
            let endless = is_event_stream(answer.headers());
            answer.map(|body| ResponseBody::upstream(body, endless, exchange))
        }
        Err(EarlyResponse::Redirect(location)) => respond::redirect(&location, exchange),
        Err(EarlyResponse::Failed(error)) => fail(&error, exchange),
    };
    cookies.add_to(response.headers_mut());
    response
}

fn fail(error: &ProxyError, mut exchange: Box<RequestContext>) -> Response<ResponseBody> {
    exchange.cause = Some(chain(error));
    respond::problem(error, exchange)
}

/// Formats an error with its chain of sources, joined by `: `.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text = format!("{text}: {error}");
        behind = error.source();
    }
    text
}

/// Runs the steps in order. Cookies set before a failure remain in `cookies` and reach the client.
async fn run_steps(
    mut request: Box<Request<RequestBody>>,
    client: &Client,
    plan: &RuntimeConfig,
    exchange: &mut RequestContext,
    cookies: &mut NewCookies,
) -> Result<Response<UpstreamBody>, EarlyResponse> {
    let forwarding = &plan.config.forwarding;
    exchange.request_id = clean::request_id(request.headers(), forwarding, client);
    exchange.client = clean::client_address(request.headers(), forwarding, client);
    let route = find_route(&mut request, plan, exchange)?;
    let origin = clean_head(&mut request, plan, client, exchange);
    if let Some(cohorts) = &plan.cohorts {
        cookies.cohort = cohort::choose(request.headers_mut(), plan, cohorts, exchange, origin.https);
    }
    let session = match resolve(request.headers(), plan, route, exchange).await? {
        Some(session) => Some(session),
        None => {
            if is_cleared(plan, exchange.session) && request.headers().contains_key(COOKIE) {
                cookies.session = plan.cookies.clear(origin.https).ok();
            }
            on_absent(&request, route, exchange)?;
            None
        }
    };
    plan.identity.apply(request.headers_mut(), session.as_deref())?;
    cookies.canary = canary::choose(request.headers_mut(), plan, exchange, session.as_deref(), origin.https);
    if plan.config.session.cookie.hide && request.headers().contains_key(COOKIE) {
        remove_cookie(request.headers_mut(), &plan.config.session.cookie.name);
    }
    let answer = send_on(request, plan, route, exchange, &origin, session.as_deref(), cookies).await?;
    Ok(clean_response(answer, plan, route, exchange, &origin, session.as_deref(), cookies).await?)
}

/// Step 1: validates the request and finds its route. On success the head has exactly one `Host`.
fn find_route<'a>(
    request: &mut Request<RequestBody>,
    plan: &'a RuntimeConfig,
    exchange: &mut RequestContext,
) -> Result<&'a Route, ProxyError> {
    // Needed for HTTP/2 only. For HTTP/1 the request reader encodes the target before hyper parses it.
    target::encode(request.uri_mut()).map_err(|_| ProxyError::RawTarget)?;
    clean::check(request, &plan.config)?;
    let authority = host::authority(request.headers(), request.uri(), request.version())?;
    let path = host::routing_path(request.method(), request.uri())?;
    exchange.route = plan.router.find(authority.host, &path)?;
    exchange.host = authority.line.filter(|line| line.as_bytes() == authority.text.as_bytes()).cloned();
    if exchange.host.is_none()
        && let Ok(host) = HeaderValue::from_str(authority.text)
    {
        // The upstream connection is HTTP/1.1, where `Host` may be empty but must be present (RFC 9112
        // section 3.2).
        exchange.host = Some(host.clone()).filter(|host| !host.is_empty());
        request.headers_mut().insert(HOST, host);
    }
    let route = exchange.route.and_then(|index| plan.config.routes.get(index));
    route.ok_or(ProxyError::NoRoute)
}

/// Step 2: removes untrusted and hop-by-hop headers, then applies the headers that the route sets.
fn clean_head(
    request: &mut Request<RequestBody>,
    plan: &RuntimeConfig,
    client: &Client,
    exchange: &RequestContext,
) -> ForwardedInfo {
    let origin = clean::clean(request, plan, client, exchange.host.as_ref(), exchange.request_id.as_ref());
    if let Some(headers) = exchange.route.and_then(|index| plan.route_headers.get(index)) {
        headers.apply(request, &origin, exchange.host.as_ref());
    }
    origin
}

/// Step 3: resolves the session. Returns `None` when the request continues without a session;
/// `exchange.session` records the reason.
async fn resolve(
    headers: &HeaderMap,
    plan: &RuntimeConfig,
    route: &Route,
    exchange: &mut RequestContext,
) -> Result<Option<Arc<Session>>, ProxyError> {
    if exchange.mode != Some(Mode::Shared) || !route.session {
        return Ok(None);
    }
    let sessions = exchange.service.sessions(plan)?;
    let Resolved { outcome, source } = sessions.resolver.resolve(headers, route.on_outage).await;
    let denied = match &outcome {
        Resolution::Unreadable(_, why) if plan.config.session.on_unreadable == OnUnreadable::Deny => {
            Some(*why)
        }
        _ => None,
    };
    let (seen, result) = match outcome {
        Resolution::Active(session) => {
            exchange.session_id = Some(session.id().clone());
            let stale = matches!(source, Source::Stale(..));
            (if stale { SessionOutcome::Stale } else { SessionOutcome::Active }, Ok(Some(session)))
        }
        Resolution::Absent(reason) => (SessionOutcome::Absent(reason), Ok(None)),
        Resolution::Ended(id) => {
            exchange.session_id = Some(id);
            (SessionOutcome::Ended, Ok(None))
        }
        Resolution::Unknown(id) => {
            exchange.session_id = Some(id);
            (SessionOutcome::Unknown, Ok(None))
        }
        Resolution::Unreadable(id, _) => {
            exchange.session_id = Some(id);
            (SessionOutcome::Unreadable, Ok(None))
        }
        Resolution::Unavailable(error) => (SessionOutcome::Unavailable, Err(error)),
    };
    exchange.session = seen;
    exchange.service.worker().counts.update(|counts| {
        *counts.sessions.entry(seen.as_str()).or_default() += 1;
        counts.session_source(source);
        if let Err(error) = &result {
            counts.store_error(*error);
        }
    });
    match (denied, result) {
        (Some(why), _) => Err(why.into()),
        (None, Err(_)) if route.on_outage == OnOutage::Anonymous => Ok(None),
        (None, result) => Ok(result?),
    }
}

/// Returns whether the response clears the session cookie.
fn is_cleared(plan: &RuntimeConfig, session: SessionOutcome) -> bool {
    match plan.config.session.cookie.clear {
        ClearCookie::Never => false,
        ClearCookie::Ended => session == SessionOutcome::Ended,
        ClearCookie::All => matches!(session, SessionOutcome::Ended | SessionOutcome::Unknown),
    }
}

/// Applies the route's `on_absent` policy when there is no active session: continue, redirect, or fail with
/// [`ProxyError::SessionRequired`].
fn on_absent<B>(request: &Request<B>, route: &Route, exchange: &RequestContext) -> Result<(), EarlyResponse> {
    if matches!(exchange.session, SessionOutcome::Off | SessionOutcome::Unavailable) {
        return Ok(());
    }
    if route.cors_preflights == CorsPreflights::Pass && is_preflight(request) {
        return Ok(());
    }
    match &route.on_absent {
        OnAbsent::Anonymous => Ok(()),
        OnAbsent::Redirect(location) if is_navigation(request) => {
            Err(EarlyResponse::Redirect(location.clone()))
        }
        OnAbsent::Redirect(_) | OnAbsent::Unauthorized => Err(ProxyError::SessionRequired.into()),
    }
}

/// Returns whether the request is a CORS preflight (Fetch standard, CORS-preflight fetch). Browsers send
/// preflights without cookies.
fn is_preflight<B>(request: &Request<B>) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns whether the request is a page navigation and not a script's request for data. A redirect to a
/// login page is useful for navigations only.
fn is_navigation<B>(request: &Request<B>) -> bool {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    match request.headers().get("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => request.headers().get_all(ACCEPT).iter().any(|accept| {
            accept
                .to_str()
                .is_ok_and(|accept| accept.split(',').any(|kind| kind.trim().starts_with("text/html")))
        }),
    }
}

/// Step 5: selects the upstream, forwards the request and sets the affinity cookie.
async fn send_on(
    mut request: Box<Request<RequestBody>>,
    plan: &RuntimeConfig,
    route: &Route,
    exchange: &mut RequestContext,
    origin: &ForwardedInfo,
    session: Option<&Session>,
    cookies: &mut NewCookies,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let upstream = exchange.upstream().ok_or(ProxyError::NoInstance)?;
    let balancer = plan.balancers.get(upstream).ok_or(ProxyError::NoInstance)?;
    let connections = plan.connections.get(upstream).ok_or(ProxyError::NoInstance)?;
    let is_sticky = exchange.mode == Some(Mode::Sticky);
    let tie = match is_sticky && !route.single {
        true => StickyBinding::read_and_strip(plan, upstream, request.headers_mut()),
        false => None,
    };
    let key = hash_key::of(plan, is_sticky, route, balancer, request.headers(), session, exchange.client);
    let probe = match plan.cohorts {
        Some(_) => Counterfactual::of(plan, route, exchange, tie, request.headers_mut(), session),
        None => None,
    };
    // Removes the extensions that hyper set for the client connection, so that they are not applied to the
    // upstream connection.
    request.extensions_mut().clear();
    let bound = key.is_some() && hash_key::is_tie(is_sticky, route, balancer);
    let relay = Relay::of(exchange, &request);
    let to = UpstreamSelection { balancer, connections, tie, key, bound, relay };
    let mut answer =
        forward::forward(exchange, &to, request).await.map_err(|error| to.with_affinity_cause(error))?;
    if let (true, Some(lease)) = (is_sticky, &exchange.lease)
        && let Some(client) = tie.map_or(key, |tie| tie.client_of(lease.instance().id))
    {
        lease.instance().pinned().note(client, exchange.started);
    }
    let kept = match probe {
        Some(probe) => probe.compare(balancer, exchange, tie),
        None => tie.zip(exchange.lease.as_ref().map(|lease| lease.instance().id)),
    };
    if let Some((tie, instance)) = kept {
        cookies.affinity = tie.refresh_cookie(plan, balancer, instance, answer.headers_mut(), origin.https);
    }
    Ok(answer)
}

/// Step 6: removes hop-by-hop headers from the response and executes its session command, if it has one.
async fn clean_response(
    mut answer: Response<UpstreamBody>,
    plan: &RuntimeConfig,
    route: &Route,
    exchange: &RequestContext,
    origin: &ForwardedInfo,
    session: Option<&Session>,
    cookies: &mut NewCookies,
) -> Result<Response<UpstreamBody>, ProxyError> {
    check_response(&mut answer)?;
    let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (version, headers) = (answer.version(), answer.headers_mut());
    let agreed = hop_by_hop::take_nominated(headers, version).websocket;
    if switching && !(agreed && origin.hop.websocket) {
        return Err(ProxyError::UnexpectedUpgrade);
    }
    if sets_cookie(headers, &plan.config.session.cookie.name) {
        // The application has just set the session cookie in this response, so it must not be cleared.
        cookies.session = None;
    }
    let control = SessionCommand::from_headers(headers);
    plan.rules.from_upstream.strip(headers);
    if !matches!(control, Ok(None)) {
        // Session commands are rare. Boxing keeps their state out of every request's future.
        Box::pin(apply_session_command(control, plan, route, exchange, origin, session, cookies)).await?;
    }
    // The HTTP version belongs to the upstream connection only.
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer)
}

/// Rejects responses that the client could interpret differently from the proxy: a status outside 100–599
/// (RFC 9110 section 15) and any transfer coding other than `chunked` or `identity` (RFC 9112 section 6.1).
/// Leaves at most one `Content-Length`.
fn check_response<B>(answer: &mut Response<B>) -> Result<(), ProxyError> {
    if answer.status().as_u16() >= 600 {
        return Err(ProxyError::Answer("its status is none of HTTP"));
    }
    let mut codings = answer.headers().get_all(TRANSFER_ENCODING).iter();
    let is_plain = |coding: &HeaderValue| {
        let coding = coding.as_bytes().trim_ascii();
        coding.eq_ignore_ascii_case(b"chunked") || coding.eq_ignore_ascii_case(b"identity")
    };
    match (codings.next(), codings.next()) {
        (None, _) => {
            // An ambiguous `Content-Length` is removed. In that case hyper has read the body until the
            // connection closes.
            framing::keep_one_length(answer.headers_mut());
        }
        (Some(only), None) if is_plain(only) => {
            // `Transfer-Encoding` overrides `Content-Length` (RFC 9112 section 6.3), and hyper did not use
            // the length.
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        _ => return Err(ProxyError::Answer("its transfer coding is not plain chunked")),
    }
    Ok(())
}

/// Whether the response is a server-sent event stream.
fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..KIND.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// Whether the response sets a cookie called `name`.
fn sets_cookie(headers: &HeaderMap, name: &str) -> bool {
    let names = |line: &HeaderValue| {
        split_set_cookie(line.as_bytes()).is_some_and(|(own, _, _)| own == name.as_bytes())
    };
    headers.get_all(SET_COOKIE).iter().any(names)
}

/// Creates or ends a session as the upstream's `Vestibule-Session` header requests. The header is ignored,
/// counted and logged unless the upstream has `session_control` and the request resolves sessions.
async fn apply_session_command(
    control: Result<Option<SessionCommand>, SessionCommandError>,
    plan: &RuntimeConfig,
    route: &Route,
    exchange: &RequestContext,
    origin: &ForwardedInfo,
    session: Option<&Session>,
    cookies: &mut NewCookies,
) -> Result<(), ProxyError> {
    let upstream = exchange.upstream().and_then(|index| plan.config.upstreams.get(index));
    let trusted = upstream.is_some_and(|upstream| upstream.session_control);
    let counts = &exchange.service.worker().counts;
    if !trusted || exchange.mode != Some(Mode::Shared) || !route.session {
        counts.update(|counts| *counts.session_control.entry("refused").or_default() += 1);
        let upstream = upstream.map(|upstream| upstream.name.as_str());
        let why = if trusted { "sessions are not resolved here" } else { "session_control is off" };
        tracing::warn!(upstream, why, "a Vestibule-Session header was refused");
        return Ok(());
    }
    let sessions = exchange.service.sessions(plan)?;
    let lifecycle = &sessions.lifecycle;
    let (word, done) = match control? {
        Some(SessionCommand::Set(fields)) => {
            let created = lifecycle.create(fields, session.map(Session::id)).await;
            ("set", created.map(|id| plan.cookies.set(&id, origin.https).ok()))
        }
        Some(SessionCommand::End) => {
            let ended = match session {
                Some(session) => lifecycle.end(session.id()).await.map(|_| ()),
                None => Ok(()),
            };
            ("end", ended.map(|()| plan.cookies.clear(origin.https).ok()))
        }
        None => return Ok(()),
    };
    counts.update(|counts| {
        *counts.session_control.entry(word).or_default() += 1;
        if let Err(LifecycleError::Store(error)) = &done {
            counts.store_error(*error);
        }
    });
    cookies.session = done?;
    Ok(())
}
