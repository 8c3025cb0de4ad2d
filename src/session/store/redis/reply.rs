//! Interprets replies and errors of Redis.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerError, Value};

use super::super::super::cache::TombstoneReason;
use super::super::{StoreError, TombstoneWrite, Ttl};

/// The reason in a tombstone; `None` if there is no tombstone.
pub(super) fn death(reply: Value) -> Result<Option<TombstoneReason>, StoreError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(word) => TombstoneReason::parse(&word).map(Some).ok_or(StoreError::Protocol),
        _ => Err(StoreError::Protocol),
    }
}

/// Decodes the reply of `PTTL` in milliseconds: -1 for a key without expiry, -2 for a missing key. The key
/// may have expired between the read and `PTTL` of the same pipeline; the TTL is then zero.
pub(super) fn ttl(reply: Value) -> Result<Ttl, StoreError> {
    match reply {
        Value::Int(-1) => Ok(Ttl::Never),
        Value::Int(millis) => Ok(Ttl::Left(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))),
        _ => Err(StoreError::Protocol),
    }
}

/// Whether the reply of `ROLE` is that of a primary.
pub(super) fn is_primary(role: &Value) -> bool {
    let word = match role {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    matches!(word, Some(Value::BulkString(word)) if word == b"master")
}

/// A text reply, of any of the string types.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => str::from_utf8(text).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Decodes the reply of `TIME` to the time since the Unix epoch; `None` if it is malformed.
pub(super) fn time(reply: &Value) -> Option<Duration> {
    let [seconds, micros] = reply.as_sequence()? else { return None };
    let number = |value| text(value)?.parse::<u64>().ok();
    Some(Duration::from_secs(number(seconds)?) + Duration::from_micros(number(micros)?))
}

/// Decodes the reply of the script that writes a tombstone.
pub(super) fn burial(reply: &Value) -> Result<TombstoneWrite, StoreError> {
    let number = |value: Option<&Value>| match value {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| StoreError::Protocol),
        _ => Err(StoreError::Protocol),
    };
    let Value::Array(parts) = reply else { return Err(StoreError::Protocol) };
    let (removed, left) = (number(parts.first())?, number(parts.get(1))?);
    Ok(TombstoneWrite { was_there: removed > 0, life: Duration::from_millis(left) })
}

/// Returns `result`, or the first error in it: the error of the call, or an error reply to one command of a
/// pipeline or transaction.
pub(super) fn checked(result: Result<Value, RedisError>) -> Result<Value, StoreError> {
    let value = result.map_err(kind_of)?;
    match error_in(&value) {
        Some(error) => Err(error),
        None => Ok(value),
    }
}

fn error_in(value: &Value) -> Option<StoreError> {
    match value {
        Value::ServerError(error) => Some(server_error(error)),
        Value::Array(values) => values.iter().find_map(error_in),
        _ => None,
    }
}

/// Classifies `error`. Its text is dropped, because it may contain keys and addresses.
pub(super) fn kind_of(error: RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => StoreError::Timeout,
        ErrorKind::Io if is_invalid_data(&error) => StoreError::Tls,
        ErrorKind::Io => StoreError::Disconnected,
        ErrorKind::AuthenticationFailed => StoreError::Auth,
        ErrorKind::Server(_) | ErrorKind::Extension => match ServerError::try_from(error) {
            Ok(error) => server_error(&error),
            Err(_) => StoreError::Rejected,
        },
        _ => StoreError::Protocol,
    }
}

/// Whether a server does not support RESP3: it is older than Redis 6, or `HELLO` has been renamed or
/// disabled.
pub(super) fn refuses_resp3(error: &RedisError) -> bool {
    let is_unknown = || error.detail().is_some_and(|text| text.starts_with("unknown command"));
    error.kind() == ErrorKind::RESP3NotSupported || is_unknown()
}

/// The TLS layer reports an untrusted certificate and other handshake faults as `InvalidData`.
fn is_invalid_data(error: &RedisError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>())
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::InvalidData)
}

fn server_error(error: &ServerError) -> StoreError {
    match error.code() {
        "WRONGTYPE" => StoreError::WrongType,
        "NOAUTH" | "NOPERM" | "WRONGPASS" | "DENIED" => StoreError::Auth,
        "LOADING" => StoreError::Loading,
        "READONLY" => StoreError::ReadOnly,
        "MASTERDOWN" | "CLUSTERDOWN" => StoreError::PrimaryDown,
        "MOVED" | "ASK" | "TRYAGAIN" => StoreError::Moving,
        "BUSY" => StoreError::Script,
        "OOM" => StoreError::OutOfMemory,
        "MISCONF" | "NOREPLICAS" => StoreError::NotDurable,
        "ERR" if error.details().is_some_and(|text| text.starts_with("max number of clients")) => {
            StoreError::MaxClients
        }
        _ => StoreError::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Result<Value, RedisError> {
        redis::parse_redis_value(line.as_bytes())
    }

    #[test]
    fn every_refusal_of_the_server_is_an_error_of_its_kind() {
        for (line, kind) in [
            ("-WRONGTYPE Operation against a key holding the wrong kind of value", "wrong_type"),
            ("-NOAUTH Authentication required.", "auth"),
            ("-NOPERM this user has no permissions", "auth"),
            ("-WRONGPASS invalid username-password pair or user is disabled.", "auth"),
            ("-DENIED Redis is running in protected mode", "auth"),
            ("-LOADING Redis is loading the dataset in memory", "loading"),
            ("-READONLY You can't write against a read only replica.", "readonly"),
            ("-MASTERDOWN Link with MASTER is down", "primary_down"),
            ("-CLUSTERDOWN The cluster is down", "primary_down"),
            ("-BUSY Redis is busy running a script.", "script"),
            ("-OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory"),
            ("-MISCONF Redis is configured to save RDB snapshots", "not_durable"),
            ("-NOREPLICAS Not enough good replicas to write.", "not_durable"),
            ("-ERR max number of clients reached", "max_clients"),
            ("-CLUSTERDOWN The cluster is down", "primary_down"),
            ("-MOVED 3999 127.0.0.1:6381", "moving"),
            ("-ASK 3999 127.0.0.1:6381", "moving"),
            ("-TRYAGAIN Multiple keys request during rehashing of slot", "moving"),
            ("-ERR unknown command", "rejected"),
        ] {
            let error = checked(reply(&format!("{line}\r\n"))).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            let in_pipeline = checked(reply(&format!("*2\r\n:1\r\n*1\r\n{line}\r\n"))).unwrap_err();
            assert_eq!(in_pipeline, error, "{line}");
        }
    }

    #[test]
    fn failures_on_the_way_are_told_apart() {
        let io = |kind: io::ErrorKind| kind_of(RedisError::from(io::Error::from(kind)));
        assert_eq!(io(io::ErrorKind::TimedOut), StoreError::Timeout);
        assert_eq!(io(io::ErrorKind::BrokenPipe), StoreError::Disconnected);
        assert_eq!(io(io::ErrorKind::ConnectionRefused), StoreError::Disconnected);
        assert_eq!(io(io::ErrorKind::InvalidData), StoreError::Tls);
        let parse = RedisError::from((ErrorKind::Parse, "garbage"));
        assert_eq!(kind_of(parse), StoreError::Protocol);
    }

    #[test]
    fn pttl_tells_no_expiry_from_no_time_left() {
        assert_eq!(ttl(Value::Int(-1)), Ok(Ttl::Never));
        assert_eq!(ttl(Value::Int(-2)), Ok(Ttl::Left(Duration::ZERO)));
        assert_eq!(ttl(Value::Int(1500)), Ok(Ttl::Left(Duration::from_millis(1500))));
        assert_eq!(ttl(Value::Nil), Err(StoreError::Protocol));
    }
}
