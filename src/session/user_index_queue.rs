//! Users' sessions that could not be noted in the store, and wait for it to take writes again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::Read;
use super::{Content, Contents, SessionId, Unreadable};

/// Most that wait; further ones are noted when the session is looked up again.
const LIMIT: usize = 65_536;
/// As many are noted in one go.
const BATCH: usize = 256;

/// The user at `pointer`. Numbers count as they are written, as they do in identity headers; an empty
/// text is nobody, as it is there.
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

/// The sightings of a process: of each session the last one.
#[derive(Default)]
pub(crate) struct UserIndexQueue(Mutex<HashMap<SessionId, UserIndexEntry>>);

impl UserIndexQueue {
    pub(crate) fn push(&self, sighting: UserIndexEntry) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < LIMIT || waiting.contains_key(&sighting.id) {
            waiting.insert(sighting.id.clone(), sighting);
        }
    }

    /// Takes some of those that wait.
    pub(crate) fn take_batch(&self) -> Vec<UserIndexEntry> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<SessionId> = waiting.keys().take(BATCH).cloned().collect();
        ids.iter().filter_map(|id| waiting.remove(id)).collect()
    }
}
