//! What a cached session costs in memory beside what it says.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::{report, scaled};
use crate::support::asker::mirror;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::redis::Redis;
use crate::support::vestibule::Program;

/// Sessions that are cached before the first measurement, so that buffers and pools have their sizes.
const WARM: usize = 2_000;
const CLIENTS: usize = 32;
/// Sessions written to the store by one command.
const BATCH: usize = 1_000;
/// Requests sent at once on one connection.
const AT_ONCE: usize = 16;

/// A session as an application might write it. Ids have as many characters as those that vestibule makes.
const SCRIPT: &str = "for n = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do \
     local key = string.format('session:%043d', n) \
     redis.call('HSET', key, 'user_id', string.format('user-%08d', n), 'name', string.format('Some Body %08d', n), \
         'email', string.format('some.body.%08d@example.com', n), 'roles', 'reader,writer,admin', \
         'tenant_id', string.format('tenant-%08d', n), 'csrf', string.format('%032d', n)) \
     redis.call('PEXPIRE', key, 1800000) end";
/// Bytes of the names and values above.
const RECORD: usize = 7 + 13 + 4 + 18 + 5 + 30 + 5 + 19 + 9 + 15 + 4 + 32;
/// What may come to them, in bytes.
const OVERHEAD: f64 = 400.0;

#[tokio::test]
async fn a_cached_session_costs_little_more_than_what_it_says() {
    let sessions = scaled(5_000, 1_000_000);
    let (redis, instance) = (Redis::start().await, mirror());
    for from in (0..WARM + sessions).step_by(BATCH) {
        let () = redis.command("EVAL", (SCRIPT, 0, from, (from + BATCH).min(WARM + sessions))).await;
    }
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session.cache]\nmax_entries = 4000000\nmax_bytes = \"2GiB\"\n\
         [session.store]\nurl = \"{}\"\nwait_timeout = \"1m\"\nresponse_timeout = \"1m\"",
        redis.url()
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    program.wait_for_fresh_cache().await;
    use_all(program.address, 0, WARM).await;
    let before = program.process.memory("VmRSS");
    use_all(program.address, WARM, WARM + sessions).await;
    let after = program.process.memory("VmRSS");
    let cached = metrics::read(program.admin, "session_cache_entries", "").await;
    assert_eq!(cached, (WARM + sessions) as f64, "all are kept");
    let each = (after - before) as f64 / sessions as f64;
    let overhead = each - RECORD as f64;
    report(
        "memory of sessions",
        format!(
            "{sessions} of {RECORD} bytes: {} MiB more, {each:.0} bytes each, {overhead:.0} beside the record; {:.0} by the \
             cache's own estimate",
            (after - before) >> 20,
            metrics::read(program.admin, "session_cache_bytes", "").await / cached
        ),
    );
    assert!(overhead <= scaled(3.0, 1.0) * OVERHEAD, "{overhead}");
}

/// Asks once with each of the sessions.
async fn use_all(address: SocketAddr, from: usize, to: usize) {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let own: Vec<usize> = (from + number..to).step_by(CLIENTS).collect();
            for some in own.chunks(AT_ONCE) {
                let requests: String = some
                    .iter()
                    .map(|n| {
                        format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: session-id={n:043}\r\n\r\n")
                    })
                    .collect();
                client.send(requests).await;
                for n in some {
                    assert_eq!(client.response().await.text(), format!("user-{n:08}"));
                }
            }
        });
    }
    clients.join_all().await;
}
