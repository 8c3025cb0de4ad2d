//! What there is to ask for, at a glance.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;

use super::door::Door;
use super::frames::Kind;
use super::latency::ServiceTime;
use super::respond::{Refusal, Reply};
use super::state::State;
use super::{account, chat, door, echo, executions, files, misc};

use Door::{Service, Web};
use Endpoint::*;

/// A login's service time.
pub(super) const LOGIN: ServiceTime = ServiceTime { median: 40.0, p95: 80.0 };
/// A profile's median service time.
const PROFILE: f64 = 7.5;

/// One line per endpoint; service times in milliseconds as measured on Dify, the median and the 95th percentile.
/// A `*` takes one path segment.
pub(super) static ROUTES: [Route; 20] = [
    route("GET", "/health", Health, 0.4, 1.1),
    route("GET", "/console/api/system-features", SystemFeatures, 0.6, 1.0),
    route("POST", "/console/api/login", Login, LOGIN.median, LOGIN.p95),
    route("POST", "/console/api/logout", Logout, 5.0, 10.0),
    route("POST", "/console/api/refresh-token", RefreshToken, 5.0, 10.0),
    route("GET", "/console/api/account/profile", Profile, PROFILE, 14.0),
    route("GET", "/v1/parameters", Parameters, 9.5, 14.0),
    route("POST", "/v1/chat-messages", Generate(Kind::Chat, Service), 9.0, 14.0),
    route("POST", "/v1/chat-messages/*/stop", Stop(Service), 8.0, 11.0),
    route("POST", "/v1/completion-messages", Generate(Kind::Completion, Service), 9.0, 14.0),
    route("POST", "/v1/completion-messages/*/stop", Stop(Service), 8.0, 11.0),
    route("POST", "/v1/workflows/run", Generate(Kind::Workflow, Service), 9.0, 14.0),
    route("POST", "/v1/workflows/tasks/*/stop", Stop(Service), 8.0, 11.0),
    route("POST", "/v1/files/upload", Upload(Service), 9.0, 14.0),
    // The web app's were not measured: they take what their twins above take.
    route("GET", "/api/passport", Passport, 9.5, 14.0),
    route("POST", "/api/chat-messages", Generate(Kind::Chat, Web), 9.0, 14.0),
    route("POST", "/api/chat-messages/*/stop", Stop(Web), 8.0, 11.0),
    route("POST", "/api/files/upload", Upload(Web), 9.0, 14.0),
    route("ANY", "/__stub/echo", Echo, 0.4, 1.1),
    route("POST", "/__stub/executions/*", Execute, 0.4, 1.1),
];

/// The scale of service times under which the median profile takes `answer`.
pub fn scale_for(answer: Duration) -> f64 {
    answer.as_secs_f64() * 1e3 / PROFILE
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Endpoint {
    Health,
    SystemFeatures,
    Login,
    Logout,
    RefreshToken,
    Profile,
    Parameters,
    Passport,
    Generate(Kind, Door),
    Stop(Door),
    Upload(Door),
    Echo,
    Execute,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    method: &'static str,
    pattern: &'static str,
    endpoint: Endpoint,
    time: ServiceTime,
}

const fn route(
    method: &'static str,
    pattern: &'static str,
    endpoint: Endpoint,
    median: f64,
    p95: f64,
) -> Route {
    Route { method, pattern, endpoint, time: ServiceTime { median, p95 } }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.pattern)
    }
}

impl Route {
    fn takes(&self, method: &Method) -> bool {
        self.method == "ANY" || self.method == method.as_str()
    }

    /// Whether the pattern fits, and the segment under its `*` (empty without one).
    fn capture<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Some((before, after)) = self.pattern.split_once('*') else {
            return (self.pattern == path).then_some("");
        };
        let segment = path.strip_prefix(before)?.strip_suffix(after)?;
        (!segment.is_empty() && !segment.contains('/')).then_some(segment)
    }
}

/// Answers one request.
pub(super) async fn dispatch(request: Request<Incoming>, state: &Arc<State>) -> Reply {
    match find(request.method(), request.uri().path()) {
        Ok((index, route, segment)) => {
            state.stats.count(Some(index));
            let latency = match route.endpoint {
                Login => &state.login_latency,
                _ => &state.latency,
            };
            latency.spend(route.time).await;
            let segment = segment.to_owned();
            call(route.endpoint, &segment, request, state).await.unwrap_or_else(Refusal::into_reply)
        }
        Err(refusal) => {
            state.stats.count(None);
            refusal.into_reply()
        }
    }
}

fn find<'a>(method: &Method, path: &'a str) -> Result<(usize, &'static Route, &'a str), Refusal> {
    let mut refusal = Refusal::NotFound;
    for (index, route) in ROUTES.iter().enumerate() {
        match route.capture(path) {
            Some(segment) if route.takes(method) => return Ok((index, route, segment)),
            Some(_) => refusal = Refusal::MethodNotAllowed,
            None => {}
        }
    }
    Err(refusal)
}

async fn call(
    endpoint: Endpoint,
    segment: &str,
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Reply, Refusal> {
    match endpoint {
        Health => Ok(misc::health()),
        SystemFeatures => Ok(misc::system_features()),
        Login => account::login(request, state).await,
        Logout => account::logout(request, state).await,
        RefreshToken => account::refresh(request, state).await,
        Profile => account::profile(request, state).await,
        Parameters => misc::parameters(&request),
        Passport => door::passport(&request, state),
        Generate(kind, door) => chat::generate((kind, door), request, state).await,
        Stop(door) => chat::stop(segment, door, &request, state),
        Upload(door) => files::upload(door, request, state).await,
        Echo => echo::echo(request).await,
        Execute => executions::execute(segment, request, state.executions.as_ref()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Result<String, Refusal> {
        find(&method.parse().unwrap(), path).map(|(_, route, segment)| format!("{route} [{segment}]"))
    }

    #[test]
    fn a_path_is_matched_whole_and_its_segment_taken() {
        assert_eq!(found("GET", "/health").unwrap(), "GET /health []");
        assert_eq!(
            found("POST", "/v1/chat-messages/abc/stop").unwrap(),
            "POST /v1/chat-messages/*/stop [abc]"
        );
        for path in ["/healthy", "/health/", "/v1/chat-messages//stop", "/v1/chat-messages/a/b/stop"] {
            assert_eq!(found("GET", path), Err(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn a_known_path_refuses_other_methods() {
        assert_eq!(found("GET", "/console/api/login"), Err(Refusal::MethodNotAllowed));
        assert_eq!(found("BREW", "/__stub/echo").unwrap(), "ANY /__stub/echo []");
    }
}
