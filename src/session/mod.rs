//! Sessions: who a request belongs to.
//!
//! [`Resolver`] answers that for a request, [`Lifecycle`] creates and ends sessions on an upstream's
//! word ([`SessionCommand`]), [`Revoker`] ends them on the operator's; all of them in a [`Store`]. What cannot
//! be found out is [`Resolution::Unavailable`]: it never looks like a missing session, nor like a live
//! one.

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

/// The fields of a session that is being written; what they mean is the application's business.
pub type Fields = Map<String, Value>;

/// What the resolvers of all workers of a process have in common.
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
    /// [`IdentityMapper::ruleset_id`] of whoever described it.
    described_by: u64,
    /// When it is over by its own word.
    ends_at: Timestamp,
    /// A [`Timestamp`]: until when the store keeps it.
    kept_until: AtomicU64,
    /// A [`Timestamp`]: from when on a use of it is worth a renewal.
    renew_at: AtomicU64,
    /// A [`Timestamp`]: from when on a use of it makes us look whether it is still what the store has.
    check_at: AtomicU64,
}

impl Session {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whose it is, as far as it says.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The header values that tell the upstream about this session, in the order of whoever described it.
    pub fn headers(&self) -> Result<&[Option<HeaderValue>], IdentityError> {
        match &self.description {
            Ok(headers) => Ok(headers),
            Err(error) => Err(IdentityError::clone(error)),
        }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        now < self.ends_at && now.as_micros() < self.kept_until.load(Relaxed)
    }

    /// When it is over, if `used` is its last use.
    fn end_if_used(&self, used: Timestamp, idle_timeout: Duration) -> Timestamp {
        used.after(idle_timeout).min(self.ends_at)
    }

    /// Whether it is time to renew it. Says so once per tenth of the idle timeout.
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

    /// Whether it is time to look whether it is still what the store has. Says so once per period.
    fn claim_check(&self, now: Timestamp) -> bool {
        let due = self.check_at.load(Relaxed);
        let is_due = now.as_micros() >= due;
        is_due && {
            let next = now.after(checks::PERIOD).as_micros();
            self.check_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
        }
    }

    /// Whether the upstream is told the same of both, and neither is over.
    fn says_the_same(&self, other: &Session, now: Timestamp) -> bool {
        let is_same = match (&self.description, &other.description) {
            (Ok(one), Ok(other)) => one == other,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        is_same && self.user == other.user && other.is_live(now)
    }

    /// The store has taken a renewal.
    fn renewed(&self, until: Timestamp) {
        self.kept_until.fetch_max(until.as_micros(), Relaxed);
    }

    /// What it says, in bytes.
    fn text_bytes(&self) -> usize {
        let headers = self.description.as_ref().map_or(&[][..], |headers| headers);
        let headers =
            headers.iter().map(|value| size_of_val(value) + value.as_ref().map_or(0, HeaderValue::len));
        headers.sum::<usize>() + self.user.as_ref().map_or(0, |user| user.len())
    }
}

/// Shows nothing of the session's content.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What came of looking a session up.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// The session is in the store and has not expired.
    Active(Arc<Session>),
    /// The request names no session.
    Absent(AbsentReason),
    /// The request names a session that is no longer there: this process has seen it alive or created it, or a
    /// tombstone tells.
    Ended(SessionId),
    /// The request names a session that the store does not know. It may never have been there, or be where nobody
    /// looks.
    Unknown(SessionId),
    /// The session is there and makes no sense.
    Unreadable(SessionId, Unreadable),
    /// Nobody knows.
    Unavailable(StoreError),
}

/// Why a request names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsentReason {
    /// Neither cookie nor header.
    NoId,
    /// Two different ids in one request.
    Ambiguous,
    /// Not what an id looks like.
    BadId,
    /// A login has just replaced the session; the client has a newer cookie, or is about to get it.
    Replaced,
}

impl AbsentReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AbsentReason::NoId => "no_id",
            AbsentReason::Ambiguous => "ambiguous",
            AbsentReason::BadId => "bad_id",
            AbsentReason::Replaced => "replaced",
        }
    }
}
