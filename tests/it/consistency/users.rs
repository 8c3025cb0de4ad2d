//! When a user was answered to be revoked, no session of that user goes on anywhere: not one seen a moment ago, nor
//! one that is being looked up; and who logs in afterwards is welcome.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::{HOUR, config, old_user, owner, put, revoke};
use crate::proofs::{report, rounds};
use crate::support::asker::{Asker, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// Sessions of one user.
const SESSIONS: usize = 20;
/// How long before the revocation they were seen for the first time, in milliseconds.
const SEEN_BEFORE: [u64; 6] = [0, 5, 20, 50, 90, 150];

/// Two vestibules, the second over a wire.
struct House {
    redis: MultiplexedConnection,
    fault: Fault,
    programs: [Program; 2],
    server: Redis,
    _instance: Service,
}

/// What came of all revocations.
#[derive(Default)]
struct Tally {
    revoked: usize,
    accepted: usize,
    tried: usize,
    survived: usize,
}

impl House {
    async fn start(tables: &str) -> Self {
        let (server, instance) = (Redis::start().await, mirror());
        let fault = Fault::before(server.address()).await;
        let one = Program::start(config(&instance, &server.url(), "", tables)).await;
        let two = Program::start(config(&instance, &fault.url(), "", tables)).await;
        let house =
            Self { redis: server.connect().await, fault, programs: [one, two], server, _instance: instance };
        let mut connection = house.redis.clone();
        put(&mut connection, "first", &old_user("first"), HOUR).await;
        for program in &house.programs {
            let mut asker = Asker::connect(program.address).await;
            within("the store", async { while asker.ask("first").await.user().is_none() {} }).await;
        }
        house
    }

    async fn askers(&self, program: usize) -> Vec<Asker> {
        join_all((0..SESSIONS).map(|_| Asker::connect(self.programs[program].address))).await
    }

    /// How many sessions the store has been asked for.
    async fn look_ups(&self) -> u64 {
        self.server.all_calls().await.get("hgetall").copied().unwrap_or_default()
    }

    /// Revokes a user over one of the vestibules, and asks all for the sessions if they should have ended.
    async fn revoke(&mut self, user: &str, through: usize, ids: &[String], tally: &mut Tally) {
        let answer = revoke(self.programs[through].admin, "user", user).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        tally.revoked += usize::from(answer.status == 200);
        tally.accepted += usize::from(answer.status == 202);
        tally.tried += ids.len();
        if answer.status == 200 {
            let survivors = self.honoured(user, ids).await;
            sleep(Duration::from_millis(200)).await; // what was under way has ended
            tally.survived += survivors.max(self.honoured(user, ids).await);
        } else {
            assert!(!answer.reason.is_empty(), "{answer:?}");
        }
        let late = format!("{user}-again");
        put(&mut self.redis, &late, user, HOUR).await;
        for program in &self.programs {
            let seen = owner(&mut Asker::connect(program.address).await, &late).await;
            assert_eq!(seen, user, "who logs in again is welcome");
        }
    }

    /// How many of these sessions any vestibule honours as this user's.
    async fn honoured(&self, user: &str, ids: &[String]) -> usize {
        let mut honoured = 0;
        let mut askers = Vec::new();
        for program in &self.programs {
            askers.push(Asker::connect(program.address).await);
        }
        for id in ids {
            let mut is_honoured = false;
            for asker in &mut askers {
                is_honoured |= owner(asker, id).await == user;
            }
            honoured += usize::from(is_honoured);
        }
        honoured
    }

    /// Sessions of a user.
    async fn put_all(&mut self, user: &str) -> Vec<String> {
        let ids: Vec<String> = (0..SESSIONS).map(|session| format!("{user}-{session}")).collect();
        for id in &ids {
            put(&mut self.redis, id, user, HOUR).await;
        }
        ids
    }
}

impl Tally {
    fn report(&self, what: &str) {
        let Self { revoked, accepted, tried, survived } = self;
        report(
            "users",
            format!(
                "{what}: {survived} of {tried} sessions survived; {revoked} revoked, {accepted} accepted"
            ),
        );
    }
}

/// Asks with each session over its own connection, all at once.
async fn see(askers: &mut [Asker], ids: &[String], user: &str) {
    let asked = askers.iter_mut().zip(ids).map(|(asker, id)| owner(asker, id));
    for seen in join_all(asked).await {
        assert_eq!(seen, user);
    }
}

async fn none_survives(what: &str, tables: &str) {
    let mut house = House::start(tables).await;
    let mut all = Vec::new();
    for before in SEEN_BEFORE {
        for (seen_by, through) in [(0, 0), (0, 1)] {
            let mut tally = Tally::default();
            for number in 0..rounds(2, 9) {
                let user = format!("u{before}-{through}-{number}");
                let ids = house.put_all(&user).await;
                let mut askers = house.askers(seen_by).await;
                see(&mut askers, &ids, &user).await;
                sleep(Duration::from_millis(before)).await; // as long as the proof says
                house.revoke(&user, through, &ids, &mut tally).await;
            }
            let through = if seen_by == through { "the same" } else { "another" };
            tally.report(&format!("{what}, seen {before} ms before, through {through}"));
            all.push(tally);
        }
    }
    assert_eq!(all.iter().map(|tally| tally.survived).sum::<usize>(), 0);
    assert!(all.iter().any(|tally| tally.revoked > 0));
}

#[tokio::test]
async fn sessions_seen_just_before_end_with_their_user() {
    none_survives("cached", "").await;
}

#[tokio::test]
async fn sessions_end_with_their_user_where_nothing_is_cached() {
    none_survives("not cached", "[session.cache]\nenabled = false").await;
}

/// Sessions of one user that are given to another, and used by that one: from then on they are known as theirs.
#[tokio::test]
async fn sessions_that_changed_hands_end_with_the_user_they_are_of() {
    let (mut house, mut tally) = (House::start("").await, Tally::default());
    for number in 0..rounds(5, 50) {
        let (former, user) = (format!("f{number}"), format!("u{number}"));
        let ids = house.put_all(&former).await;
        let mut askers = house.askers(0).await;
        see(&mut askers, &ids, &former).await;
        sleep(Duration::from_millis(300)).await; // whatever is noted of them has been noted
        for id in &ids {
            put(&mut house.redis, id, &user, HOUR).await;
        }
        join_all(askers.iter_mut().zip(&ids).map(async |(asker, id)| {
            within("the change", async { while asker.ask(id).await.user() != Some(&user) {} }).await;
        }))
        .await;
        sleep(Duration::from_millis([0, 20, 150][number % 3])).await; // at any point of what follows
        house.revoke(&user, number % 2, &ids, &mut tally).await;
    }
    tally.report("changed hands");
    assert_eq!(tally.survived, 0);
    assert!(tally.revoked > 0);
}

#[tokio::test]
async fn sessions_that_are_being_looked_up_end_with_their_user() {
    let mut house = House::start("").await;
    let mut all = Tally::default();
    for number in 0..rounds(6, 50) {
        let user = format!("u{number}");
        let ids = house.put_all(&user).await;
        let mut askers = house.askers(1).await;
        house.fault.set(Rules { delays_look_ups: Duration::from_millis(120), ..Rules::default() });
        let before = house.look_ups().await;
        let asked = join_all(askers.iter_mut().zip(&ids).map(|(asker, id)| asker.ask(id)));
        let revoked = async {
            within("the look-ups", async { while house.look_ups().await < before + ids.len() as u64 {} })
                .await;
            sleep(Duration::from_millis(fastrand::u64(..100))).await; // at any point of what follows
            revoke(house.programs[number % 2].admin, "user", &user).await
        };
        let (_, answer) = tokio::join!(asked, revoked);
        all.tried += ids.len();
        if answer.status == 200 {
            all.revoked += 1;
            all.survived += house.honoured(&user, &ids).await;
        } else {
            assert_eq!(answer.status, 202, "{answer:?}");
            all.accepted += 1;
        }
        house.fault.set(Rules::default());
    }
    all.report("being looked up");
    assert_eq!(all.survived, 0);
}

/// With the rights that the README asks for, a user's sessions are found and end; nothing is said to be missing.
#[tokio::test]
async fn the_rights_that_the_readme_names_are_all_that_it_takes() {
    let (server, instance) = (Redis::start().await, mirror());
    let readme = include_str!("../../../README.md");
    let rule = readme.lines().find_map(|line| line.strip_prefix("ACL SETUSER vestibule on >… ")).unwrap();
    let rules = ["SETUSER", "vestibule", "on", ">pass", "resetchannels"].into_iter().chain(rule.split(' '));
    let () = server.command("ACL", rules.collect::<Vec<_>>()).await;
    let url = server.url().replace("redis://", "redis://vestibule:pass@");
    let program = Program::start(config(&instance, &url, "", "")).await;
    program.wait_for_fresh_cache().await;
    let mut connection = server.connect().await;
    put(&mut connection, "s", "ada", HOUR).await;
    let mut asker = Asker::connect(program.address).await;
    assert_eq!(owner(&mut asker, "s").await, "ada");
    let answer = revoke(program.admin, "user", "ada").await;
    assert_eq!((answer.status, answer.sessions), (200, 1), "{answer:?}");
    assert_ne!(owner(&mut asker, "s").await, "ada");
    for missing in ["the session store's user may not", "the session store reports no changes"] {
        assert!(program.said(missing).is_empty(), "{missing}");
    }
    let refused: Vec<redis::Value> = server.command("ACL", "LOG").await;
    assert!(refused.is_empty(), "{refused:?}");
}

/// Users whose ids are numbers that differ in their last digit only.
#[tokio::test]
async fn users_with_long_numbers_are_told_apart() {
    let (server, instance) = (Redis::start().await, mirror());
    let program = Program::start(config(&instance, &server.url(), "", "format = \"json\"")).await;
    program.wait_for_fresh_cache().await;
    let users = ["107691503500061507151", "107691503500061507152"];
    let mut asker = Asker::connect(program.address).await;
    for user in users {
        let () = server.command("SET", (format!("session:{user}"), format!("{{\"user_id\": {user}}}"))).await;
        assert_eq!(owner(&mut asker, user).await, user);
    }
    let answer = revoke(program.admin, "user", users[0]).await;
    assert_eq!((answer.status, answer.sessions), (200, 1), "{answer:?}");
    assert_ne!(owner(&mut asker, users[0]).await, users[0]);
    assert_eq!(owner(&mut asker, users[1]).await, users[1]);
}
