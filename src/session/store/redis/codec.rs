//! How a session is named and written in Redis.

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

/// Keys and values of sessions.
pub(super) struct Codec {
    prefix: String,
    suffix: String,
    format: StoreFormat,
    without_gt: AtomicBool,
}

/// What `PEXPIRE … GT` does, for servers that do not know it. Running as one script, nobody can
/// change the TTL between the question and the answer.
const PEXPIRE_GT: &str = "local ttl = redis.call('PTTL', KEYS[1]) \
    if ttl >= 0 and ttl < tonumber(ARGV[1]) then return redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
    return 0";

/// Who listens here is told ids of sessions that may have changed, and may tell of others.
pub(super) const INVALIDATED: &str = "session:invalidated";
/// Where vestibules tell each other of tombstones: `<milliseconds> <death> <id>`.
pub(super) const DEAD: &str = "vestibule:dead";

/// What the keys begin with by which a vestibule proves to itself that changes are reported.
pub(super) const HEARTBEAT: &str = "vestibule:heartbeat:";
/// Which servers each vestibule has told what it remembers.
pub(super) const PEERS: &str = "vestibule:peers";
/// It is there while some vestibule hears of no changes.
const UNLINKED: &str = "vestibule:unlinked";

/// `DEL` comes first: a script that has begun to write is not stopped by a full memory. A tombstone's time is
/// never shortened, and the channels may be forbidden.
const BURY: &str = "local left = redis.call('PTTL', KEYS[1]) \
    local removed = redis.call('DEL', KEYS[1]) \
    if left < 0 then left = tonumber(ARGV[2]) end \
    left = math.max(left, redis.call('PTTL', KEYS[2]), 1) \
    redis.call('SET', KEYS[2], ARGV[1], 'PX', left) \
    redis.pcall('PUBLISH', ARGV[4], string.format('%.0f %s %s', left, ARGV[1], ARGV[3])) \
    redis.pcall('PUBLISH', ARGV[5], ARGV[3]) \
    return {removed, left}";

/// A user's sessions, scored by the second at which they are over at the latest. A session that was read before all
/// sessions of the user were revoked is put aside: who revoked them could not know of it.
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

/// Notes when the sessions of a user were revoked, by the clock of each server that they may be read from, and tells
/// those sessions that were noted.
const REVOKE_USER: &str = "local now = redis.call('TIME')[1] \
    for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end \
    redis.call('PEXPIRE', KEYS[2], ARGV[1]) \
    return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')";

/// How long a look-up can be under way that began before a revocation, with room to spare.
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

    /// The key that says how a session died. In a cluster it lies in the session's own slot.
    pub(super) fn tombstone<'a>(&'a self, id: &'a SessionId) -> Key<'a> {
        let is_tagged = self.prefix.contains('{');
        let (before, after) = if is_tagged { ("vestibule:dead:", "") } else { ("vestibule:dead:{", "}") };
        Key([before, &self.prefix, id.expose(), &self.suffix, after])
    }

    /// What all keys of sessions begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The id in a session's key; `None` for other keys.
    pub(super) fn id_in<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let id = key.strip_prefix(self.prefix.as_bytes())?.strip_suffix(self.suffix.as_bytes())?;
        str::from_utf8(id).ok()
    }

    /// The command whose reply is the type of what is in the place of a session.
    pub(super) fn kind(&self, id: &SessionId) -> Cmd {
        command("TYPE", self.key(id))
    }

    /// The command whose reply is how the string in the place of a session begins.
    pub(super) fn beginning(&self, id: &SessionId) -> Cmd {
        let mut range = command("GETRANGE", self.key(id));
        range.arg(0).arg(63);
        range
    }

    /// The command whose reply [`Codec::decode`] takes.
    pub(super) fn read(&self, id: &SessionId) -> Cmd {
        match self.format {
            StoreFormat::Hash => command("HGETALL", self.key(id)),
            StoreFormat::Json => command("GET", self.key(id)),
        }
    }

    /// The commands that write a session.
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

    /// Removes a session, leaves a tombstone for the rest of its life and tells everybody; the reply is how
    /// many were removed and the life of the tombstone. `life` is for sessions whose remaining time is not known.
    pub(super) fn bury(&self, id: &SessionId, death: TombstoneReason, life: Duration) -> Cmd {
        let mut script = cmd("EVAL");
        script.arg(BURY).arg(2).arg(self.key(id)).arg(self.tombstone(id));
        script.arg(death.as_str()).arg(millis(life)).arg(id.expose()).arg(DEAD).arg(INVALIDATED);
        script
    }

    /// The command that makes a session with a TTL live for `ttl`, unless it lives longer anyway; the reply is
    /// 1 if it does so.
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

    /// Where the ids of a user's sessions are. Users may be called anything, and their names are not everybody's.
    /// All three lie in one slot of a cluster.
    fn user_keys(&self, user: &str) -> [String; 3] {
        let key = format!("vestibule:user:{}", digest(user));
        let [revoked, late] = ["revoked", "late"].map(|what| format!("vestibule:{what}:{{{key}}}"));
        [key, revoked, late]
    }

    /// Notes that `id` is a session of `user` for at most `life`; the reply is 1 if it was read before the user's
    /// sessions were revoked. The first key is that of the user.
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

    /// Marks the sessions of `user` that were read before these times as revoked; the reply is those noted.
    pub(super) fn revoke_user(&self, user: &str, times: &[(RunId, Duration)]) -> Cmd {
        let mut script = cmd("EVAL");
        let [key, revoked, _] = self.user_keys(user);
        script.arg(REVOKE_USER).arg(2).arg(key).arg(revoked).arg(millis(LOOK_UP));
        for (server, time) in times {
            script.arg(&**server).arg(micros(*time));
        }
        script
    }

    /// The command whose reply is the sessions of `user` that were read before, and noted after the revocation.
    pub(super) fn late_sessions_of(&self, user: &str) -> Cmd {
        let [_, _, late] = self.user_keys(user);
        let mut members = cmd("SMEMBERS");
        members.arg(late);
        members
    }

    /// Tells that some vestibule hears of no changes, for this long.
    pub(super) fn tell_unlinked(&self, kept: Duration) -> Cmd {
        let mut set = cmd("SET");
        set.arg(UNLINKED).arg("1").arg("PX").arg(millis(kept));
        set
    }

    /// The command whose reply is 1 while some vestibule hears of no changes.
    pub(super) fn is_any_unlinked(&self) -> Cmd {
        let mut exists = cmd("EXISTS");
        exists.arg(UNLINKED);
        exists
    }

    /// Whether the server is known to be older than Redis 7, with which `PEXPIRE … GT` came.
    pub(super) fn is_without_gt(&self) -> bool {
        self.without_gt.load(Relaxed)
    }

    pub(super) fn set_without_gt(&self) {
        self.without_gt.store(true, Relaxed);
    }

    /// The session in `reply`; `None` if there is none.
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

/// Whole milliseconds, at least one (zero would delete the key), within what Redis adds to its clock.
pub(super) fn millis(ttl: Duration) -> u64 {
    const LIMIT: u128 = 1 << 52;
    u64::try_from(ttl.as_millis().clamp(1, LIMIT)).unwrap_or(1)
}

/// A key, written into the command piece by piece.
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
            // The writer is memory; it takes everything.
            let _ = writer.write_all(piece.as_bytes());
        }
    }
}

struct JsonObject<'a>(&'a Fields);

impl ToRedisArgs for JsonObject<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        // Neither can memory fail nor does a map with string keys.
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
