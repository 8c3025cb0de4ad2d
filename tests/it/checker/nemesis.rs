//! Lets things go wrong, and puts them right again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::crowd;
use super::history::What;
use super::house::{House, Servers};
use super::plan::{Kind, Phase};
use super::servers;
use super::world::{VESTIBULES, World};
use crate::support::fault::Rules;
use crate::support::redis::Redis;
use crate::support::redis_sentinel::attempt;

const DELAY: Duration = Duration::from_millis(200);
/// How long nobody asks before an outage.
const HUSH: Duration = Duration::from_millis(2_600);
/// The default of `client-output-buffer-limit` for those who follow changes.
const WIDE: &str = "pubsub 33554432 8388608 60";
const NARROW: &str = "pubsub 32768 16384 1";
/// Lets a phase happen, without the pause after it.
pub(super) async fn strike(house: &mut House, world: &World, phase: &Phase) {
    let Phase { kind, on, lasts, .. } = *phase;
    let begun = world.log.now();
    match kind {
        Kind::Nothing => sleep(lasts).await,
        Kind::Flushed => return flush(house, world).await,
        Kind::FlushedBeforeSilence | Kind::EndedInGapBeforeSilence => {
            return silence_after_quiet(house, world, phase).await;
        }
        Kind::Silence
        | Kind::NoRequests
        | Kind::NoReplies
        | Kind::Delays
        | Kind::LateLookUps
        | Kind::LateChanges
        | Kind::LostPushes
        | Kind::NoTracking
        | Kind::Cut => spoil_wires(house, phase).await,
        Kind::Frozen => {
            house.primary().freeze();
            sleep(lasts).await; // an outage
            house.primary().thaw();
        }
        Kind::Restarted => house.restart_primary(lasts).await,
        Kind::KilledClients => again(lasts, async || kill(house.primary(), "normal").await).await,
        Kind::KilledFollowers => again(lasts, async || kill(house.primary(), "pubsub").await).await,
        Kind::Script => crowd::change_while_busy(house.primary(), world, lasts).await,
        Kind::Storm => storm(house.primary(), lasts).await,
        Kind::Overflow => overflow(house, phase).await,
        Kind::Swapped => {
            is_carried_out(servers::swap(house, world).await);
            return;
        }
        Kind::Demoted => servers::demote(house, world, lasts).await,
        Kind::FollowersLedElsewhere => servers::lead_elsewhere(house, world, "pubsub", lasts).await,
        Kind::ClientsLedElsewhere => servers::lead_elsewhere(house, world, "normal", lasts).await,
        Kind::Switched => servers::switch(house, world).await,
        Kind::FailedOver | Kind::PrimaryKilled | Kind::PrimaryFrozen => {
            return servers::fail_over(house, world, kind, lasts).await;
        }
        Kind::BackupOnly => return servers::lose_all_but_backup(house, world, lasts).await,
        Kind::Stopped => stop(house, on, lasts).await,
        Kind::Replaced => house.replace(world, on.unwrap_or(0)).await,
    }
    if kind != Kind::Nothing {
        world.log.add(begun, What::Fault(kind.name().to_owned()));
    }
}

async fn spoil_wires(house: &House, phase: &Phase) {
    let Phase { kind, on, lasts, .. } = *phase;
    let rules = match kind {
        Kind::Silence => Rules::SILENT,
        Kind::NoRequests => Rules { holds_requests: true, ..Rules::default() },
        Kind::NoReplies => Rules { holds_replies: true, ..Rules::default() },
        Kind::Delays => Rules { delays_look_ups: DELAY, delays_changes: DELAY, ..Rules::default() },
        Kind::LateLookUps => Rules { delays_look_ups: DELAY, is_random: true, ..Rules::default() },
        Kind::LateChanges => Rules { delays_changes: 2 * DELAY, ..Rules::default() },
        Kind::LostPushes => Rules { drops_pushes: true, ..Rules::default() },
        Kind::NoTracking => Rules { swallows_tracking: true, ..Rules::default() },
        _ => return again(lasts, async || house.cut(on)).await,
    };
    house.set(on, rules);
    if kind == Kind::NoTracking {
        house.cut(on); // it is forgotten with the next connection
    }
    let goes_unnoticed = matches!(kind, Kind::LostPushes | Kind::NoTracking);
    sleep(if goes_unnoticed { lasts.max(servers::LONG) } else { lasts }).await; // an outage
    house.set(on, Rules::default());
    if kind == Kind::NoTracking {
        house.cut(on); // it is not known to be wrong
    }
}

/// Does something now and then for so long.
async fn again(lasts: Duration, act: impl AsyncFn()) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        act().await;
        sleep(Duration::from_millis(fastrand::u64(10..60))).await; // something happens in between
    }
}

pub(super) async fn kill(server: &Redis, kind: &str) {
    let _: Option<i64> = attempt(server, "CLIENT", &["KILL", "TYPE", kind]).await;
}

/// Batch jobs about sessions that nobody uses.
async fn storm(server: &Redis, lasts: Duration) {
    let mut connection = server.connect().await;
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        let mut batch = redis::pipe();
        for number in 0..500 {
            let key = format!("session:batch{}", fastrand::usize(..5_000));
            if number % 3 == 0 {
                batch.del(key)
            } else {
                batch.hset(key, "user_id", number)
            };
        }
        if batch.query_async::<()>(&mut connection).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(2)).await; // the applications get a word in
    }
}

/// More changes than the server keeps for those who do not read.
async fn overflow(house: &House, phase: &Phase) {
    let Phase { on, lasts, .. } = *phase;
    let limit = async |limit| {
        let _: Option<()> =
            attempt(house.primary(), "CONFIG", &["SET", "client-output-buffer-limit", limit]).await;
    };
    limit(NARROW).await;
    house.set(on, Rules { holds_replies: true, ..Rules::default() });
    storm(house.primary(), lasts).await;
    house.set(on, Rules::default());
    limit(WIDE).await;
}

async fn stop(house: &House, on: Option<usize>, lasts: Duration) {
    let concerned = || (0..VESTIBULES).filter(|number| on.is_none_or(|on| on == *number));
    concerned().for_each(|number| house.programs[number].process.signal("STOP"));
    sleep(lasts).await; // they miss what happens
    concerned().for_each(|number| house.programs[number].process.signal("CONT"));
}

/// Ends all sessions, which every vestibule is told.
async fn flush(house: &House, world: &World) {
    let all = world.gate.write().await;
    let begun = world.log.now();
    if is_carried_out(house.primary().try_command("FLUSHDB", &[] as &[&str]).await) {
        world.log.add(begun, What::Flushed);
        world.trust(house.primary().address());
    }
    drop(all);
}

/// Whether a write was done. It was not where sentinels, on a busy machine, have just chosen another primary by
/// themselves.
fn is_carried_out(result: redis::RedisResult<()>) -> bool {
    match result {
        Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly) => false,
        result => {
            result.unwrap();
            true
        }
    }
}

/// Nobody asks between the end of sessions and an outage: what is over by then must be known without that.
async fn silence_after_quiet(house: &House, world: &World, phase: &Phase) {
    let Phase { kind, on, lasts, .. } = *phase;
    let begun = world.log.now();
    let name = || What::Fault(kind.name().to_owned());
    world.hush(true);
    if let Servers::Pair(_) = &house.servers
        && kind == Kind::EndedInGapBeforeSilence
    {
        house.set(on, Rules::SILENT);
        house.cut(on);
        flush(house, world).await;
        sleep(Duration::from_millis(50)).await; // a gap
        house.set(on, Rules::default());
        world.log.add(begun, name());
    } else {
        flush(house, world).await;
    }
    sleep(HUSH).await; // there is time to learn of it
    let begun = world.log.now();
    house.set(on, Rules::SILENT);
    world.hush(false);
    sleep(lasts.max(Duration::from_millis(1_500))).await; // an outage
    house.set(on, Rules::default());
    world.log.add(begun, name());
}
