//! What goes wrong with the servers of a store: another one is the primary, or has other data.

use std::time::Duration;

use tokio::time::sleep;

use super::history::{Moment, Name, What, Write};
use super::house::{House, Servers, catch_up, follow, lead};
use super::nemesis::kill;
use super::plan::Kind;
use super::world::{VESTIBULES, World};
use crate::support::RefusedPort;
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{Sentinels, attempt, until};

/// What nobody notices lasts longer than it may take to be noticed.
pub(super) const LONG: Duration = Duration::from_millis(1_800);

/// The primary becomes a replica of a server that cannot be reached, and another one leads, which no vestibule
/// knows; later all is as it was.
pub(super) async fn demote(house: &mut House, world: &World, lasts: Duration) {
    let dead_end = RefusedPort::new();
    let (old, new) = (house.primary(), house.other());
    let all = world.gate.write().await;
    catch_up(old).await;
    lead(new).await;
    let nowhere = dead_end.address();
    let () = old.command("REPLICAOF", (nowhere.ip().to_string(), nowhere.port())).await;
    world.trust(new.address());
    drop(all);
    sleep(lasts.max(LONG)).await; // changes come that no vestibule hears of
    let all = world.gate.write().await;
    follow(old, new.address()).await;
    catch_up(new).await;
    lead(old).await;
    follow(new, old.address()).await;
    world.trust(old.address());
    drop(all);
}

/// New connections lead to the new primary, those of this kind end, and the old primary knows nothing of it.
pub(super) async fn lead_elsewhere(house: &mut House, world: &World, ending: &str, lasts: Duration) {
    let (old, new) = (house.primary(), house.other());
    let all = world.gate.write().await;
    catch_up(old).await;
    lead(new).await;
    house.wires(None).for_each(|wire| wire.lead_new(new.address()));
    kill(old, ending).await;
    world.trust(new.address());
    drop(all);
    sleep(lasts.max(LONG)).await; // changes come that the old one does not hear of
    follow(old, new.address()).await;
    house.primary = 1 - house.primary;
}

/// The two change places in good order.
pub(super) async fn switch(house: &mut House, world: &World) {
    let (old, new) = (house.primary(), house.other());
    let all = world.gate.write().await;
    catch_up(old).await;
    let address = new.address();
    let () = old.command("REPLICAOF", (address.ip().to_string(), address.port())).await;
    lead(new).await;
    world.trust(address);
    drop(all);
    follow(old, address).await;
    house.primary = 1 - house.primary;
}

/// The sentinels choose another primary, which may not have all that was written last.
pub(super) async fn fail_over(house: &mut House, world: &World, kind: Kind, lasts: Duration) {
    let begun = world.log.now();
    // On a busy machine they may just have chosen another one by themselves.
    follow_sentinels(house, world, begun).await;
    let old = house.primary;
    let Servers::Sentinels(sentinels) = &mut house.servers else { return };
    let before = sentinels.named(0).await;
    match kind {
        Kind::PrimaryKilled => sentinels.redis[old].stop(),
        Kind::PrimaryFrozen => sentinels.redis[old].freeze(),
        _ => sentinels.begin_failover().await,
    }
    settle(sentinels, world, begun, before).await;
    let new = sentinels.named_index(0).await;
    if kind == Kind::PrimaryFrozen {
        sleep(lasts).await; // nobody waits for it
        sentinels.redis[old].thaw();
    }
    let stopped = (kind == Kind::PrimaryKilled).then_some(old);
    let preferred = (0..3).find(|index| *index != new && *index != old).unwrap();
    sentinels.complete(stopped, preferred).await;
    house.primary = new;
    world.log.add(begun, What::Fault(kind.name().to_owned()));
}

/// The replica that may be chosen does not follow while sessions are revoked, and one that may not does; then the
/// primary dies, and every vestibule that remembers.
pub(super) async fn lose_all_but_backup(house: &mut House, world: &World, lasts: Duration) {
    let (begun, dead_end) = (world.log.now(), RefusedPort::new());
    follow_sentinels(house, world, begun).await;
    let old = house.primary;
    let [chosen, backup] = [(old + 1) % 3, (old + 2) % 3];
    let () = house.server(backup).command("CONFIG", ["SET", "replica-priority", "0"].as_slice()).await;
    let nowhere = dead_end.address();
    let () = house.server(chosen).command("REPLICAOF", (nowhere.ip().to_string(), nowhere.port())).await;
    sleep(lasts.max(LONG)).await; // sessions are revoked
    house.programs.iter().for_each(|program| program.process.signal("KILL"));
    let Servers::Sentinels(sentinels) = &mut house.servers else { return };
    let before = sentinels.named(0).await;
    sentinels.redis[old].stop();
    settle(sentinels, world, begun, before).await;
    house.primary = chosen;
    for vestibule in 0..VESTIBULES {
        house.replace(world, vestibule).await;
    }
    let Servers::Sentinels(sentinels) = &mut house.servers else { return };
    sentinels.complete(Some(old), backup).await;
    world.log.add(begun, What::Fault(Kind::BackupOnly.name().to_owned()));
}

/// Sentinels that could not see the primary may have chosen another one by themselves since the moment `since`.
pub(super) async fn follow_sentinels(house: &mut House, world: &World, since: Moment) {
    let Servers::Sentinels(sentinels) = &mut house.servers else { return };
    let old = house.primary;
    if sentinels.named_index(0).await == old && sentinels.named_index(1).await == old {
        return;
    }
    let before = sentinels.redis[old].address().port();
    settle(sentinels, world, since, before).await;
    let new = sentinels.named_index(0).await;
    let preferred = (0..3).find(|index| *index != new && *index != old).unwrap();
    sentinels.complete(None, preferred).await;
    house.primary = new;
}

/// Waits until everybody agrees about the new primary, whose word counts from then on.
async fn settle(sentinels: &Sentinels, world: &World, begun: Moment, before: u16) {
    sentinels.until_replaced(before).await;
    let new = sentinels.named_index(0).await;
    until("a primary", async || {
        let info: Option<String> = attempt(&sentinels.redis[new], "INFO", &["replication"]).await;
        info.is_some_and(|info| info.contains("role:master"))
    })
    .await;
    world.trust(sentinels.redis[new].address());
    world.log.add(begun, What::Failover);
}

/// The data change places with other data, which nobody is told.
pub(super) async fn swap(house: &House, world: &World) -> redis::RedisResult<()> {
    let server = house.primary();
    let mut other = other_data(server).await;
    let ids: Vec<String> = server.command("KEYS", "session:a*").await;
    let mut changed: Vec<(Name, Name)> = Vec::new();
    let () = redis::cmd("FLUSHDB").query_async(&mut other).await?;
    for key in ids.iter().filter(|_| fastrand::bool()) {
        let user = format!("swapped{:x}", fastrand::u32(..));
        let mut write = redis::pipe();
        write.hset(key, "user_id", &user).pexpire(key, world.life.as_millis() as i64);
        let () = write.query_async(&mut other).await?;
        changed.push((key.trim_start_matches("session:").into(), user.into()));
    }
    sleep(Duration::from_millis(400)).await; // all are known to the vestibules again
    let all = world.gate.write().await;
    let live: Vec<String> = server.command("KEYS", "session:a*").await;
    for (id, _) in changed.extract_if(.., |(id, _)| !live.contains(&format!("session:{id}"))) {
        let () = redis::cmd("DEL").arg(format!("session:{id}")).query_async(&mut other).await?;
    }
    let begun = world.log.now();
    let () = server.try_command("SWAPDB", (0, 1)).await?;
    let ended = world.log.now();
    world.log.add_until(begun, ended, What::Flushed);
    for (session, user) in changed {
        let write = Write::Set(user);
        world.log.add_until(begun, ended, What::Wrote { session, write, is_acknowledged: true });
    }
    world.log.add_until(begun, ended, What::Fault(Kind::Swapped.name().to_owned()));
    world.trust(server.address());
    drop(all);
    Ok(())
}

async fn other_data(server: &Redis) -> redis::aio::MultiplexedConnection {
    let mut connection = server.connect().await;
    let () = redis::cmd("SELECT").arg(1).query_async(&mut connection).await.unwrap();
    connection
}
