//! Verifies, within the pipeline of a read, that the server is a primary, and reads its time.
//!
//! A response is trusted only from a primary. A server that has been demoted to a replica continues to reply,
//! with outdated data. Session expiry is measured by the clock of the server, not by the local one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{Pipeline, RedisError, Value};

use super::super::StoreError;
use super::reply;

/// Whether the servers permit `ROLE` and `TIME`. A command that was refused once is not sent again.
pub(super) struct Witness {
    role: AtomicBool,
    time: AtomicBool,
}

impl Default for Witness {
    fn default() -> Self {
        Witness { role: AtomicBool::new(true), time: AtomicBool::new(true) }
    }
}

/// Replies, and the server's time before they were read, since the Unix epoch; `None` if the server does not
/// report it.
pub(super) type Witnessed = (Vec<Value>, Option<Duration>);

impl Witness {
    /// Starts a pipeline. `TIME` comes first, so that no data is read before that time.
    pub(super) fn begin(&self, questions: &mut Pipeline) -> Asked<'_> {
        let asked = Asked { witness: self, role: self.role.load(Relaxed), time: self.time.load(Relaxed) };
        if asked.time {
            questions.cmd("TIME");
        }
        asked
    }
}

/// Which of the two commands the pipeline contains.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    witness: &'a Witness,
    role: bool,
    time: bool,
}

impl Asked<'_> {
    /// Ends a pipeline. `ROLE` comes last, so that the server was still a primary when the data was read.
    pub(super) fn end(&self, questions: &mut Pipeline) {
        if self.role {
            questions.cmd("ROLE");
        }
    }

    /// Returns the replies to the caller's commands.
    ///
    /// # Errors
    /// The first error among those replies, or [`StoreError::ReadOnly`] if the server is no primary.
    pub(super) fn take(self, answer: Result<Value, RedisError>) -> Result<Witnessed, StoreError> {
        let mut answers = match answer.map_err(reply::kind_of)? {
            Value::Array(answers) => answers,
            _ => return Err(StoreError::Protocol),
        };
        let role = self.role.then(|| answers.pop()).flatten().unwrap_or(Value::Nil);
        let time = if self.time && !answers.is_empty() { answers.remove(0) } else { Value::Nil };
        // The caller's commands are checked first. If they fail, an error of `ROLE` or `TIME` may have the
        // same cause and does not show that the command is forbidden.
        let answers = match reply::checked(Ok(Value::Array(answers)))? {
            Value::Array(answers) => answers,
            _ => return Err(StoreError::Protocol),
        };
        if self.role {
            match reply::checked(Ok(role)) {
                Ok(role) if !reply::is_primary(&role) => return Err(StoreError::ReadOnly),
                Err(error) if error.is_refusal() => give_up(&self.witness.role, "ROLE"),
                other => drop(other?),
            }
        }
        let time = match reply::checked(Ok(time)) {
            Err(error) if error.is_refusal() => {
                give_up(&self.witness.time, "TIME");
                None
            }
            time => reply::time(&time?),
        };
        Ok((answers, time))
    }
}

fn give_up(allowed: &AtomicBool, command: &str) {
    if allowed.swap(false, Relaxed) {
        tracing::warn!(
            command,
            "the session store's user may not ask this: a server that was made a replica is noticed late, and sessions \
             are over by our own clock; allow ROLE and TIME"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Result<Value, RedisError> {
        redis::parse_redis_value(text.replace(' ', "\r\n").replace('_', " ").as_bytes())
    }

    const TIME: &str = "*2 $10 1700000000 $6 000123 ";
    const MASTER: &str = "*3 $6 master :5 *0 ";

    fn asked(witness: &Witness) -> (Asked<'_>, usize) {
        let mut questions = Pipeline::new();
        let asked = witness.begin(&mut questions);
        asked.end(&mut questions);
        (asked, questions.len())
    }

    #[test]
    fn an_answer_of_a_primary_is_believed_at_its_time() {
        let witness = Witness::default();
        let (asked, questions) = asked(&witness);
        assert_eq!(questions, 2);
        let time = Duration::from_micros(1_700_000_000_000_123);
        let answer = reply(&format!("*3 {TIME}:7 {MASTER}"));
        assert_eq!(asked.take(answer), Ok((vec![Value::Int(7)], Some(time))));
    }

    #[test]
    fn an_answer_of_a_replica_is_not_believed() {
        let witness = Witness::default();
        let answer = reply(&format!("*3 {TIME}:7 *5 $5 slave $1 h :1 $9 connected :5 "));
        assert_eq!(asked(&witness).0.take(answer), Err(StoreError::ReadOnly));
    }

    #[test]
    fn what_may_not_be_asked_is_not_asked_again() {
        let witness = Witness::default();
        let answer = reply("*3 -NOPERM_time :7 -NOPERM_role ");
        assert_eq!(asked(&witness).0.take(answer), Ok((vec![Value::Int(7)], None)));
        let (asked, questions) = asked(&witness);
        assert_eq!(questions, 0);
        assert_eq!(asked.take(reply("*1 :7 ")), Ok((vec![Value::Int(7)], None)));
    }

    #[test]
    fn other_errors_are_those_of_the_answer() {
        let witness = Witness::default();
        let (asked, _) = asked(&witness);
        assert_eq!(asked.take(reply("*3 -LOADING_x -LOADING_x -LOADING_x ")), Err(StoreError::Loading));
        let answer = reply(&format!("*3 {TIME}-NOPERM_x {MASTER}"));
        assert_eq!(asked.take(answer), Err(StoreError::Auth));
        assert!(witness.role.load(Relaxed) && witness.time.load(Relaxed));
    }
}
