//! A vestibule whose clock is wrong, by an hour or by half a day, honours sessions as long as one whose clock is
//! right.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::{HOUR, MAX_STALENESS, SLACK, config, old_user, revoke};
use crate::proofs::{report, rounds};
use crate::support::asker::{Asker, NOBODY};
use crate::support::client;
use crate::support::redis::Redis;
use crate::support::service::{Service, send};
use crate::support::vestibule::Program;

/// How wrong clocks are.
const OFFSETS: [&str; 3] = ["-1h", "-13h", "+13h"];

/// Each as often as the proof tries it.
fn offsets() -> impl Iterator<Item = &'static str> {
    OFFSETS.into_iter().cycle().take(OFFSETS.len() * rounds(1, 6))
}

struct House {
    server: Redis,
    redis: MultiplexedConnection,
    instance: Service,
    right: Program,
}

impl House {
    async fn start(session: &str) -> Self {
        let server = Redis::start().await;
        let instance = Service::start(async |request, wire| {
            let target = request.start_line.split(' ').nth(1).unwrap();
            match target.strip_prefix("/login/") {
                Some(user) => {
                    let word = format!("set; user_id=\"{user}\"");
                    send(wire, 200, &[("Vestibule-Session", &word)], "").await
                }
                None => send(wire, 200, &[], request.headers.get("x-user-id").unwrap_or(NOBODY)).await,
            }
        });
        let right = Program::start(config(&instance, &server.url(), session, "")).await;
        right.wait_for_fresh_cache().await;
        Self { redis: server.connect().await, server, instance, right }
    }

    /// Starts one whose wall clock is wrong by this much.
    async fn wrong(&self, session: &str, offset: &str) -> Program {
        let library = library();
        let environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
        ];
        let config = config(&self.instance, &self.server.url(), session, "");
        let program = Program::start_in(config, &environment).await;
        program.wait_for_fresh_cache().await;
        program
    }

    /// Writes a session with an end of its own, so many seconds from now.
    async fn put_until(&mut self, id: &str, seconds: i64) {
        let expires = seconds_now() + seconds;
        let (key, mut write) = (format!("session:{id}"), redis::pipe());
        write.hset_multiple(&key, &[("user_id", old_user(id)), ("expires", expires.to_string())]);
        write.pexpire(&key, HOUR.as_millis() as i64);
        let () = write.query_async(&mut self.redis).await.unwrap();
    }

    /// When this session ends by what is written in it, in Unix seconds.
    async fn ends(&mut self, id: &str) -> u64 {
        redis::cmd("HGET")
            .arg(format!("session:{id}"))
            .arg("expires")
            .query_async(&mut self.redis)
            .await
            .unwrap()
    }
}

/// What lets a program believe in another time.
fn library() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let mut libraries = directories.map(|directory| directory.join("faketime/libfaketime.so.1"));
    libraries
        .find(|library| library.exists())
        .unwrap_or_else(|| panic!("no libfaketime.so.1 under /usr/lib/*/faketime: install `faketime`"))
}

fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

async fn owner(program: &Program, id: &str) -> String {
    super::owner(&mut Asker::connect(program.address).await, id).await
}

/// Logs in through this one; the session's id.
async fn login(program: &Program, user: &str) -> String {
    let response = client::get(program.address, &format!("/login/{user}")).await;
    let cookie = response.headers.get("set-cookie").unwrap();
    cookie.strip_prefix("session-id=").unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_is_over_at_its_own_end_whatever_the_clock_says() {
    let mut house = House::start("").await;
    let mut broken = Vec::new();
    for offset in offsets() {
        let program = house.wrong("", offset).await;
        for (id, seconds) in [("over", -60), ("going_on", 1_800), ("ending", 6)] {
            house.put_until(id, seconds).await;
        }
        let [over, going_on] = [owner(&program, "over").await, owner(&program, "going_on").await];
        let end = UNIX_EPOCH + Duration::from_secs(house.ends("ending").await);
        let mut last = None;
        while SystemTime::now() < end + Duration::from_secs(2) {
            let begun = SystemTime::now();
            if owner(&program, "ending").await == old_user("ending") {
                last = Some(begun);
            }
            sleep(Duration::from_millis(20)).await; // leave the machine to the others
        }
        let late = last.map(|last| last.duration_since(end).unwrap_or_default());
        let told = late.map_or("never".to_owned(), |late| format!("until {late:.1?} after its end"));
        report(
            "clock",
            format!(
                "{offset}: past its end {over}, before its end {going_on}; one that ends is honoured {told}"
            ),
        );
        let too_long = late.is_some_and(|late| late > MAX_STALENESS + SLACK);
        if over != NOBODY || going_on != old_user("going_on") || too_long || late.is_none() {
            broken.push(offset);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[tokio::test]
async fn a_users_sessions_are_found_whatever_the_clock_says() {
    let mut house = House::start("").await;
    let mut broken = Vec::new();
    for offset in offsets() {
        let wrong = house.wrong("", offset).await;
        for (way, seen_by, through) in [
            ("by itself", &wrong, &wrong),
            ("seen by it, revoked through another", &wrong, &house.right),
            ("seen by another, revoked through it", &house.right, &wrong),
        ] {
            let user = format!("user{}", fastrand::u64(..));
            let ids: Vec<String> = (0..3).map(|session| format!("{user}-{session}")).collect();
            for id in &ids {
                let key = format!("session:{id}");
                let mut write = redis::pipe();
                write.hset(&key, "user_id", &user).pexpire(&key, HOUR.as_millis() as i64);
                let () = write.query_async(&mut house.redis).await.unwrap();
                assert_eq!(owner(seen_by, id).await, user);
            }
            sleep(Duration::from_millis(500)).await; // whatever is noted of them has been noted
            let answer = revoke(through.admin, "user", &user).await;
            let mut survived = 0;
            for id in &ids {
                survived +=
                    usize::from(owner(&wrong, id).await == user || owner(&house.right, id).await == user);
            }
            report(
                "clock",
                format!(
                    "{offset}, {way}: {} for {} sessions, {survived} of 3 survived",
                    answer.status, answer.sessions
                ),
            );
            if answer.status != 200 || answer.sessions != 3 || survived > 0 {
                broken.push((offset, way));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[tokio::test]
async fn a_session_that_vestibule_creates_lives_as_long_as_it_should_whatever_the_clock_says() {
    let session = "absolute_timeout = \"8s\"";
    let house = House::start(session).await;
    let mut broken = Vec::new();
    for offset in offsets() {
        let wrong = house.wrong(session, offset).await;
        let created = tokio::time::Instant::now();
        let ids = [login(&wrong, "ada").await, login(&house.right, "bob").await];
        sleep(Duration::from_secs(2)).await; // within its life
        let mut owners = Vec::new();
        for id in &ids {
            owners.push((owner(&wrong, id).await, owner(&house.right, id).await));
        }
        sleep(Duration::from_secs(10).saturating_sub(created.elapsed())).await; // it is over
        let mut afterwards = Vec::new();
        for id in &ids {
            afterwards.push((owner(&wrong, id).await, owner(&house.right, id).await));
        }
        report(
            "clock",
            format!("{offset}: created by it and by another, half way {owners:?}, afterwards {afterwards:?}"),
        );
        let is_alive = |(by_wrong, by_right): &(String, String)| by_wrong != NOBODY && by_right != NOBODY;
        let is_over = |(by_wrong, by_right): &(String, String)| by_wrong == NOBODY && by_right == NOBODY;
        if !owners.iter().all(is_alive) || !afterwards.iter().all(is_over) {
            broken.push(offset);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}
