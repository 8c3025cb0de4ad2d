//! Crowds whose sessions change soon after their first use, while the server is busy with something else: it
//! learns of the changes and of what the uses entail at once.

use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use super::history::{Moment, Name, What, Write};
use super::world::{LANES, World};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::attempt;

/// Sessions of a crowd.
const CROWD: usize = 8;
/// How long the sessions that have changed last go on being used.
const REST: Duration = Duration::from_millis(1_600);
/// Keeps a server from everything else for 120 ms.
const BUSY: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
                    local begun = now() for _ = 1, 3000000 do if now() - begun > 120000 then break end end";

/// Crowds come and change for so long, and are used for some time after that.
pub(super) async fn change_while_busy(server: &Redis, world: &World, lasts: Duration) {
    let Some(mut line) = connect(server).await else { return };
    let (end, mut all) = (Instant::now() + lasts, Vec::new());
    for number in 0.. {
        if Instant::now() > end {
            break;
        }
        let lane = number % LANES;
        let crowd: Vec<Name> = (0..CROWD).map(|_| format!("c{:016x}", fastrand::u64(..)).into()).collect();
        put(&mut line, world, &crowd).await;
        show(world, lane, &crowd);
        sleep(Duration::from_millis(fastrand::u64(60..150))).await; // they are used for the first time
        let change = async {
            sleep(Duration::from_millis(fastrand::u64(5..100))).await; // the server is busy
            rename(&mut line, world, &crowd).await;
        };
        tokio::join!(attempt::<()>(server, "EVAL", &[BUSY, "0"]), change);
        all.push((lane, crowd));
    }
    sleep(REST).await; // what was overlooked comes out
    for (lane, crowd) in all {
        hide(world, lane, &crowd);
        end_all(&mut line, world, &crowd).await;
    }
}

/// The clients of a lane use those who have just come more than those who came before.
fn show(world: &World, lane: usize, crowd: &[Name]) {
    let mut sessions = world.lanes[lane].lock().unwrap();
    let before = std::mem::replace(&mut sessions.crowd, crowd.to_vec());
    sessions.live.extend(before);
}

fn hide(world: &World, lane: usize, crowd: &[Name]) {
    let mut sessions = world.lanes[lane].lock().unwrap();
    sessions.crowd.retain(|id| !crowd.contains(id));
    sessions.live.retain(|id| !crowd.contains(id));
}

async fn connect(server: &Redis) -> Option<MultiplexedConnection> {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.ok()
}

async fn put(line: &mut MultiplexedConnection, world: &World, crowd: &[Name]) {
    let user = |id: &Name| Write::Set(format!("first-{id}").into());
    write(line, world, crowd, user, |commands, id| {
        let life = world.life.as_millis() as i64;
        commands.hset(format!("session:{id}"), "user_id", format!("first-{id}"));
        commands.pexpire(format!("session:{id}"), life);
    })
    .await;
}

async fn rename(line: &mut MultiplexedConnection, world: &World, crowd: &[Name]) {
    let user = |id: &Name| Write::Set(format!("second-{id}").into());
    write(line, world, crowd, user, |commands, id| {
        commands.hset(format!("session:{id}"), "user_id", format!("second-{id}"));
    })
    .await;
}

async fn end_all(line: &mut MultiplexedConnection, world: &World, crowd: &[Name]) {
    write(
        line,
        world,
        crowd,
        |_| Write::End,
        |commands, id| {
            commands.del(format!("session:{id}"));
        },
    )
    .await;
}

/// Does something about all of a crowd at once.
async fn write(
    line: &mut MultiplexedConnection,
    world: &World,
    crowd: &[Name],
    write: impl Fn(&Name) -> Write,
    command: impl Fn(&mut Pipeline, &Name),
) {
    let mut commands = Pipeline::new();
    crowd.iter().for_each(|id| command(&mut commands, id));
    let begun: Moment = world.log.now();
    let is_acknowledged = commands.query_async::<()>(line).await.is_ok();
    let ended = world.log.now();
    for session in crowd {
        let event = What::Wrote { session: session.clone(), write: write(session), is_acknowledged };
        world.log.add_until(begun, ended, event);
    }
}
