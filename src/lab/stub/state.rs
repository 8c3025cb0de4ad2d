//! What all requests of one instance share.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::Options;
use super::engine::Runs;
use super::executions::Executions;
use super::jwt::Signer;
use super::latency::Latency;
use super::ledger::{Entry, Ledger};
use super::respond::Refusal;
use super::routes;
use super::sessions::{Logins, Sessions};
use super::stats::{Snapshot, Stats};
use crate::session::StartError;

#[derive(Debug)]
pub(super) struct State {
    pub(super) instance: HeaderValue,
    pub(super) signer: Signer,
    pub(super) latency: Latency,
    /// Of logins.
    pub(super) login_latency: Latency,
    pub(super) runs: Runs,
    pub(super) stats: Stats,
    pub(super) executions: Option<Executions>,
    ledger: Option<Ledger>,
    logins: ArcSwap<Logins>,
}

impl State {
    pub(super) async fn new(options: &Options) -> io::Result<Self> {
        let instance = HeaderValue::from_str(&options.instance).map_err(invalid_input)?;
        let logins = Logins::open(&options.sessions).await.map_err(invalid_input)?;
        Ok(State {
            instance,
            signer: Signer::new(&options.secret_key),
            latency: Latency::new(options.latency_scale, options.latency_spread),
            login_latency: Latency::new(login_scale(options), options.latency_spread),
            runs: Runs::default(),
            stats: Stats::default(),
            executions: options.executions.as_deref().map(Executions::open).transpose()?,
            ledger: options.ledger.as_deref().map(Ledger::open).transpose()?,
            logins: ArcSwap::from_pointee(logins),
        })
    }

    /// Where logins are kept at the moment.
    pub(super) fn logins(&self) -> Arc<Logins> {
        self.logins.load_full()
    }

    /// Writes an entry into the ledger, if there is one.
    pub(super) fn note(&self, entry: &Entry) -> Result<(), Refusal> {
        let written = self.ledger.as_ref().map_or(Ok(()), |ledger| ledger.write(entry));
        // Nobody may hear of what is not written down.
        written.map_err(|_| Refusal::internal())
    }

    pub(super) fn instance_name(&self) -> &str {
        self.instance.to_str().unwrap_or_default()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.stats.snapshot(self.instance_name(), self.logins().active())
    }
}

fn invalid_input(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Reaches into a running instance.
#[derive(Debug, Clone)]
pub struct Handle(Arc<State>);

impl Handle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Handle(state)
    }

    /// From the next request on logins are kept there; what was in memory is forgotten. Must be called in
    /// the runtime that serves.
    ///
    /// # Errors
    /// An unusable Redis URL; nothing has changed then.
    pub async fn set_sessions(&self, sessions: &Sessions) -> Result<(), StartError> {
        let logins = Logins::open(sessions).await?;
        self.0.logins.store(Arc::new(logins));
        Ok(())
    }

    /// The counters, as `/__stub/stats` shows them.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A random version-4 UUID; names things, guards nothing.
pub(super) fn uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf000 << 64) & !(0xc000 << 48) | (0x4000 << 64) | (0x8000 << 48);
    uuid_from(bits)
}

/// `bits` written as a UUID.
pub(super) fn uuid_from(bits: u128) -> String {
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}

/// The factor that gives a login the time that is wanted of it.
fn login_scale(options: &Options) -> f64 {
    let wanted = options.login_time.map(|wanted| wanted.as_secs_f64() * 1e3 / routes::LOGIN.median);
    wanted.unwrap_or(options.latency_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let (a, b) = (uuid(), uuid());
        assert_ne!(a, b);
        for id in [a, b] {
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        }
    }

    #[test]
    fn bits_are_written_in_order() {
        assert_eq!(
            uuid_from(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
    }
}
