//! Sessions: who a request belongs to.
//!
//! [`Resolver`] answers that for a request, [`Lifecycle`] creates and ends sessions on an upstream's
//! word ([`Control`]), [`Revoker`] ends them on the operator's; all of them in a [`Store`]. What cannot
//! be found out is [`Resolution::Unavailable`]: it never looks like a missing session, nor like a live
//! one.

mod cache;
mod control;
mod id;
mod lifecycle;
mod pointer;
mod renewal;
mod renewals;
mod resolver;
mod revocation;
mod set_cookie;
mod sightings;
mod store;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

use cache::Moment;

pub use cache::{CacheStats, Death, SessionCache};
pub use control::{CONTROL_HEADER, Control, ControlError, MAX_CONTROL_BYTES};
pub use id::{IdReader, SessionId};
pub use lifecycle::{Lifecycle, LifecycleError};
pub use resolver::{Resolved, Resolver, Source};
pub use revocation::{Durability, RevokeTarget, Revoked, Revoker};
pub use set_cookie::CookieWriter;
pub use store::{
    Backend, Lookup, MemoryStore, Record, RedisStore, StartError, Store, StoreError, Topology, Ttl,
};

/// The fields of a session that is being written; what they mean is the application's business.
pub type Fields = Map<String, Value>;

/// The fields of a session that was read, sorted by name: a fraction of the memory of [`Fields`].
pub type Contents = Arc<[(Box<str>, Value)]>;

/// A live session.
pub struct Session {
    id: SessionId,
    contents: Contents,
    headers: OnceLock<Box<[Option<HeaderValue>]>>,
    /// When it is over by its own word.
    ends_at: Moment,
    /// A [`Moment`]: until when the store keeps it.
    kept_until: AtomicU64,
    /// A [`Moment`]: from when on a use of it is worth a renewal.
    renew_at: AtomicU64,
}

impl Session {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The value at `pointer`, a JSON Pointer (RFC 6901) such as `/user/name`. `None` if the session
    /// has no such value or the pointer is malformed; the empty pointer names no field and finds none.
    pub fn lookup(&self, pointer: &str) -> Option<&Value> {
        pointer::find(&self.contents, pointer)
    }

    /// The header values that tell the upstream about this session: those that `make` made once, kept with the
    /// session from then on. Every call must be for the same headers.
    pub fn headers<E>(
        &self,
        make: impl FnOnce(&Session) -> Result<Box<[Option<HeaderValue>]>, E>,
    ) -> Result<&[Option<HeaderValue>], E> {
        match self.headers.get() {
            Some(headers) => Ok(headers),
            None => make(self).map(|headers| &**self.headers.get_or_init(|| headers)),
        }
    }

    fn is_live(&self, now: Moment) -> bool {
        now < self.ends_at && now.as_micros() < self.kept_until.load(Relaxed)
    }

    /// When it is over, if `used` is its last use.
    fn end_if_used(&self, used: Moment, idle_timeout: Duration) -> Moment {
        used.after(idle_timeout).min(self.ends_at)
    }

    /// Whether it is time to renew it. Says so once per tenth of the idle timeout.
    fn claim_renewal(&self, now: Moment, idle_timeout: Duration) -> bool {
        let due = self.renew_at.load(Relaxed);
        if now.as_micros() < due {
            return false;
        }
        let lengthens = self.end_if_used(now, idle_timeout).as_micros() > self.kept_until.load(Relaxed);
        let next = if lengthens { now.after(idle_timeout / 10) } else { Moment::NEVER };
        let claimed = self.renew_at.compare_exchange(due, next.as_micros(), Relaxed, Relaxed).is_ok();
        claimed && lengthens
    }

    /// The store has taken a renewal.
    fn renewed(&self, until: Moment) {
        self.kept_until.fetch_max(until.as_micros(), Relaxed);
    }

    /// The text in it, in bytes.
    fn text_bytes(&self) -> usize {
        fn size(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(|item| 32 + size(item)).sum(),
                Value::Object(map) => map.iter().map(|(name, value)| 64 + name.len() + size(value)).sum(),
                Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            }
        }
        self.contents.iter().map(|(name, value)| 48 + name.len() + size(value)).sum()
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
    /// The request names a session that is not, or no longer, there.
    Ended(SessionId),
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
