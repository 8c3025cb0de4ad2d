//! Routing of the admin listener: path and method to endpoint.

use std::sync::Arc;

use http::header::ALLOW;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;

use super::api::{self, Problem};
use super::hosts::{self, HostError};
use super::reply::{Reply, text};
use super::{Admin, endpoints};

/// The endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Livez,
    Readyz,
    Metrics,
    RevokeSessions,
    ListCanaries,
    SteerCanary,
    Reload,
    Upgrade,
    ListUpstreams,
    OrderInstance,
    Drills,
}

/// All routes. A path with `GET` supports `HEAD` as well.
const ROUTES: [(&str, Method, Endpoint); 11] = [
    ("/livez", Method::GET, Endpoint::Livez),
    ("/readyz", Method::GET, Endpoint::Readyz),
    ("/metrics", Method::GET, Endpoint::Metrics),
    ("/api/v1/sessions/revoke", Method::POST, Endpoint::RevokeSessions),
    ("/api/v1/canaries", Method::GET, Endpoint::ListCanaries),
    ("/api/v1/canaries", Method::POST, Endpoint::SteerCanary),
    ("/api/v1/reload", Method::POST, Endpoint::Reload),
    ("/api/v1/upgrade", Method::POST, Endpoint::Upgrade),
    ("/api/v1/upstreams", Method::GET, Endpoint::ListUpstreams),
    ("/api/v1/upstreams", Method::POST, Endpoint::OrderInstance),
    ("/api/v1/drills", Method::POST, Endpoint::Drills),
];

/// Why no endpoint matches.
#[derive(Debug, PartialEq, Eq)]
enum RouteMiss {
    /// The path does not exist.
    NoAddress,
    /// The path supports only these methods.
    OtherMethods(String),
}

/// Handles one request.
pub(super) async fn answer(admin: Arc<Admin>, request: Request<Incoming>) -> Reply {
    let head = (request.headers(), request.uri(), request.version());
    let plan = admin.shared.plan.load_full();
    let names = plan.config.admin.as_ref().map_or(&[][..], |admin| &admin.hosts);
    if let Err(error) = hosts::check(head, names) {
        return refuse(error, request.uri().path());
    }
    match find(request.method(), request.uri().path()) {
        Ok(Endpoint::Livez) => text(StatusCode::OK, "alive\n"),
        Ok(Endpoint::Readyz) => endpoints::readyz(&admin, request.uri().query()).await,
        Ok(Endpoint::Metrics) => endpoints::metrics(&admin),
        Ok(Endpoint::RevokeSessions) => api::revoke_sessions(&admin, request).await,
        Ok(Endpoint::ListCanaries) => api::list_canaries(&admin, request).await,
        Ok(Endpoint::SteerCanary) => api::steer_canary(&admin, request).await,
        Ok(Endpoint::Reload) => api::reload(&admin, request).await,
        Ok(Endpoint::Upgrade) => api::upgrade(&admin, request).await,
        Ok(Endpoint::ListUpstreams) => api::list_upstreams(&admin, &request),
        Ok(Endpoint::OrderInstance) => api::order_instance(&admin, request).await,
        Ok(Endpoint::Drills) => api::rehearse(&admin, request).await,
        Err(stray) => stray.answer(request.uri().path()),
    }
}

/// The response to a request for another host.
fn refuse(error: HostError, path: &str) -> Reply {
    if path.starts_with("/api/") {
        return Problem::Host(error).into();
    }
    text(error.status(), format!("{error}\n"))
}

fn find(method: &Method, path: &str) -> Result<Endpoint, RouteMiss> {
    let here = || ROUTES.iter().filter(|(address, ..)| *address == path);
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    if let Some((.., endpoint)) = here().find(|(_, method, _)| method == wanted) {
        return Ok(*endpoint);
    }
    let methods: Vec<_> = here().map(|(_, method, _)| shown(method)).collect();
    if methods.is_empty() {
        Err(RouteMiss::NoAddress)
    } else {
        Err(RouteMiss::OtherMethods(methods.join(", ")))
    }
}

/// A method with the methods that it implies.
fn shown(method: &Method) -> &str {
    if *method == Method::GET { "GET, HEAD" } else { method.as_str() }
}

impl RouteMiss {
    fn answer(self, path: &str) -> Reply {
        let in_api = path.starts_with("/api/");
        match self {
            RouteMiss::NoAddress if in_api => Problem::NotFound.into(),
            RouteMiss::NoAddress => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /api/v1\n"),
            RouteMiss::OtherMethods(methods) => {
                let allow = HeaderValue::from_str(&methods);
                let mut refusal = match in_api {
                    true => Problem::Method(methods).into(),
                    false => text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n")),
                };
                refusal.headers_mut().extend(allow.map(|allow| (ALLOW, allow)));
                refusal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_takes_its_methods_only() {
        assert_eq!(find(&Method::GET, "/livez"), Ok(Endpoint::Livez));
        assert_eq!(find(&Method::HEAD, "/metrics"), Ok(Endpoint::Metrics));
        assert_eq!(find(&Method::POST, "/api/v1/sessions/revoke"), Ok(Endpoint::RevokeSessions));
        let only = |methods: &str| Err(RouteMiss::OtherMethods(methods.to_owned()));
        assert_eq!(find(&Method::POST, "/readyz"), only("GET, HEAD"));
        assert_eq!(find(&Method::HEAD, "/api/v1/sessions/revoke"), only("POST"));
        assert_eq!(find(&Method::GET, "/api/v1/upstreams"), Ok(Endpoint::ListUpstreams));
        assert_eq!(find(&Method::POST, "/api/v1/upstreams"), Ok(Endpoint::OrderInstance));
        assert_eq!(find(&Method::DELETE, "/api/v1/upstreams"), only("GET, HEAD, POST"));
        for path in ["/", "/livez/", "/Livez", "/api/v1/sessions"] {
            assert_eq!(find(&Method::GET, path), Err(RouteMiss::NoAddress), "{path}");
        }
    }
}
