//! The life of a request in six steps: route, clean, resolve, identify, forward, answer.

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

/// Cookies to be set by the answer, whatever it will be.
#[derive(Debug, Default)]
struct NewCookies {
    /// Gives, or takes back, the session cookie.
    session: Option<HeaderValue>,
    affinity: Option<HeaderValue>,
    /// Keeps the client's version on a route with two.
    canary: Option<HeaderValue>,
    /// Keeps the client's mode while modes are compared.
    cohort: Option<HeaderValue>,
}

impl NewCookies {
    fn add_to(self, headers: &mut HeaderMap) {
        for cookie in [self.session, self.affinity, self.canary, self.cohort].into_iter().flatten() {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Why the steps end without an answer of the upstream's.
enum EarlyResponse {
    /// A browser is sent to the login page.
    Redirect(HeaderValue),
    Failed(ProxyError),
}

impl<E: Into<ProxyError>> From<E> for EarlyResponse {
    fn from(error: E) -> Self {
        EarlyResponse::Failed(error.into())
    }
}

/// Takes a request to its answer.
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

/// An error and everything behind it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text = format!("{text}: {error}");
        behind = error.source();
    }
    text
}

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

/// Step 1. Only what is fit to be forwarded gets a route. The head has exactly one `Host` afterwards.
fn find_route<'a>(
    request: &mut Request<RequestBody>,
    plan: &'a RuntimeConfig,
    exchange: &mut RequestContext,
) -> Result<&'a Route, ProxyError> {
    // HTTP/2; in HTTP/1 it was done before hyper read the target.
    target::encode(request.uri_mut()).map_err(|_| ProxyError::RawTarget)?;
    clean::check(request, &plan.config)?;
    let authority = host::authority(request.headers(), request.uri(), request.version())?;
    let path = host::routing_path(request.method(), request.uri())?;
    exchange.route = plan.router.find(authority.host, &path)?;
    exchange.host = authority.line.filter(|line| line.as_bytes() == authority.text.as_bytes()).cloned();
    if exchange.host.is_none()
        && let Ok(host) = HeaderValue::from_str(authority.text)
    {
        // The next hop is HTTP/1.1, where `Host` may be empty, but not missing (RFC 9112 section 3.2).
        exchange.host = Some(host.clone()).filter(|host| !host.is_empty());
        request.headers_mut().insert(HOST, host);
    }
    let route = exchange.route.and_then(|index| plan.config.routes.get(index));
    route.ok_or(ProxyError::NoRoute)
}

/// Step 2.
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

/// Step 3. `None`: the request goes on without a session; the exchange says why.
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

/// Whether the client is to forget its session's id.
fn is_cleared(plan: &RuntimeConfig, session: SessionOutcome) -> bool {
    match plan.config.session.cookie.clear {
        ClearCookie::Never => false,
        ClearCookie::Ended => session == SessionOutcome::Ended,
        ClearCookie::All => matches!(session, SessionOutcome::Ended | SessionOutcome::Unknown),
    }
}

/// What a route does without a live session: go on, send the browser elsewhere, or refuse.
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

/// Whether a browser asks, without the user's cookies, if a page of another site may send a request (Fetch standard,
/// CORS-preflight fetch).
fn is_preflight<B>(request: &Request<B>) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a person is opening a page, rather than a script asking for data: a redirect to a login page
/// helps only the former.
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

/// Step 5.
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
    // What hyper noted about the client's side must not be taken for the instance's.
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

/// Step 6. Nothing of the instance's hop reaches the client, and its word about sessions is obeyed.
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
        // The application has just logged the client in with the same cookie; do not take it back.
        cookies.session = None;
    }
    let control = SessionCommand::from_headers(headers);
    plan.rules.from_upstream.strip(headers);
    if !matches!(control, Ok(None)) {
        // Rare, so its state is not part of every request's.
        Box::pin(apply_session_command(control, plan, route, exchange, origin, session, cookies)).await?;
    }
    // The version is the hop's, too.
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer)
}

/// Refuses what the client would read differently from us: a status that HTTP does not know (RFC 9110 section 15), and
/// a transfer coding that ends here although the body is still coded (RFC 9112 section 6.1). Leaves one length at most.
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
            // One that is unclear goes: hyper has read to the end of the connection then.
            framing::keep_one_length(answer.headers_mut());
        }
        (Some(only), None) if is_plain(only) => {
            // RFC 9112 section 6.3: the length is then not the answer's, and hyper did not read by it.
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        _ => return Err(ProxyError::Answer("its transfer coding is not plain chunked")),
    }
    Ok(())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..KIND.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

fn sets_cookie(headers: &HeaderMap, name: &str) -> bool {
    let names = |line: &HeaderValue| {
        split_set_cookie(line.as_bytes()).is_some_and(|(own, _, _)| own == name.as_bytes())
    };
    headers.get_all(SET_COOKIE).iter().any(names)
}

/// Creates or ends a session on the word of an upstream that is trusted with it.
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
