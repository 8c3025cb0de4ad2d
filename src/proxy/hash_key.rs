//! Hash keys for instance selection by hash.

use std::net::IpAddr;

use http::HeaderMap;

use crate::balance::Balancer;
use crate::config::{Balance, Hash, HashKey, Route, Stick};
use crate::headers::cookie::{cookie_values, unquoted};
use crate::session::Session;

use super::runtime_config::RuntimeConfig;

/// Common key of all requests on a single-active route.
const SINGLE: u64 = 0;

/// The hash key of a request. Returns `None` where no hash is configured and when the request lacks the
/// hashed property.
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

/// Whether the hash key binds the client to its instance. Otherwise the key only selects an instance.
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

/// The session id as sent by the client, in every mode. It is not verified, because it only selects an
/// instance.
fn session_id<'a>(plan: &RuntimeConfig, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let config = &plan.config.session;
    let in_header = || headers.get(config.header.as_ref()?).map(|value| value.as_bytes());
    cookie_values(headers, &config.cookie.name).next().map(unquoted).or_else(in_header)
}
