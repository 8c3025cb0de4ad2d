//! Builds the model from the file: one function per table, each the only list of that table's keys and
//! defaults.

mod admin;
mod affinity;
mod application;
mod balance;
mod canary;
mod canary_match;
mod change;
mod cookie;
mod discovery;
mod header;
mod health;
mod http_text;
mod identity;
mod listen;
mod mode;
mod process;
mod retry;
mod route;
mod route_header;
mod scenario;
mod scenario_ask;
mod scenario_capture;
mod session;
mod session_cache;
mod staging;
mod stickiness;
mod store;
mod store_url;
mod upstream;

pub(super) use application::application;
pub(super) use http_text::domain;
pub(super) use scenario::scenario;

use super::fault::Fault;
use super::model::Config;
use super::section::Section;
use super::upstream::Instance;
use super::value::integer;

/// Reads the whole file. `None` has been reported.
pub(super) fn config(s: &mut Section<'_>) -> Option<Config> {
    version(s);
    let workers = process::workers(s);
    let (listeners, admin) = listen::addresses(s);
    let identity = s.table("identity", identity::identity);
    let session = s.table("session", |s| session::session(s, &identity))?;
    let affinity = s.table("affinity", |s| affinity::affinity(s, &session.cookie.name));
    let timeouts = s.table("timeouts", process::timeouts);
    let upstreams = upstream::upstreams(s, &timeouts, session.mode);
    let routes =
        route::routes(s, canary::Around { upstreams: &upstreams, session: &session, identity: &identity });
    Some(Config {
        workers,
        listeners,
        admin,
        limits: s.table("limits", process::limits),
        timeouts,
        shutdown: s.table("shutdown", process::shutdown),
        reload: s.table("reload", change::reload),
        upgrade: s.table("upgrade", change::upgrade),
        access_log: s.table("access_log", process::access_log),
        forwarding: s.table("forwarding", |s| process::forwarding(s, &identity)),
        session,
        affinity,
        identity,
        upstreams,
        routes,
    })
}

/// Reads an instance file. `max_requests` is the default number of slots. An empty set must be explicit
/// (`instance = []`), so that a file that is being written does not count as empty.
pub(super) fn instances(s: &mut Section<'_>, max_requests: Option<usize>) -> Vec<Instance> {
    let said = s.has("instance");
    upstream::instances(s, max_requests, said)
}

fn version(s: &mut Section<'_>) {
    let why = "it tells how the rest of the file is to be read";
    let found = s.required("version", why, "1", integer(i64::MIN..=i64::MAX));
    if let Some(found) = found.filter(|version| *version != 1) {
        let what = format!("version {found} is not known");
        let help = "write `version = 1`, the only one this vestibule reads";
        s.fault(s.spot("version"), Fault::new(what, why, help));
    }
}
