//! The property of a request that leads it to an instance, where instances are chosen by hash.

use std::net::IpAddr;

use http::HeaderMap;

use crate::balance::Balancer;
use crate::config::{Balance, Hash, HashKey, Route, Stick};
use crate::headers::cookie::{cookie_values, unquoted};
use crate::session::Session;

use super::runtime_config::RuntimeConfig;

/// What leads all requests of a single-active route.
const SINGLE: u64 = 0;

/// In sticky mode or in another. `None` where nothing is hashed, and when the request does not have what is.
pub(super) fn of(
    plan: &RuntimeConfig,
    is_sticky: bool,
    route: &Route,
    balancer: &Balancer,
    headers: &HeaderMap,
    session: Option<&Session>,
    client: IpAddr,
) -> Option<u64> {
    if route.single {
        return Some(SINGLE);
    }
    let text = match hashed(is_sticky, balancer)? {
        HashKey::Session => session_id(plan, headers)?,
        HashKey::User => session?.user()?.as_bytes(),
        HashKey::Header(name) => headers.get(name)?.as_bytes(),
        HashKey::Cookie(name) => unquoted(cookie_values(headers, name).next()?),
        HashKey::Client => return Some(plan.affinity.key(client.to_canonical().to_string().as_bytes())),
    };
    Some(plan.affinity.key(text))
}

/// Whether what is hashed ties a client to its instance, rather than only leading it there.
pub(super) fn is_tie(is_sticky: bool, route: &Route, balancer: &Balancer) -> bool {
    let is_stuck = || matches!(balancer.upstream().config.stick, Stick::Hash(_));
    route.single || (is_sticky && is_stuck())
}

fn hashed(is_sticky: bool, balancer: &Balancer) -> Option<&HashKey> {
    let config = &balancer.upstream().config;
    match (&config.stick, &config.balance) {
        (Stick::Hash(key), _) if is_sticky => Some(key),
        (_, Balance::Hash(Hash { key, .. })) => Some(key),
        _ => None,
    }
}

/// As the client sent it, in whatever mode: nobody is trusted for it.
fn session_id<'a>(plan: &RuntimeConfig, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let config = &plan.config.session;
    let in_header = || headers.get(config.header.as_ref()?).map(|value| value.as_bytes());
    cookie_values(headers, &config.cookie.name).next().map(unquoted).or_else(in_header)
}
