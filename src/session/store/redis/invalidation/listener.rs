//! Handles the RESP3 pushes of a server.

use std::sync::Arc;

use redis::{PushInfo, PushKind, Value};

use super::super::super::super::cache::SessionCache;
use super::super::codec::{Codec, INVALIDATED};
use super::super::topology::Topology;
use super::heartbeat::Stethoscope;

/// Applies invalidations and messages to the cache.
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
            // `FLUSHALL` or `FLUSHDB`: the invalidation has no key list.
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
        // The cache entry is removed first, because a heartbeat confirms that all earlier invalidations have
        // been applied.
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
