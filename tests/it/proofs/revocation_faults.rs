//! Whatever happens to the store or to the way to it while a session changes, the change counts in time, or
//! requests are refused.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::revocations::{Change, MAX_STALENESS, new_user, old_user, put, vestibule};
use super::{Pace, report, scaled};
use crate::support::asker::{Asker, Told, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;

/// Sessions used while something goes wrong.
const SESSIONS: usize = 10;
/// How long after a fault requests may still be refused.
const MAX_RECOVERY: Duration = Duration::from_millis(1_400);

/// What goes wrong while a session changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Silence,
    NoRequests,
    NoReplies,
    Delays,
    LateChanges,
    Cut,
    Frozen,
    Restarted,
}

impl Trouble {
    const ALL: [Trouble; 8] = [
        Trouble::Silence,
        Trouble::NoRequests,
        Trouble::NoReplies,
        Trouble::Delays,
        Trouble::LateChanges,
        Trouble::Cut,
        Trouble::Frozen,
        Trouble::Restarted,
    ];

    /// Brings it about, with all sessions of another user; returns when their acknowledgement was there.
    async fn strike(self, redis: &mut Redis, fault: &Fault, sessions: usize) -> Instant {
        let delay = Duration::from_millis(200);
        match self {
            Trouble::Silence => fault.set(Rules::SILENT),
            Trouble::NoRequests => fault.set(Rules { holds_requests: true, ..Rules::default() }),
            Trouble::NoReplies => fault.set(Rules { holds_replies: true, ..Rules::default() }),
            Trouble::Delays => {
                fault.set(Rules { delays_look_ups: delay, delays_changes: delay, ..Rules::default() });
            }
            Trouble::LateChanges => fault.set(Rules { delays_changes: 2 * delay, ..Rules::default() }),
            Trouble::Cut => fault.cut(),
            Trouble::Frozen => redis.freeze(),
            Trouble::Restarted => redis.restart().await,
        }
        if self == Trouble::Frozen {
            sleep(MAX_STALENESS / 2).await; // it acknowledges nothing meanwhile
            redis.thaw();
        }
        let mut connection = redis.connect().await;
        for number in 0..sessions {
            Change::OfAnotherUser.make(&mut connection, &format!("s{number}")).await;
        }
        Instant::now()
    }
}

/// Uses all sessions in turn until told to stop.
async fn use_all(address: SocketAddr, sessions: usize, over: watch::Receiver<bool>) -> Vec<(usize, Told)> {
    let (mut asker, mut all) = (Asker::connect(address).await, Vec::new());
    while !*over.borrow() {
        for number in 0..sessions {
            let told = asker.ask(&format!("s{number}")).await;
            all.push((number, told));
            sleep(Duration::from_millis(2)).await; // leave the machine to the others
        }
    }
    all
}

#[tokio::test]
async fn whatever_goes_wrong_a_change_counts_in_time_or_requests_are_refused() {
    let mut troubles = JoinSet::new();
    for trouble in Trouble::ALL {
        troubles.spawn(survive(trouble));
        while troubles.len() >= scaled(4, 1) {
            troubles.join_next().await.unwrap().unwrap();
        }
    }
    troubles.join_all().await;
}

async fn survive(trouble: Trouble) {
    let (mut redis, instance, pace) = (Redis::start().await, mirror(), Pace::start());
    let fault = Fault::before(redis.address()).await;
    let program = vestibule(&instance, &fault.url(), "").await;
    let mut connection = redis.connect().await;
    for number in 0..SESSIONS {
        put(&mut connection, &format!("s{number}")).await;
    }
    redis.save().await;
    let (over, is_over) = watch::channel(false);
    let mut users = JoinSet::new();
    for _ in 0..scaled(2, 8) {
        users.spawn(use_all(program.address, SESSIONS, is_over.clone()));
    }
    sleep(Duration::from_millis(200)).await; // all are cached
    let counts = trouble.strike(&mut redis, &fault, SESSIONS).await;
    sleep(MAX_STALENESS + Duration::from_millis(300)).await; // what is promised has come true
    fault.set(Rules::default());
    let ended = Instant::now();
    sleep(MAX_RECOVERY + Duration::from_millis(100)).await;
    over.send_replace(true);
    let all: Vec<(usize, Told)> = users.join_all().await.into_iter().flatten().collect();
    check(trouble, &all, counts, ended, &pace);
}

/// Nobody is told another user's name, nor the old one too late; nobody is logged out; all are served in the end.
fn check(trouble: Trouble, all: &[(usize, Told)], counts: Instant, ended: Instant, pace: &Pace) {
    let (mut late, mut recovery, mut refused, mut longest) =
        (Duration::ZERO, Duration::ZERO, 0, Duration::ZERO);
    for (number, told) in all {
        let id = format!("s{number}");
        assert!(!told.clears_cookie, "{trouble:?}: {told:?}");
        longest = longest.max(told.took);
        match told.user() {
            Some(user) if user == old_user(&id) => {
                late = late.max(told.begun.saturating_duration_since(counts))
            }
            Some(user) => assert_eq!(user, new_user(&id), "{trouble:?}"),
            None => {
                refused += 1;
                recovery = recovery.max(told.begun.saturating_duration_since(ended));
            }
        }
    }
    report(
        "revocations",
        format!(
            "{trouble:?}: {} asked, old user for {late:.2?}, {refused} refused, longest {longest:.2?}, last refusal {recovery:.2?} after its end",
            all.len()
        ),
    );
    assert!(late <= MAX_STALENESS, "{trouble:?}: the old user was told for {late:?}");
    assert!(pace.net(ended, recovery) <= MAX_RECOVERY, "{trouble:?}: refused for {recovery:?}");
    let served_in_the_end = all.iter().any(|(_, told)| told.begun > ended && told.status == 200);
    assert!(served_in_the_end, "{trouble:?}: nobody was served afterwards");
}
