//! Whatever replaces or removes what a session's key holds counts in time, also where Redis tells nobody.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{BOUND, HOUR, Watch, new_user, old_user, put, vestibule};
use crate::proofs::{Spread, report, rounds};
use crate::support::asker::{NOBODY, mirror};
use crate::support::redis::Redis;

/// What happens to the key of a session that is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    SwapToAnotherUser,
    SwapToNobody,
    SwapToAndFro,
    Reload,
    FlushAndRestore,
    RestoreOver,
    FollowAndLead,
    RenameOver,
    RenameAway,
    Move,
    CopyOver,
    Evict,
    ExpireInThePast,
    ExpireUnswept,
    FlushAsync,
    StoreOver,
    RemoveField,
    /// Of a session that is text.
    SetRange,
    GetAndDelete,
    BitField,
}

impl Way {
    const ALL: [Way; 20] = [
        Way::SwapToAnotherUser,
        Way::SwapToNobody,
        Way::SwapToAndFro,
        Way::Reload,
        Way::FlushAndRestore,
        Way::RestoreOver,
        Way::FollowAndLead,
        Way::RenameOver,
        Way::RenameAway,
        Way::Move,
        Way::CopyOver,
        Way::Evict,
        Way::ExpireInThePast,
        Way::ExpireUnswept,
        Way::FlushAsync,
        Way::StoreOver,
        Way::RemoveField,
        Way::SetRange,
        Way::GetAndDelete,
        Way::BitField,
    ];

    fn is_text(self) -> bool {
        matches!(self, Way::SetRange | Way::GetAndDelete | Way::BitField)
    }

    /// Writes the session, and what will replace it.
    async fn prepare(self, redis: &mut MultiplexedConnection) {
        let (old, new) = (old_user("s"), new_user("s"));
        match self {
            Way::SwapToAnotherUser | Way::SwapToAndFro => {
                send(redis, "SELECT 1").await;
                put(redis, "s", &new, HOUR).await;
                send(redis, "SELECT 0").await;
            }
            Way::Reload => {
                put(redis, "s", &new, HOUR).await;
                send(redis, "SAVE").await;
            }
            _ => put(redis, "other", &new, HOUR).await,
        }
        match self.is_text() {
            true => send(redis, &format!("SET session:s {{\"user_id\":\"{old}\"}}")).await,
            false => put(redis, "s", &old, HOUR).await,
        }
    }

    /// What is sent to Redis, where that is all.
    fn commands(self) -> &'static [&'static str] {
        match self {
            Way::SwapToAnotherUser | Way::SwapToNobody | Way::SwapToAndFro => &["SWAPDB 0 1"],
            Way::Reload => &["DEBUG RELOAD NOSAVE"],
            Way::FlushAndRestore | Way::RestoreOver | Way::FollowAndLead => &[],
            Way::RenameOver => &["RENAME session:other session:s"],
            Way::RenameAway => &["RENAME session:s away"],
            Way::Move => &["MOVE session:s 1"],
            Way::CopyOver => &["COPY session:other session:s REPLACE"],
            Way::Evict => &["CONFIG SET maxmemory-policy allkeys-random", "CONFIG SET maxmemory 1"],
            Way::ExpireInThePast => &["EXPIREAT session:s 1"],
            Way::ExpireUnswept => &["DEBUG SET-ACTIVE-EXPIRE 0", "PEXPIRE session:s 20"],
            Way::FlushAsync => &["FLUSHALL ASYNC"],
            Way::StoreOver => &["SADD members a", "SUNIONSTORE session:s members"],
            Way::RemoveField => &["HDEL session:s user_id"],
            Way::SetRange => &["SETRANGE session:s 12 new"],
            Way::GetAndDelete => &["GETDEL session:s"],
            Way::BitField => &["BITFIELD session:s SET u24 96 7234935"], // "new"
        }
    }

    /// Lets it happen; whom requests are told from then on.
    async fn happen(self, redis: &mut MultiplexedConnection, other: &Redis) -> String {
        match self {
            Way::FlushAndRestore | Way::RestoreOver => {
                let dump: Vec<u8> = redis::cmd("DUMP").arg("session:other").query_async(redis).await.unwrap();
                let mut both = redis::pipe();
                if self == Way::FlushAndRestore {
                    both.atomic().cmd("FLUSHALL");
                }
                both.cmd("RESTORE").arg("session:s").arg(0).arg(dump).arg("REPLACE");
                let _: redis::Value = both.query_async(redis).await.unwrap();
            }
            Way::FollowAndLead => {
                let () = other.command("CONFIG", &["SET", "repl-diskless-sync-delay", "0"][..]).await;
                put(&mut other.connect().await, "s", &new_user("s"), HOUR).await;
                send(redis, &format!("REPLICAOF 127.0.0.1 {}", other.address().port())).await;
                sleep(Duration::from_millis(50)).await; // an operator who has thought better of it
                send(redis, "REPLICAOF NO ONE").await;
            }
            _ => {
                for command in self.commands() {
                    send(redis, command).await;
                }
            }
        }
        if self == Way::ExpireUnswept {
            sleep(Duration::from_millis(20)).await; // and whoever asked Redis would have it removed
            return NOBODY.to_owned();
        }
        if self.is_text() {
            let text: Option<String> = redis::cmd("GET").arg("session:s").query_async(redis).await.unwrap();
            return text.map_or(NOBODY, |_| "new-s").to_owned();
        }
        let user = redis::cmd("HGET").arg("session:s").arg("user_id").to_owned();
        let user: redis::RedisResult<Option<String>> = user.query_async(redis).await;
        user.unwrap_or_default().unwrap_or_else(|| NOBODY.to_owned())
    }
}

async fn send(redis: &mut MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    let mut sent = redis::cmd(words.next().unwrap());
    let sent = sent.arg(words.collect::<Vec<_>>()).query_async::<redis::Value>(redis).await;
    sent.unwrap_or_else(|error| panic!("{command}: {error}"));
}

/// How long anybody else is told than whom the store says after it has happened.
async fn try_once(way: Way) -> Duration {
    let options = &["--enable-debug-command", "local"];
    let (redis, other, instance) = (Redis::start_with(options).await, Redis::start().await, mirror());
    let mut connection = redis.connect().await;
    way.prepare(&mut connection).await;
    let format = if way.is_text() { "format = \"json\"" } else { "" };
    let program = vestibule(&instance, &redis.url(), "idle_timeout = \"off\"", format).await;
    let watch = Watch::start(program.address, &["s"]);
    sleep(Duration::from_millis(200)).await; // it is cached
    let mut owner = way.happen(&mut connection, &other).await;
    let mut happened = Instant::now();
    if way == Way::SwapToAndFro {
        for _ in 0..4 {
            sleep(BOUND / 4).await; // the one before is known, or not
            owner = way.happen(&mut connection, &other).await;
            happened = Instant::now();
        }
    }
    sleep(BOUND + Duration::from_millis(400)).await; // what is promised has come true
    let account = watch.end().await;
    let wrong = account.of("s").filter(|told| told.user().is_some_and(|user| user != owner));
    wrong.map(|told| told.begun.saturating_duration_since(happened)).max().unwrap_or_default()
}

#[tokio::test]
async fn whatever_happens_to_a_key_counts_in_time() {
    let (mut tries, mut late) = (JoinSet::new(), Vec::new());
    for way in Way::ALL.into_iter().cycle().take(Way::ALL.len() * rounds(1, 50)) {
        tries.spawn(async move { (way, try_once(way).await) });
        if tries.len() >= 4 {
            late.push(tries.join_next().await.unwrap().unwrap());
        }
    }
    late.extend(tries.join_all().await);
    let mut broken = Vec::new();
    for way in Way::ALL {
        let own: Vec<Duration> = late.iter().filter(|(own, _)| *own == way).map(|(_, time)| *time).collect();
        let too_long = own.iter().filter(|time| **time > BOUND).count();
        report("unannounced", format!("{way:?}: {too_long} too long; honoured for {}", Spread::of(own)));
        if too_long > 0 {
            broken.push(way);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}
