//! Using a session keeps it alive, within its limits, and never changes anything else about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use vestibule::session::Resolution;

use super::{connected, hash, id, redis_with_session, resolve, resolver};
use crate::support::redis::Redis;

const IDLE: Duration = Duration::from_secs(1000);

/// Seconds left after a resolution of a session that had `before` left.
async fn ttl_after_use(redis: &Redis, before: i64, idle: Option<Duration>) -> i64 {
    let () = redis.command("EXPIRE", ("session:there", before)).await;
    let resolver = resolver(connected(&hash(&redis.url())).await, idle);
    assert!(matches!(resolve(&resolver, "there").await, Resolution::Active(_)));
    redis.command("TTL", "session:there").await
}

#[tokio::test]
async fn a_session_in_use_is_renewed_to_the_idle_timeout() {
    let redis = redis_with_session().await;
    let ttl = ttl_after_use(&redis, 100, Some(IDLE)).await;
    assert!((990..=1000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_session_renewed_just_now_is_not_written_again() {
    let redis = redis_with_session().await;
    let ttl = ttl_after_use(&redis, 950, Some(IDLE)).await;
    assert!((940..=950).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_longer_ttl_is_not_shortened() {
    let redis = redis_with_session().await;
    let ttl = ttl_after_use(&redis, 5000, Some(IDLE)).await;
    assert!((4990..=5000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn without_an_idle_timeout_the_ttl_is_not_even_asked_for() {
    let redis = redis_with_session().await;
    let ttl = ttl_after_use(&redis, 100, None).await;
    assert!((90..=100).contains(&ttl), "{ttl}");
    let stats: String = redis.command("INFO", "commandstats").await;
    assert!(stats.contains("cmdstat_hgetall:"), "{stats}");
    assert!(!stats.contains("cmdstat_pttl:"), "{stats}");
}

#[tokio::test]
async fn a_session_without_ttl_gets_none() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    store.renew(&id("there"), IDLE).await.unwrap();
    let resolver = resolver(store, Some(IDLE));
    assert!(matches!(resolve(&resolver, "there").await, Resolution::Active(_)));
    assert_eq!(redis.command::<i64>("TTL", "session:there").await, -1);
}

#[tokio::test]
async fn a_session_is_not_renewed_beyond_its_own_end() {
    let redis = redis_with_session().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    redis.put_session("there", &[("expires", &(now + 300).to_string())]).await;
    let ttl = ttl_after_use(&redis, 100, Some(IDLE)).await;
    assert!((290..=300).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_renewal_that_fails_does_not_fail_the_request() {
    let redis = redis_with_session().await;
    let rule = [
        "SETUSER",
        "reader",
        "on",
        ">pass",
        "~session:*",
        "~vestibule:*",
        "+ping",
        "+get",
        "+hgetall",
        "+pttl",
    ];
    let () = redis.command("ACL", &rule[..]).await;
    let () = redis.command("EXPIRE", ("session:there", 100)).await;
    let url = redis.url().replace("redis://", "redis://reader:pass@");
    let resolver = resolver(connected(&hash(&url)).await, Some(IDLE));
    assert!(matches!(resolve(&resolver, "there").await, Resolution::Active(_)));
    let ttl: i64 = redis.command("TTL", "session:there").await;
    assert!((90..=100).contains(&ttl), "{ttl}");
}

/// Passes everything on to `redis`, except that it knows no `GT`, like Redis 6.
async fn older_server(redis: &Redis) -> String {
    let to = redis.url().trim_start_matches("redis://").trim_end_matches("/0").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    to_server.write_all(text.replace("\r\nGT\r\n", "\r\nZZ\r\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn an_older_server_renews_by_the_same_rules() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&older_server(&redis).await)).await;
    let ttl = || redis.command::<i64>("TTL", "session:there");

    store.renew(&id("there"), IDLE).await.unwrap();
    assert_eq!(ttl().await, -1);
    let () = redis.command("EXPIRE", ("session:there", 100)).await;
    store.renew(&id("there"), IDLE).await.unwrap();
    assert!((990..=1000).contains(&ttl().await));
    store.renew(&id("there"), IDLE / 2).await.unwrap();
    assert!((980..=1000).contains(&ttl().await));
    store.renew(&id("gone"), IDLE).await.unwrap();
    assert_eq!(redis.command::<i64>("EXISTS", "session:gone").await, 0);
    let stats: String = redis.command("INFO", "commandstats").await;
    assert!(stats.contains("cmdstat_eval:calls=4,"), "{stats}");
}
