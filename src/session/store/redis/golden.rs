//! Golden test of everything that is written to the store and published on its channels, against
//! `tests/golden/redis.txt`. Older and newer vestibule versions read it, and so do applications.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline};

use super::super::super::cache::{SessionCache, TombstoneReason};
use super::super::{Fields, Read, SessionId};
use super::codec::{Codec, DEAD, HEARTBEAT, INVALIDATED, PEERS};
use crate::config::{self, Config};
use crate::golden::assert_golden;

const LIFE: Duration = Duration::from_secs(60);

fn config(key: &str, format: &str) -> Config {
    let text = format!(
        "version = 1\n[[listener]]\naddress = \"127.0.0.1:1\"\n[[upstream]]\nname = \"a\"\n\
         instance = [{{ address = \"127.0.0.1:1\" }}]\n[[route]]\nupstream = \"a\"\n\
         [session.store]\nkey = {key:?}\nformat = {format:?}\n"
    );
    config::parse(&text, "x").unwrap()
}

fn codec(key: &str, format: &str) -> Codec {
    Codec::new(&config(key, format).session.store)
}

/// The arguments of commands, one per line, decoded from the wire format by their lengths.
fn words(packed: &[u8]) -> String {
    let (mut rest, mut page) = (std::str::from_utf8(packed).unwrap(), String::new());
    while !rest.is_empty() {
        let (line, after) = rest.split_once("\r\n").unwrap();
        rest = after;
        if line.starts_with('*') {
            page.push_str("command\n");
            continue;
        }
        let length: usize = line.strip_prefix('$').unwrap().parse().unwrap();
        let _ = writeln!(page, "    {}", &rest[..length]);
        rest = &rest[length + 2..];
    }
    page
}

fn of(command: &Cmd) -> String {
    words(&command.get_packed_command())
}

fn fields() -> Fields {
    let fields = serde_json::json!({ "user_id": "42", "n": 1, "o": { "a": [true, null] } });
    fields.as_object().unwrap().clone()
}

fn session(name: &str, codec: &Codec) -> String {
    let id = SessionId::new("abc");
    let mut write = Pipeline::new();
    codec.write(&mut write, &id, &fields(), LIFE);
    let mut page = format!("# {name}: type, beginning, read, write, renew, end\n");
    page.push_str(&of(&codec.kind(&id)));
    page.push_str(&of(&codec.beginning(&id)));
    page.push_str(&of(&codec.read(&id)));
    page.push_str(&words(&write.get_packed_pipeline()));
    page.push_str(&of(&codec.renew(&id, LIFE)));
    for death in [TombstoneReason::Revoked, TombstoneReason::Replaced] {
        page.push_str(&of(&codec.bury(&id, death, LIFE)));
    }
    page
}

fn users(codec: &Codec) -> String {
    let id = SessionId::new("abc");
    let server = || Arc::from("run-id");
    let read = Read { by: Some(server()), at: Some(LIFE) };
    let mut page = "# Sessions of a user: noted, noted without a time, revoked, late ones\n".to_owned();
    page.push_str(&of(&codec.note_user("ada", &id, LIFE, Some(&read))));
    page.push_str(&of(&codec.note_user("ada", &id, LIFE, None)));
    page.push_str(&of(&codec.revoke_user("ada", &[(server(), LIFE)])));
    page.push_str(&of(&codec.late_sessions_of("ada")));
    page
}

/// The session ends that one process announces to another, with the remaining time masked.
fn ends() -> String {
    let cache = SessionCache::new(&config("{id}", "hash").session.cache.unwrap(), None);
    cache.bury(&SessionId::new("abc"), TombstoneReason::Revoked, LIFE);
    cache.bury_told("60000 replaced a b");
    let mut ends: Vec<_> = cache.told_ends().iter().map(|end| without_time(end)).collect();
    ends.sort();
    format!("# Ends of sessions\n{}", ends.concat())
}

fn without_time(end: &str) -> String {
    let (left, rest) = end.split_once(' ').unwrap();
    assert!(left.parse::<u64>().unwrap() <= 60_000);
    format!("MILLISECONDS {rest}\n")
}

#[test]
fn golden_the_store_is_written_as_other_processes_read_it() {
    let plain = codec("session:{id}", "hash");
    let mut page = session("Hashes", &plain);
    page.push_str(&session("JSON, with a hash tag", &codec("app:{{id}}:v1", "json")));
    plain.set_without_gt();
    page.push_str("# Renewal by servers before Redis 7\n");
    page.push_str(&of(&plain.renew(&SessionId::new("abc"), LIFE)));
    page.push_str(&users(&plain));
    page.push_str("# No changes heard of: told, asked for\n");
    page.push_str(&of(&plain.tell_unlinked(LIFE)));
    page.push_str(&of(&plain.is_any_unlinked()));
    let _ = write!(page, "# Channels\n{INVALIDATED}\n{DEAD}\n# Other keys\n{HEARTBEAT}\n{PEERS}\n");
    page.push_str(&ends());
    assert_golden("redis.txt", &page);
}
