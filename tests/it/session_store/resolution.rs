//! From headers to a resolution, and what vestibule's own sessions look like.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use vestibule::config::{OnOutage, StoreFormat};
use vestibule::session::{AbsentReason, MAX_SESSION_BYTES, Resolution, Session, Source, Unreadable};

use super::{connected, hash, redis_config, redis_with_session, resolve, resolver, start, user, with_cookie};
use crate::support::redis::Redis;

fn active(resolution: Resolution) -> Arc<Session> {
    match resolution {
        Resolution::Active(session) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_in_the_store_is_active_with_its_user() {
    let redis = redis_with_session().await;
    let resolver = resolver(connected(&hash(&redis.url())).await, None);
    let session = active(resolve(&resolver, "there").await);
    assert_eq!(session.id().expose(), "there");
    assert_eq!(user(&session), "42");
}

#[tokio::test]
async fn json_sessions_keep_their_structure() {
    let redis = Redis::start().await;
    let () = redis.command("SET", ("session:there", r#"{"user":{"id":42},"expires":99999999999}"#)).await;
    let resolver = resolver(connected(&redis_config(&redis.url(), StoreFormat::Json)).await, None);
    let session = active(resolve(&resolver, "there").await);
    assert_eq!(user(&session), "42");
}

#[tokio::test]
async fn a_session_that_was_there_or_is_over_has_ended_and_another_is_unknown() {
    let redis = redis_with_session().await;
    let resolver = resolver(connected(&hash(&redis.url())).await, None);
    assert!(matches!(resolve(&resolver, "never").await, Resolution::Unknown(id) if id.expose() == "never"));
    let _ = active(resolve(&resolver, "there").await);
    let () = redis.command("DEL", "session:there").await;
    assert!(matches!(resolve(&resolver, "there").await, Resolution::Ended(id) if id.expose() == "there"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    redis.put_session("there", &[("expires", &now.to_string())]).await;
    assert!(matches!(resolve(&resolver, "there").await, Resolution::Ended(id) if id.expose() == "there"));
}

#[tokio::test]
async fn a_request_without_a_valid_id_never_asks_the_store() {
    let resolver = resolver(start(&hash("redis://127.0.0.1:1/0")), None);
    for (headers, reason) in [
        (HeaderMap::new(), AbsentReason::NoId),
        (with_cookie("a*b"), AbsentReason::BadId),
        (with_cookie("a; session-id=b; session-id=c; session-id=d; session-id=e"), AbsentReason::Ambiguous),
    ] {
        let resolved = resolver.resolve(&headers, OnOutage::Deny).await;
        assert!(matches!(resolved.outcome, Resolution::Absent(got) if got == reason), "{resolved:?}");
        assert_eq!(resolved.source, Source::Request);
    }
}

#[tokio::test]
async fn a_look_up_is_timed_and_can_run_on_any_thread() {
    let redis = redis_with_session().await;
    let resolver = resolver(connected(&hash(&redis.url())).await, None);
    let resolved = tokio::spawn(async move { resolver.resolve(&with_cookie("there"), OnOutage::Deny).await })
        .await
        .unwrap();
    assert!(matches!(resolved.source, Source::Store(_)));
}

#[tokio::test]
async fn what_cannot_be_read_is_unreadable_and_neither_ended_nor_an_outage() {
    let redis = Redis::start().await;
    let () = redis.command("SET", ("session:text", "{}")).await;
    let () = redis.command("SET", ("session:broken", "{")).await;
    let () = redis.command("SET", ("session:list", "[1]")).await;
    let () = redis.command("HSET", ("session:binary", "user_id", &b"\xff"[..])).await;
    let () = redis.command("HSET", ("session:large", "cart", vec![b'x'; MAX_SESSION_BYTES])).await;
    redis.put_session("odd", &[("expires", "tomorrow")]).await;
    let hashes = resolver(connected(&hash(&redis.url())).await, None);
    let jsons = resolver(connected(&redis_config(&redis.url(), StoreFormat::Json)).await, None);
    for (resolver, id, expected) in [
        (&hashes, "text", Unreadable::WrongType),
        (&hashes, "binary", Unreadable::User),
        (&hashes, "odd", Unreadable::Expires),
        (&hashes, "large", Unreadable::TooLarge),
        (&jsons, "odd", Unreadable::WrongType),
        (&jsons, "broken", Unreadable::NoObject("broken JSON")),
        (&jsons, "list", Unreadable::NoObject("a JSON list")),
    ] {
        let resolution = resolve(resolver, id).await;
        assert!(
            matches!(resolution, Resolution::Unreadable(_, why) if why == expected),
            "{id}: {resolution:?}"
        );
    }
}
