//! Sessions: maps a request to its session, and changes sessions in the session store.
//!
//! - [`Resolver`] looks up the session of a request.
//! - [`Lifecycle`] creates and ends sessions when an upstream's response asks for it ([`SessionCommand`]).
//! - [`Revoker`] ends sessions on behalf of the operator.
//!
//! All of them work on a [`Store`]. A failed look-up is [`Resolution::Unavailable`]. It is never reported as
//! a missing session or as a live one.

mod cache;
mod command;
mod contents;
mod description;
mod id;
mod lifecycle;
mod renewal;
mod renewals;
mod resolver;
mod revocation;
mod seen;
mod set_cookie;
mod store;
mod unreadable;
mod user_index_queue;
mod warnings;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

use crate::config;

use cache::{Timestamp, checks};

pub use cache::{CacheStats, SessionCache, TombstoneReason};
pub use command::{CONTROL_HEADER, MAX_CONTROL_BYTES, SessionCommand, SessionCommandError};
pub use contents::{Content, Contents, MAX_SESSION_BYTES};
pub use description::{IdentityError, IdentityHeaders, IdentityMapper};
pub use id::{IdReader, Ids, SessionId};
pub use lifecycle::{Lifecycle, LifecycleError};
pub use resolver::{Resolved, Resolver, Source};
pub use revocation::{Durability, RevokeTarget, Revoked, Revoker};
pub use set_cookie::CookieWriter;
pub use store::{
    Backend, FaultInjector, Lookup, MemoryStore, Record, RedisStore, StartError, Store, StoreError, Topology,
    Ttl,
};
pub use unreadable::Unreadable;

use seen::SeenIds;
use warnings::Warnings;

/// The fields of a session that is being written. Their meaning is up to the application.
pub type Fields = Map<String, Value>;

/// State shared by the resolvers of all workers of a process.
#[derive(Debug)]
pub struct SharedState {
    seen: SeenIds,
    warnings: Warnings,
}

impl SharedState {
    pub fn new(config: &config::Session) -> Self {
        SharedState { seen: SeenIds::default(), warnings: Warnings::new(config) }
    }
}

/// A live session.
pub struct Session {
    id: SessionId,
    user: Option<Box<str>>,
    description: IdentityHeaders,
    /// The [`IdentityMapper::ruleset_id`] under which the headers were made.
    described_by: u64,
    /// Expiry from the session's own `expires` field; `NEVER` if it has none.
    ends_at: Timestamp,
    /// A [`Timestamp`]: when the store's TTL ends.
    kept_until: AtomicU64,
    /// A [`Timestamp`]: a use from here on renews the TTL.
    renew_at: AtomicU64,
    /// A [`Timestamp`]: a use from here on triggers a consistency check.
    check_at: AtomicU64,
}

impl Session {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The user of the session, if the session has one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The identity header values for the upstream, in the order of the [`IdentityMapper`] that made them.
    /// `None` for a header that is not sent.
    ///
    /// # Errors
    /// A value of the session cannot be sent as a header.
    pub fn headers(&self) -> Result<&[Option<HeaderValue>], IdentityError> {
        match &self.description {
            Ok(headers) => Ok(headers),
            Err(error) => Err(IdentityError::clone(error)),
        }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        now < self.ends_at && now.as_micros() < self.kept_until.load(Relaxed)
    }

    /// Returns when the session ends if `used` is its last use: after the idle timeout, but not after its own
    /// expiry.
    fn end_if_used(&self, used: Timestamp, idle_timeout: Duration) -> Timestamp {
        used.after(idle_timeout).min(self.ends_at)
    }

    /// Claims a TTL renewal. Returns true if one is due and would lengthen the TTL, at most once per tenth of
    /// the idle timeout among all callers. Once a renewal would no longer lengthen the TTL, none is due any
    /// more.
    fn claim_renewal(&self, now: Timestamp, idle_timeout: Duration) -> bool {
        let due = self.renew_at.load(Relaxed);
        if now.as_micros() < due {
            return false;
        }
        let lengthens = self.end_if_used(now, idle_timeout).as_micros() > self.kept_until.load(Relaxed);
        let next = if lengthens { now.after(idle_timeout / 10) } else { Timestamp::NEVER };
        let claimed = self.renew_at.compare_exchange(due, next.as_micros(), Relaxed, Relaxed).is_ok();
        claimed && lengthens
    }

    /// Claims a consistency check. Returns true if one is due, at most once per [`checks::PERIOD`] among all
    /// callers.
    fn claim_check(&self, now: Timestamp) -> bool {
        let due = self.check_at.load(Relaxed);
        let is_due = now.as_micros() >= due;
        is_due && {
            let next = now.after(checks::PERIOD).as_micros();
            self.check_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
        }
    }

    /// Returns whether both sessions have the same user and headers, and `other` is live at `now`.
    fn says_the_same(&self, other: &Session, now: Timestamp) -> bool {
        let is_same = match (&self.description, &other.description) {
            (Ok(one), Ok(other)) => one == other,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        is_same && self.user == other.user && other.is_live(now)
    }

    /// Records a TTL renewal that the store has accepted. Never shortens.
    fn renewed(&self, until: Timestamp) {
        self.kept_until.fetch_max(until.as_micros(), Relaxed);
    }

    /// Size of the user and the headers in memory, in bytes.
    fn text_bytes(&self) -> usize {
        let headers = self.description.as_ref().map_or(&[][..], |headers| headers);
        let headers =
            headers.iter().map(|value| size_of_val(value) + value.as_ref().map_or(0, HeaderValue::len));
        headers.sum::<usize>() + self.user.as_ref().map_or(0, |user| user.len())
    }
}

/// Prints nothing of the session's content.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// The outcome of looking up the session of a request.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// The session is in the store and has not expired.
    Active(Arc<Session>),
    /// The request has no usable session id, or its session was replaced.
    Absent(AbsentReason),
    /// The session of the request has ended: it was revoked or has expired, or this process has created it or
    /// seen it live before and the store no longer has it.
    Ended(SessionId),
    /// The store does not have the session of the request, and nothing shows that it ever had. It may never
    /// have existed, or be stored under another key than the configured one.
    Unknown(SessionId),
    /// The store has a value for the session, but it cannot be read.
    Unreadable(SessionId, Unreadable),
    /// The store could not be read.
    Unavailable(StoreError),
}

/// Why a request has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsentReason {
    /// The request has neither the session cookie nor the session header.
    NoId,
    /// Several session ids, of which none can be preferred: two different values of the header, more than
    /// four different ids in cookies, or live sessions of two users.
    Ambiguous,
    /// The value does not match `session.id_pattern`.
    BadId,
    /// A login has just replaced the session. The client has a newer cookie already, or is about to receive
    /// it.
    Replaced,
}

impl AbsentReason {
    /// The token for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AbsentReason::NoId => "no_id",
            AbsentReason::Ambiguous => "ambiguous",
            AbsentReason::BadId => "bad_id",
            AbsentReason::Replaced => "replaced",
        }
    }
}
