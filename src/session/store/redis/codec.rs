//! The keys, values, channels and scripts of the Redis session store.

use std::io::Write;
use std::str;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisWrite, ToRedisArgs, Value, cmd};

use crate::config::{self, StoreFormat};
use crate::secret::digest;

use super::super::super::cache::TombstoneReason;
use super::super::{Contents, Fields, Read, SessionId, StoreError, Unreadable};
use super::command;
use super::topology::RunId;

/// Encodes and decodes the keys and values of sessions.
pub(super) struct Codec {
    prefix: String,
    suffix: String,
    format: StoreFormat,
    without_gt: AtomicBool,
}

/// Emulates `PEXPIRE … GT` for servers older than Redis 7. A script is atomic, so the TTL cannot change
/// between the check and the write.
const PEXPIRE_GT: &str = "local ttl = redis.call('PTTL', KEYS[1]) \
    if ttl >= 0 and ttl < tonumber(ARGV[1]) then return redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
    return 0";

/// Channel of invalidations: carries ids of sessions that may have changed. Applications may publish to it as
/// well.
pub(super) const INVALIDATED: &str = "session:invalidated";
/// Channel over which vestibule processes announce tombstones: `<milliseconds> <death> <id>`.
pub(super) const DEAD: &str = "vestibule:dead";

/// Prefix of the heartbeat keys, by which a vestibule process verifies that invalidations arrive.
pub(super) const HEARTBEAT: &str = "vestibule:heartbeat:";
/// Hash key: for each vestibule process, the servers that it has written its tombstones to.
pub(super) const PEERS: &str = "vestibule:peers";
/// This key exists while some vestibule process receives no invalidations.
const UNLINKED: &str = "vestibule:unlinked";

/// `DEL` comes first because Redis checks `maxmemory` only before the first write of a script; `SET` then
/// succeeds even when memory is full. The TTL of an existing tombstone is never shortened. `pcall` ignores
/// the error when an ACL forbids `PUBLISH`.
const BURY: &str = "local left = redis.call('PTTL', KEYS[1]) \
    local removed = redis.call('DEL', KEYS[1]) \
    if left < 0 then left = tonumber(ARGV[2]) end \
    left = math.max(left, redis.call('PTTL', KEYS[2]), 1) \
    redis.call('SET', KEYS[2], ARGV[1], 'PX', left) \
    redis.pcall('PUBLISH', ARGV[4], string.format('%.0f %s %s', left, ARGV[1], ARGV[3])) \
    redis.pcall('PUBLISH', ARGV[5], ARGV[3]) \
    return {removed, left}";

/// The index of a user's sessions is a sorted set, scored by the second at which each session has expired at
/// the latest. A session that was read before all sessions of the user were revoked is added to the late set
/// instead of being accepted: the revocation could not find it in the index.
const NOTE_USER: &str = "local now = tonumber(redis.call('TIME')[1]) \
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) \
    local over = string.format('%.0f', now + tonumber(ARGV[2]) + 1) \
    redis.call('ZADD', KEYS[1], over, ARGV[1]) \
    redis.call('EXPIREAT', KEYS[1], over) \
    local revoked = redis.call('HGET', KEYS[2], ARGV[3]) \
    if not revoked or tonumber(ARGV[4]) > tonumber(revoked) then return 0 end \
    redis.call('SADD', KEYS[3], ARGV[1]) \
    redis.call('PEXPIRE', KEYS[3], ARGV[5]) \
    return 1";

/// Records when the sessions of a user were revoked, by the clock of each server that sessions may be read
/// from. Returns the sessions in the index.
const REVOKE_USER: &str = "local now = redis.call('TIME')[1] \
    for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end \
    redis.call('PEXPIRE', KEYS[2], ARGV[1]) \
    return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')";

/// How long revocation times and late sessions are kept. Longer than any lookup that was in flight at the
/// time of the revocation.
const LOOK_UP: Duration = Duration::from_secs(60);

impl Codec {
    pub(super) fn new(config: &config::Store) -> Self {
        Codec {
            prefix: config.key_prefix.clone(),
            suffix: config.key_suffix.clone(),
            format: config.format,
            without_gt: AtomicBool::new(false),
        }
    }

    pub(super) fn key<'a>(&'a self, id: &'a SessionId) -> Key<'a> {
        Key(["", &self.prefix, id.expose(), &self.suffix, ""])
    }

    /// The key of the tombstone. Its hash tag puts it into the slot of the session, so one script may access
    /// both.
    pub(super) fn tombstone<'a>(&'a self, id: &'a SessionId) -> Key<'a> {
        let is_tagged = self.prefix.contains('{');
        let (before, after) = if is_tagged { ("vestibule:dead:", "") } else { ("vestibule:dead:{", "}") };
        Key([before, &self.prefix, id.expose(), &self.suffix, after])
    }

    /// The prefix of all session keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Extracts the id from a session key; `None` for other keys.
    pub(super) fn id_in<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let id = key.strip_prefix(self.prefix.as_bytes())?.strip_suffix(self.suffix.as_bytes())?;
        str::from_utf8(id).ok()
    }

    /// The command that returns the type of the value under a session key.
    pub(super) fn kind(&self, id: &SessionId) -> Cmd {
        command("TYPE", self.key(id))
    }

    /// The command that returns the first 64 bytes of the string under a session key.
    pub(super) fn beginning(&self, id: &SessionId) -> Cmd {
        let mut range = command("GETRANGE", self.key(id));
        range.arg(0).arg(63);
        range
    }

    /// The command that reads a session. [`Codec::decode`] decodes its reply.
    pub(super) fn read(&self, id: &SessionId) -> Cmd {
        match self.format {
            StoreFormat::Hash => command("HGETALL", self.key(id)),
            StoreFormat::Json => command("GET", self.key(id)),
        }
    }

    /// Adds the commands that write a session.
    pub(super) fn write(&self, to: &mut Pipeline, id: &SessionId, fields: &Fields, ttl: Duration) {
        match self.format {
            StoreFormat::Hash => {
                let mut set = command("HSET", self.key(id));
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) => set.arg(name).arg(text),
                        None => set.arg(name).arg(value.to_string()),
                    };
                }
                let mut expire = command("PEXPIRE", self.key(id));
                expire.arg(millis(ttl));
                to.add_command(set).add_command(expire);
            }
            StoreFormat::Json => {
                let mut set = command("SET", self.key(id));
                set.arg(JsonObject(fields)).arg("PX").arg(millis(ttl));
                to.add_command(set);
            }
        }
    }

    /// The script that deletes a session, writes a tombstone with its remaining TTL, and publishes both to
    /// the channels. The reply is the number of sessions deleted and the TTL of the tombstone in
    /// milliseconds. `life` is the TTL of the tombstone if the session is missing or has no expiry.
    pub(super) fn bury(&self, id: &SessionId, death: TombstoneReason, life: Duration) -> Cmd {
        let mut script = cmd("EVAL");
        script.arg(BURY).arg(2).arg(self.key(id)).arg(self.tombstone(id));
        script.arg(death.as_str()).arg(millis(life)).arg(id.expose()).arg(DEAD).arg(INVALIDATED);
        script
    }

    /// The command that extends the TTL of a session with expiry to `ttl` if that is later. The reply is 1 if
    /// the TTL was changed.
    pub(super) fn renew(&self, id: &SessionId, ttl: Duration) -> Cmd {
        if self.is_without_gt() {
            let mut script = cmd("EVAL");
            script.arg(PEXPIRE_GT).arg(1).arg(self.key(id)).arg(millis(ttl));
            return script;
        }
        let mut expire = command("PEXPIRE", self.key(id));
        expire.arg(millis(ttl)).arg("GT");
        expire
    }

    /// The keys of a user's index, of the revocation times and of the late sessions. They contain a digest of
    /// the user's name, because a name may contain any characters and must not be disclosed. The hash tag
    /// puts all three into one slot.
    fn user_keys(&self, user: &str) -> [String; 3] {
        let key = format!("vestibule:user:{}", digest(user));
        let [revoked, late] = ["revoked", "late"].map(|what| format!("vestibule:{what}:{{{key}}}"));
        [key, revoked, late]
    }

    /// The script that adds `id` to the index of `user`, for at most `life`. The reply is 1 if the session
    /// was read before the user's sessions were revoked. The first key is that of the index.
    pub(super) fn note_user(&self, user: &str, id: &SessionId, life: Duration, read: Option<&Read>) -> Cmd {
        let mut script = cmd("EVAL");
        let [key, revoked, late] = self.user_keys(user);
        script.arg(NOTE_USER).arg(3).arg(key).arg(revoked).arg(late);
        script.arg(id.expose()).arg(life.as_secs());
        match read.and_then(|read| Some((read.by.as_ref()?, read.at?))) {
            Some((by, at)) => script.arg(&**by).arg(micros(at)),
            None => script.arg("").arg("0"),
        };
        script.arg(millis(LOOK_UP));
        script
    }

    /// The script that marks the sessions of `user` that were read before `times` as revoked. The reply is
    /// the sessions in the index.
    pub(super) fn revoke_user(&self, user: &str, times: &[(RunId, Duration)]) -> Cmd {
        let mut script = cmd("EVAL");
        let [key, revoked, _] = self.user_keys(user);
        script.arg(REVOKE_USER).arg(2).arg(key).arg(revoked).arg(millis(LOOK_UP));
        for (server, time) in times {
            script.arg(&**server).arg(micros(*time));
        }
        script
    }

    /// The command that returns the late sessions of `user`: read before the revocation, but added after it.
    pub(super) fn late_sessions_of(&self, user: &str) -> Cmd {
        let [_, _, late] = self.user_keys(user);
        let mut members = cmd("SMEMBERS");
        members.arg(late);
        members
    }

    /// The command that announces, for `kept`, that this vestibule process receives no invalidations.
    pub(super) fn tell_unlinked(&self, kept: Duration) -> Cmd {
        let mut set = cmd("SET");
        set.arg(UNLINKED).arg("1").arg("PX").arg(millis(kept));
        set
    }

    /// The command that returns 1 while some vestibule process receives no invalidations.
    pub(super) fn is_any_unlinked(&self) -> Cmd {
        let mut exists = cmd("EXISTS");
        exists.arg(UNLINKED);
        exists
    }

    /// Whether the server is known to lack `PEXPIRE … GT`, which was added in Redis 7.
    pub(super) fn is_without_gt(&self) -> bool {
        self.without_gt.load(Relaxed)
    }

    pub(super) fn set_without_gt(&self) {
        self.without_gt.store(true, Relaxed);
    }

    /// Decodes the session in `reply`; `None` if the session is absent.
    pub(super) fn decode(&self, reply: Value) -> Result<Option<Result<Contents, Unreadable>>, StoreError> {
        match (self.format, reply) {
            (_, Value::Nil) => Ok(None),
            (StoreFormat::Hash, reply) => {
                let pairs = reply.into_map_iter().map_err(|_| StoreError::Protocol)?;
                let fields =
                    pairs
                        .map(|(name, value)| Ok((bytes(name)?, bytes(value)?)))
                        .collect::<Result<Vec<_>, StoreError>>()?;
                Ok((!fields.is_empty()).then(|| Contents::hash(fields)))
            }
            (StoreFormat::Json, reply) => Ok(Some(Contents::json(&bytes(reply)?))),
        }
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(StoreError::Protocol),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, at least 1, because 0 would delete the key. Capped, because Redis rejects a TTL that
/// overflows when it is added to its clock.
pub(super) fn millis(ttl: Duration) -> u64 {
    const LIMIT: u128 = 1 << 52;
    u64::try_from(ttl.as_millis().clamp(1, LIMIT)).unwrap_or(1)
}

/// A key, written into the command in pieces to avoid an allocation.
#[derive(Clone, Copy)]
pub(super) struct Key<'a>([&'a str; 5]);

impl Key<'_> {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut writer = out.writer_for_next_arg();
        for piece in self.0 {
            // The writer is a memory buffer, so writing cannot fail.
            let _ = writer.write_all(piece.as_bytes());
        }
    }
}

struct JsonObject<'a>(&'a Fields);

impl ToRedisArgs for JsonObject<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        // Writing to memory cannot fail, nor can serializing a map with string keys.
        let _ = serde_json::to_writer(out.writer_for_next_arg(), self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::super::Content;
    use super::*;

    fn codec(format: StoreFormat) -> Codec {
        Codec {
            prefix: "session:{".to_owned(),
            suffix: "}:v1".to_owned(),
            format,
            without_gt: AtomicBool::new(false),
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_id_stands_between_prefix_and_suffix() {
        let packed = codec(StoreFormat::Hash).read(&SessionId::new("abc")).get_packed_command();
        assert_eq!(packed, b"*2\r\n$7\r\nHGETALL\r\n$16\r\nsession:{abc}:v1\r\n");
    }

    #[test]
    fn a_hash_is_read_from_both_protocols_and_empty_is_absent() {
        let hash = codec(StoreFormat::Hash);
        let expected = Ok(Some(Contents::hash(vec![(b"user_id".to_vec(), b"42".to_vec())])));
        assert_eq!(hash.decode(Value::Map(vec![(bulk("user_id"), bulk("42"))])), expected);
        assert_eq!(hash.decode(Value::Array(vec![bulk("user_id"), bulk("42")])), expected);
        assert_eq!(hash.decode(Value::Map(vec![])), Ok(None));
    }

    #[test]
    fn json_is_one_object_and_nil_is_absent() {
        let json = codec(StoreFormat::Json);
        let read = json.decode(bulk("{\"a\":{\"b\":1}}")).unwrap().unwrap().unwrap();
        assert_eq!(read.find("/a/b"), Some(Content::Number("1")));
        assert_eq!(json.decode(Value::Nil), Ok(None));
    }

    #[test]
    fn what_is_no_session_is_unreadable_or_an_error_and_never_absent() {
        let (hash, json) = (codec(StoreFormat::Hash), codec(StoreFormat::Json));
        for text in ["", "[]", "null", "42", "{", "{} x"] {
            let read = json.decode(bulk(text)).unwrap().unwrap();
            assert!(matches!(read, Err(Unreadable::NoObject(_))), "{text}");
        }
        assert_eq!(hash.decode(Value::Okay), Err(StoreError::Protocol));
        assert_eq!(json.decode(Value::Int(1)), Err(StoreError::Protocol));
    }

    #[test]
    fn a_ttl_is_never_zero_milliseconds_nor_beyond_the_server_s_clock() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(1500)), 1);
        assert_eq!(millis(Duration::from_secs(2)), 2000);
        assert_eq!(millis(Duration::MAX), 1 << 52);
    }

    proptest! {
        #[test]
        fn no_json_text_makes_decoding_panic(text in "\\PC{0,40}") {
            let _ = codec(StoreFormat::Json).decode(bulk(&text));
        }
    }
}
