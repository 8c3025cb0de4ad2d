//! Queue of user index entries that the store has refused, until the store accepts writes again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::Read;
use super::{Content, Contents, SessionId, Unreadable};

/// Maximum length of the queue. A session that does not fit is indexed when it is looked up again.
const LIMIT: usize = 65_536;
/// Entries per batch.
const BATCH: usize = 256;

/// Returns the user at `pointer`. A number is returned with its digits as written, the same as in identity
/// headers. `None` if there is no user, or an empty one.
///
/// # Errors
/// [`Unreadable::User`] if the value is a string that is not valid Unicode.
pub(super) fn user_in<'a>(contents: &'a Contents, pointer: &str) -> Result<Option<Cow<'a, str>>, Unreadable> {
    match contents.find(pointer) {
        Some(Content::Text(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Content::Number(digits)) => Ok(Some(Cow::Borrowed(digits))),
        Some(Content::NoText) => Err(Unreadable::User),
        _ => Ok(None),
    }
}

/// A session of a user, and when it was read.
pub(crate) struct UserIndexEntry {
    pub(crate) id: SessionId,
    pub(crate) user: String,
    pub(crate) read: Read,
}

/// The queued entries of a process, with the latest one of each session.
#[derive(Default)]
pub(crate) struct UserIndexQueue(Mutex<HashMap<SessionId, UserIndexEntry>>);

impl UserIndexQueue {
    pub(crate) fn push(&self, sighting: UserIndexEntry) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < LIMIT || waiting.contains_key(&sighting.id) {
            waiting.insert(sighting.id.clone(), sighting);
        }
    }

    /// Takes up to [`BATCH`] entries from the queue.
    pub(crate) fn take_batch(&self) -> Vec<UserIndexEntry> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<SessionId> = waiting.keys().take(BATCH).cloned().collect();
        ids.iter().filter_map(|id| waiting.remove(id)).collect()
    }
}
