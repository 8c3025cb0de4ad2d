//! The way of an application to the store: short of patience, and never unsure of what it left there.

use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

use super::history::Name;

const PATIENCE: Duration = Duration::from_millis(400);
/// A life that ends soon after it was shortened.
pub(super) const SHORT_LIFE: Duration = Duration::from_millis(20);

/// A connection by its number and its name at the server.
struct Line {
    address: SocketAddr,
    number: i64,
    name: String,
    redis: MultiplexedConnection,
}

#[derive(Default)]
pub(super) struct Writer {
    line: Option<Line>,
    /// Lines over which something was sent that may still happen.
    doubtful: Vec<Line>,
}

impl Writer {
    /// Sends these commands; whether all were acknowledged.
    pub(super) async fn send(&mut self, address: SocketAddr, commands: &redis::Pipeline) -> bool {
        let Some(line) = self.line(address).await else { return false };
        let sent = timeout(PATIENCE, commands.query_async::<()>(&mut line.redis)).await;
        let is_acknowledged = matches!(sent, Ok(Ok(())));
        if !is_acknowledged {
            self.doubtful.extend(self.line.take());
        }
        is_acknowledged
    }

    /// The user of a session, after everything that was sent before has happened or never will. `None`: no answer.
    pub(super) async fn read(&mut self, address: SocketAddr, session: &Name) -> Option<Option<Name>> {
        self.line(address).await?;
        let doubtful = std::mem::take(&mut self.doubtful);
        let line = self.line.as_mut()?;
        let end = end_lines(line, &doubtful);
        if !matches!(timeout(PATIENCE, end).await, Ok(Ok(()))) {
            self.doubtful = doubtful;
            self.line = None;
            return None;
        }
        if !doubtful.is_empty() {
            sleep(2 * SHORT_LIFE).await; // what has happened may be the beginning of a short life
        }
        let mut read = redis::cmd("HGET");
        read.arg(format!("session:{session}")).arg("user_id");
        let user = timeout(PATIENCE, read.query_async::<Option<String>>(&mut line.redis)).await;
        let Ok(Ok(user)) = user else {
            self.line = None;
            return None;
        };
        Some(user.map(Name::from))
    }

    async fn line(&mut self, address: SocketAddr) -> Option<&mut Line> {
        if self.line.as_ref().is_some_and(|line| line.address != address) {
            self.line = None;
        }
        if self.line.is_none() {
            self.line = timeout(PATIENCE, connect(address)).await.ok()?.ok();
        }
        self.line.as_mut()
    }
}

async fn connect(address: SocketAddr) -> redis::RedisResult<Line> {
    let client = redis::Client::open(format!("redis://{address}/0"))?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let name = format!("application-{:x}", fastrand::u64(..));
    let () = redis::cmd("CLIENT").arg("SETNAME").arg(&name).query_async(&mut redis).await?;
    let number = redis::cmd("CLIENT").arg("ID").query_async(&mut redis).await?;
    Ok(Line { address, number, name, redis })
}

/// Lets the server end these lines, so that nothing that was sent over them happens any more.
async fn end_lines(over: &mut Line, lines: &[Line]) -> redis::RedisResult<()> {
    for line in lines.iter().filter(|line| line.address == over.address) {
        let mut list = redis::cmd("CLIENT");
        let list: String = list.arg("LIST").arg("ID").arg(line.number).query_async(&mut over.redis).await?;
        if list.contains(&line.name) {
            let mut kill = redis::cmd("CLIENT");
            let _: i64 = kill.arg("KILL").arg("ID").arg(line.number).query_async(&mut over.redis).await?;
        }
    }
    Ok(())
}
