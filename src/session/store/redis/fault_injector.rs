//! Fault injection for drills: interrupts all connections to the store. While it is off, no connection can be
//! opened. Connections opened before stay broken after it is turned on again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};

/// The switch, shared by all connections of one store. Clones refer to the same switch.
#[derive(Debug, Clone, Default)]
pub struct FaultInjector(Arc<AtomicU64>);

impl FaultInjector {
    /// Number of changes of the switch. An odd number means that connections are interrupted.
    fn turns(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Interrupts every connection until [`FaultInjector::turn_on`]. Has no effect if they are interrupted
    /// already.
    pub fn turn_off(&self) {
        self.0.fetch_or(1, SeqCst);
    }

    /// Permits new connections again. Has no effect if they are permitted already.
    pub fn turn_on(&self) {
        if !self.turns().is_multiple_of(2) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// The state to attach to a connection that is opened now. Fails while connections are interrupted.
    pub(super) fn state(&self) -> RedisResult<State> {
        let state = State { switch: self.clone(), turns: self.turns() };
        if state.turns.is_multiple_of(2) { Ok(state) } else { Err(lost()) }
    }
}

/// The switch, and its counter when a connection was opened.
#[derive(Clone)]
pub(super) struct State {
    switch: FaultInjector,
    turns: u64,
}

/// A connection that fails when the switch has changed since it was opened. All commands go through this
/// type.
#[derive(Clone)]
pub(super) struct GuardedConnection {
    connection: MultiplexedConnection,
    state: State,
}

impl GuardedConnection {
    pub(super) fn new(connection: MultiplexedConnection, state: State) -> RedisResult<Self> {
        let wire = GuardedConnection { connection, state };
        wire.check()?;
        Ok(wire)
    }

    /// Sends one command and returns its reply.
    pub(super) async fn send_packed_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.check()?;
        let answer = self.connection.send_packed_command(command).await;
        self.check()?;
        answer
    }

    /// Sends all commands and returns their replies.
    pub(super) async fn send_packed_commands(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        self.check()?;
        let answers = self.connection.send_packed_commands(commands, 0, commands.len()).await;
        self.check()?;
        answers
    }

    /// Subscribes to `channels`; messages arrive as RESP3 pushes.
    pub(super) async fn subscribe(&mut self, channels: &[&str]) -> RedisResult<()> {
        self.check()?;
        self.connection.subscribe(channels).await?;
        self.check()
    }

    fn check(&self) -> RedisResult<()> {
        if self.state.switch.turns() == self.state.turns { Ok(()) } else { Err(lost()) }
    }
}

fn lost() -> RedisError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_open_before_stays_lost() {
        let switch = FaultInjector::default();
        let before = switch.state().ok().unwrap();
        switch.turn_off();
        switch.turn_off();
        assert!(switch.state().is_err());
        switch.turn_on();
        switch.turn_on();
        let after = switch.state().ok().unwrap();
        assert_ne!(before.turns, after.turns);
        assert_eq!(after.turns, switch.turns());
    }
}
