use std::time::{Duration, Instant};

use vestibule::session::{Lookup, SessionId, StoreError, Ttl};

use super::{Crowd, DISBELIEF, is_served, replicated, start, until_served};
use crate::proofs::Pace;
use crate::session_store::{connected, fields, hash};
use crate::support::redis_cluster::Cluster;
use crate::support::within;

const HOUR: Duration = Duration::from_secs(3600);

const USERS: [&str; 6] = ["ann", "bob", "cid", "dan", "eve", "fay"];

async fn with_sessions() -> Cluster {
    let cluster = Cluster::start().await;
    for user in USERS {
        cluster.put_session(user, &[("user_id", user)]).await;
    }
    cluster
}

/// A user whose session is at this node.
async fn user_at(cluster: &Cluster, node: usize) -> &'static str {
    for user in USERS {
        if cluster.owner(&format!("session:{user}")).await.address() == cluster.nodes[node].address() {
            return user;
        }
    }
    panic!("no session is at node {node}");
}

#[tokio::test]
async fn sessions_are_found_wherever_they_are() {
    let cluster = with_sessions().await;
    let (_upstream, proxy) = start(&cluster.url(), "").await;
    for user in USERS {
        until_served(&proxy, user, true).await;
    }
    for _ in 0..10 {
        for user in USERS {
            assert!(is_served(proxy.address(), user).await, "{user}");
        }
    }
}

#[tokio::test]
async fn the_death_of_a_master_is_503_for_its_sessions_until_its_replica_takes_over() {
    let mut cluster = with_sessions().await;
    let (_upstream, proxy) = start(&cluster.url(), "").await;
    for user in USERS {
        until_served(&proxy, user, true).await;
    }
    let user = user_at(&cluster, 0).await;
    let crowd = Crowd::start(&proxy, &USERS);
    replicated(&cluster.nodes[0], 1).await;
    cluster.nodes[0].stop();
    until_served(&proxy, user, false).await;
    until_served(&proxy, user, true).await;
    for user in USERS {
        until_served(&proxy, user, true).await;
    }
    let (served, refused) = crowd.end().await;
    assert!(served > 5 && refused > 0, "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_moving_slot_keeps_answering() {
    let cluster = with_sessions().await;
    let user = user_at(&cluster, 0).await;
    let (_upstream, proxy) = start(&cluster.url(), "").await;
    until_served(&proxy, user, true).await;
    let (key, from, to) = (format!("session:{user}"), &cluster.nodes[0], &cluster.nodes[1]);
    let slot = cluster.slot(&key).await;
    let crowd = Crowd::start(&proxy, &[user]);
    // The proxy remembers; this one asks each time, also for what is at neither node.
    let store = connected(&hash(&cluster.url())).await;
    let (pace, begun) = (Pace::start(), Instant::now());
    let is_there = async || {
        for _ in 0..50 {
            let answer = confirmed(&pace, async || store.load(&SessionId::new(user), true).await).await;
            assert!(matches!(answer, Ok(Lookup::Found(_))), "{answer:?}");
        }
    };
    is_there().await;
    Cluster::begin_move(slot, from, to).await;
    is_there().await;
    Cluster::move_key(&key, from, to).await;
    is_there().await;
    // A key that is at neither node is made at the new one.
    let new = SessionId::new(&cluster.name_in(slot, "session:").await);
    confirmed(&pace, async || store.create(&new, fields("new"), HOUR).await).await.unwrap();
    confirmed(&pace, async || store.renew(&new, 2 * HOUR).await).await.unwrap();
    let answer = confirmed(&pace, async || store.load(&new, true).await).await;
    assert!(matches!(answer, Ok(Lookup::Found(_))), "{answer:?}");
    assert_eq!(confirmed(&pace, async || store.end(&new).await).await, Ok(true));
    Cluster::end_move(slot, from, to).await;
    is_there().await;
    let (served, refused) = crowd.end().await;
    let is_kept = pace.kept(begun, Instant::now()) > CONFIRMED_WITHIN;
    assert!(served > 10 && (refused == 0 || is_kept), "{served} served, {refused} refused");
}

/// How soon a server has to say that it is a primary still: who had no processor for so long is not believed.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(250);

/// Retries a request that failed only because the machine kept nodes from replying in time.
async fn confirmed<T>(pace: &Pace, ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    within("a confirmed answer", async {
        loop {
            let begun = Instant::now();
            match ask().await {
                Err(StoreError::PrimaryDown)
                    if pace.kept(begun.checked_sub(DISBELIEF).unwrap(), Instant::now())
                        > CONFIRMED_WITHIN => {}
                answer => return answer,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_slot_moves_to_a_node_that_had_none() {
    let mut cluster = with_sessions().await;
    let user = user_at(&cluster, 0).await;
    let (_upstream, proxy) = start(&cluster.url(), "").await;
    until_served(&proxy, user, true).await;
    cluster.grow().await;
    let (key, from, to) = (format!("session:{user}"), &cluster.nodes[0], cluster.nodes.last().unwrap());
    let slot = cluster.slot(&key).await;
    Cluster::begin_move(slot, from, to).await;
    Cluster::move_key(&key, from, to).await;
    until_served(&proxy, user, true).await;
    Cluster::end_move(slot, from, to).await;
    until_served(&proxy, user, true).await;
}

#[tokio::test]
async fn sessions_are_created_renewed_and_ended_where_they_belong() {
    let cluster = with_sessions().await;
    let store = connected(&hash(&cluster.url())).await;
    let id = SessionId::new;
    for user in USERS {
        let (old, new) = (id(user), id(&format!("new-{user}")));
        store.create(&new, fields(user), HOUR).await.unwrap();
        store.renew(&new, 2 * HOUR).await.unwrap();
        let record = store.load(&new, true).await.unwrap().found().unwrap();
        assert!(matches!(record.ttl, Ttl::Left(left) if left > HOUR), "{record:?}");
        assert_eq!(store.end(&new).await, Ok(true));
        assert!(store.load(&new, false).await.unwrap().found().is_none());
        assert!(store.load(&old, false).await.unwrap().found().is_some());
    }
    store.ping().await.unwrap();
}
