//! What a server says of itself along with an answer: that it is a primary at that moment, and what time it is.
//!
//! An answer is believed only of a primary: a server that was made a replica goes on to answer, with what another
//! server has, or had. The time of the server, not ours, is the one by which a session is over.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{Pipeline, RedisError, Value};

use super::super::StoreError;
use super::reply;

/// What servers let us ask.
pub(super) struct Witness {
    role: AtomicBool,
    time: AtomicBool,
}

impl Default for Witness {
    fn default() -> Self {
        Witness { role: AtomicBool::new(true), time: AtomicBool::new(true) }
    }
}

/// Answers, and the time at which they were given, since the epoch; `None` if the server does not tell it.
pub(super) type Witnessed = (Vec<Value>, Option<Duration>);

impl Witness {
    /// The questions, with those about the server itself behind them.
    pub(super) fn ask(&self, questions: &mut Pipeline) -> Asked<'_> {
        let asked = Asked { witness: self, role: self.role.load(Relaxed), time: self.time.load(Relaxed) };
        if asked.time {
            questions.cmd("TIME");
        }
        if asked.role {
            questions.cmd("ROLE");
        }
        asked
    }
}

/// Which questions were asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    witness: &'a Witness,
    role: bool,
    time: bool,
}

impl Asked<'_> {
    /// The answers to the questions proper.
    ///
    /// # Errors
    /// Any of those answers is an error, or the server is no primary.
    pub(super) fn take(self, answer: Result<Value, RedisError>) -> Result<Witnessed, StoreError> {
        let mut answers = match answer.map_err(reply::kind_of)? {
            Value::Array(answers) => answers,
            _ => return Err(StoreError::Protocol),
        };
        let (role, time) = (
            self.role.then(|| answers.pop()).flatten().unwrap_or(Value::Nil),
            self.time.then(|| answers.pop()).flatten().unwrap_or(Value::Nil),
        );
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
        match reply::checked(Ok(Value::Array(answers)))? {
            Value::Array(answers) => Ok((answers, time)),
            _ => Err(StoreError::Protocol),
        }
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

    #[test]
    fn an_answer_of_a_primary_is_believed_at_its_time() {
        let (witness, mut questions) = (Witness::default(), Pipeline::new());
        let asked = witness.ask(&mut questions);
        assert_eq!(questions.len(), 2);
        let answer = reply(&format!("*3 :7 {TIME}*3 $6 master :5 *0 "));
        let time = Duration::from_micros(1_700_000_000_000_123);
        assert_eq!(asked.take(answer), Ok((vec![Value::Int(7)], Some(time))));
    }

    #[test]
    fn an_answer_of_a_replica_is_not_believed() {
        let witness = Witness::default();
        let asked = witness.ask(&mut Pipeline::new());
        let answer = reply(&format!("*3 :7 {TIME}*5 $5 slave $1 h :1 $9 connected :5 "));
        assert_eq!(asked.take(answer), Err(StoreError::ReadOnly));
    }

    #[test]
    fn what_may_not_be_asked_is_not_asked_again() {
        let witness = Witness::default();
        let asked = witness.ask(&mut Pipeline::new());
        let answer = reply("*3 :7 -NOPERM_time -NOPERM_role ");
        assert_eq!(asked.take(answer), Ok((vec![Value::Int(7)], None)));
        let mut questions = Pipeline::new();
        let asked = witness.ask(&mut questions);
        assert_eq!(questions.len(), 0);
        assert_eq!(asked.take(reply("*1 :7 ")), Ok((vec![Value::Int(7)], None)));
    }

    #[test]
    fn other_errors_are_those_of_the_answer() {
        let witness = Witness::default();
        let asked = witness.ask(&mut Pipeline::new());
        let answer = reply("*3 -LOADING_x -LOADING_x -LOADING_x ");
        assert_eq!(asked.take(answer), Err(StoreError::Loading));
        let answer = reply(&format!("*3 -NOPERM_x {TIME}*3 $6 master :5 *0 "));
        assert_eq!(asked.take(answer), Err(StoreError::Auth));
        assert!(witness.role.load(Relaxed) && witness.time.load(Relaxed));
    }
}
