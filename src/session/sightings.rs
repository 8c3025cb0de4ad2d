//! Whose sessions were seen, waiting to be noted in the store, so that all of a user's can be found.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::{SessionId, pointer};

/// Most sightings that wait; further ones are lost until the session is looked up again.
const LIMIT: usize = 65_536;

/// The user at `pointer`. Numbers count as they are written, as they do in identity headers.
pub(super) fn user_in<'a>(contents: &'a [(Box<str>, Value)], pointer: &str) -> Option<Cow<'a, str>> {
    match pointer::find(contents, pointer)? {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// A session of a user.
pub(crate) struct Sighting {
    pub(crate) user: String,
    pub(crate) id: SessionId,
}

/// The sightings of a process.
#[derive(Default)]
pub(crate) struct Sightings(Mutex<Vec<Sighting>>);

impl Sightings {
    pub(crate) fn push(&self, user: &str, id: &SessionId) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < LIMIT {
            waiting.push(Sighting { user: user.to_owned(), id: id.clone() });
        }
    }

    /// Takes all that wait.
    pub(crate) fn take(&self) -> Vec<Sighting> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
