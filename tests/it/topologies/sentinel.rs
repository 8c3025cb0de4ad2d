use vestibule::proxy::drill;

use super::{Crowd, DISBELIEF, is_served, start, until_served};
use crate::proofs::Pace;
use crate::support::redis::patient;
use crate::support::redis_sentinel::{Sentinels, until};

async fn with_session(user: &str) -> Sentinels {
    let sentinels = Sentinels::start().await;
    let primary = sentinels.primary().await;
    primary.put_session(user, &[("user_id", user)]).await;
    // Sentinels are not configured to wait, so the test does.
    let client = redis::Client::open(primary.url()).unwrap();
    let mut connection = patient(&client).await.unwrap();
    let () = redis::cmd("SET").arg("marker").arg(1).query_async(&mut connection).await.unwrap();
    let acknowledged: usize = redis::cmd("WAIT").arg(2).arg(4000).query_async(&mut connection).await.unwrap();
    assert_eq!(acknowledged, 2);
    sentinels
}

#[tokio::test]
async fn the_death_of_the_primary_is_503_until_another_one_takes_over() {
    let mut sentinels = with_session("ann").await;
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    until_served(&proxy, "ann", true).await;
    let crowd = Crowd::start(&proxy, &["ann"]);
    let before = sentinels.named(0).await;
    sentinels.redis[0].stop();
    until_served(&proxy, "ann", false).await;
    sentinels.until_replaced(before).await;
    until_served(&proxy, "ann", true).await;
    // An old primary that comes back knows nothing of all this, and nobody asks it.
    sentinels.redis[0].restart().await;
    for _ in 0..50 {
        assert!(is_served(proxy.address(), "ann").await);
    }
    let (served, refused) = crowd.end().await;
    assert!(served > 5 && refused > 0, "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_planned_failover_is_followed_at_once() {
    let sentinels = with_session("ann").await;
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    until_served(&proxy, "ann", true).await;
    let old = sentinels.primary().await;
    sentinels.failover().await;
    let new = sentinels.primary().await;
    assert_ne!(old.address(), new.address());
    new.put_session("bob", &[("user_id", "bob")]).await;
    let (pace, asked) = (Pace::start(), std::time::Instant::now());
    loop {
        let response = proxy.get("/", &[("Cookie", "session-id=bob")]).await;
        if (response.status, response.text()) == (200, "bob") {
            break;
        }
        assert!(pace.since(asked) < DISBELIEF, "{}", response.text());
    }
}

#[tokio::test]
async fn a_minority_of_the_sentinels_is_not_believed() {
    let mut sentinels = with_session("ann").await;
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    until_served(&proxy, "ann", true).await;
    // One that names another server is outvoted.
    sentinels.mislead(2, &sentinels.redis[1]).await;
    for _ in 0..100 {
        assert!(is_served(proxy.address(), "ann").await);
    }
    // Without the other ones nobody may say which primary is the right one, though it answers.
    sentinels.stop_sentinel(1);
    sentinels.freeze_sentinel(0);
    tokio::time::sleep(DISBELIEF).await;
    for _ in 0..20 {
        assert!(!is_served(proxy.address(), "ann").await);
    }
}

#[tokio::test]
async fn a_frozen_primary_is_replaced_and_not_believed_when_it_thaws() {
    let sentinels = with_session("ann").await;
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    until_served(&proxy, "ann", true).await;
    let (old, before) = (&sentinels.redis[0], sentinels.named(0).await);
    old.freeze();
    sentinels.until_replaced(before).await;
    until_served(&proxy, "ann", true).await;
    let () = sentinels.primary().await.command("DEL", "session:ann").await;
    let answer = async || {
        let response = proxy.get("/", &[("Cookie", "session-id=ann")]).await;
        (response.status, response.text().to_owned())
    };
    let nobody = (200, "nobody".to_owned());
    until("the end of the session", async || answer().await == nobody).await;
    old.thaw();
    // The old one still has the session, until the sentinels make it a replica.
    for _ in 0..50 {
        assert_eq!(answer().await, nobody);
    }
}

#[tokio::test]
async fn it_starts_without_sentinels_and_finds_them_later() {
    let sentinels = with_session("ann").await;
    (0..3).for_each(|index| sentinels.freeze_sentinel(index));
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    assert!(!is_served(proxy.address(), "ann").await);
    (0..3).for_each(|index| sentinels.thaw_sentinel(index));
    until_served(&proxy, "ann", true).await;
}

#[tokio::test]
async fn a_rehearsed_cut_takes_the_sentinels_away_as_well_and_gives_all_back() {
    let sentinels = with_session("ann").await;
    let (_upstream, proxy) = start(&sentinels.url(), "").await;
    until_served(&proxy, "ann", true).await;
    let order = drill::DrillRequest { target: drill::Target::Store, time: drill::LONGEST };
    let id = proxy.handle.drill(order).await.unwrap();
    until_served(&proxy, "ann", false).await;
    assert!(!is_served(proxy.address(), "ann").await);
    proxy.handle.end_drill(id).await.unwrap();
    until_served(&proxy, "ann", true).await;
}
