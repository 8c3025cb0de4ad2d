//! A switch between us and the servers, for rehearsals: while it is off no connection can be opened, and every connection
//! that was there is lost, also later.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};

/// Shared by all connections of one store. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct FaultInjector(Arc<AtomicU64>);

impl FaultInjector {
    /// Counts up with each turn; odd while it is off.
    fn turns(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Loses every connection, until [`FaultInjector::turn_on`].
    pub fn turn_off(&self) {
        self.0.fetch_or(1, SeqCst);
    }

    /// Lets connections be opened again.
    pub fn turn_on(&self) {
        if !self.turns().is_multiple_of(2) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// What a connection that is opened now must be given.
    pub(super) fn state(&self) -> RedisResult<State> {
        let state = State { switch: self.clone(), turns: self.turns() };
        if state.turns.is_multiple_of(2) { Ok(state) } else { Err(lost()) }
    }
}

/// The switch, and how it stood when a connection was opened.
#[derive(Clone)]
pub(super) struct State {
    switch: FaultInjector,
    turns: u64,
}

/// A connection as far as the switch allows: the one place where commands are sent.
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

    /// The answer to one command.
    pub(super) async fn send_packed_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.check()?;
        let answer = self.connection.send_packed_command(command).await;
        self.check()?;
        answer
    }

    /// The answers to all commands.
    pub(super) async fn send_packed_commands(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        self.check()?;
        let answers = self.connection.send_packed_commands(commands, 0, commands.len()).await;
        self.check()?;
        answers
    }

    /// Lets the server tell what is published on `channels`.
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
