//! Sessions: who a request belongs to.
//!
//! [`Resolver`] answers that for a request, [`Lifecycle`] creates and ends sessions on an upstream's
//! word ([`Control`]), both from a [`Store`]. What cannot be found out is [`Resolution::Unavailable`]:
//! it never looks like a missing session, nor like a live one.

mod control;
mod id;
mod lifecycle;
mod pointer;
mod renewal;
mod resolver;
mod set_cookie;
mod store;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use control::{CONTROL_HEADER, Control, ControlError, MAX_CONTROL_BYTES};
pub use id::{IdReader, SessionId};
pub use lifecycle::{Lifecycle, LifecycleError};
pub use resolver::{Resolved, Resolver};
pub use set_cookie::CookieWriter;
pub use store::{MemoryStore, Record, RedisStore, StartError, Store, StoreError, Ttl};

/// The fields of a session; what they mean is the application's business.
pub type Fields = Map<String, Value>;

/// A live session.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    fields: Arc<Fields>,
}

impl Session {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The value at `pointer`, a JSON Pointer (RFC 6901) such as `/user/name`. `None` if the session
    /// has no such value or the pointer is malformed; the empty pointer names no field and finds none.
    pub fn lookup(&self, pointer: &str) -> Option<&Value> {
        pointer::find(&self.fields, pointer)
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
    /// The request names no session; the store was not asked.
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
}

impl AbsentReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AbsentReason::NoId => "no_id",
            AbsentReason::Ambiguous => "ambiguous",
            AbsentReason::BadId => "bad_id",
        }
    }
}
