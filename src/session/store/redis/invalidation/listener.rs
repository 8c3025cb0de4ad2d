//! What a server says unasked, and what comes of it.

use std::sync::Arc;

use redis::{PushInfo, PushKind, Value};

use super::super::super::super::cache::SessionCache;
use super::super::codec::{Codec, INVALIDATED};
use super::super::topology::Topology;
use super::heartbeat::Stethoscope;

/// Obeys what the server says unasked.
pub(super) struct Listener {
    pub(super) topology: Arc<Topology>,
    pub(super) codec: Arc<Codec>,
    pub(super) cache: Arc<SessionCache>,
    pub(super) beats: Option<Stethoscope>,
}

impl Listener {
    pub(super) fn hear(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Invalidate, [Value::Array(keys)]) => keys.iter().for_each(|key| self.forget(key)),
            // Everything was flushed.
            (PushKind::Invalidate, _) => {
                self.topology.notes.forget_all();
                self.cache.forget_all();
            }
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(text)]) => {
                self.hear_message(channel, text);
            }
            _ => (),
        }
    }

    fn forget(&self, key: &Value) {
        let Value::BulkString(key) = key else { return };
        // Sessions first: a beat stands for all changes that were reported before it.
        if let Some(id) = self.codec.id_in(key) {
            self.cache.invalidate(id);
        }
        if let Some(beats) = &self.beats {
            beats.hear(key);
        }
    }

    fn hear_message(&self, channel: &[u8], text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        if channel == INVALIDATED.as_bytes() {
            self.cache.invalidate(text);
        } else {
            self.cache.bury_told(text);
        }
    }
}
