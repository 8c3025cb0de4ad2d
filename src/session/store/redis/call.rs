//! One call to a server: a command or a pipeline, its key, and its redirection within a cluster.

use redis::{Arg, Cmd, Pipeline, RedisError, ServerError, Value, cmd};

use crate::config::Host;

use super::fault_injector::GuardedConnection;

/// A command or pipeline that is sent to one server at once.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    One(&'a Cmd),
    /// Commands about keys of one slot.
    Many(&'a Pipeline),
}

/// A `MOVED` or `ASK` redirection of a cluster node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) to: Host,
    /// `ASK`: valid for this call only, which must be preceded by `ASKING`. Otherwise `MOVED`.
    pub(super) is_ask: bool,
}

impl<'a> Call<'a> {
    /// The key of the call, which selects the server; empty if the call has none.
    pub(super) fn key(self) -> &'a [u8] {
        match self {
            Call::One(command) => key(command),
            Call::Many(pipeline) => {
                pipeline.cmd_iter().map(key).find(|key| !key.is_empty()).unwrap_or_default()
            }
        }
    }

    /// Sends the call and returns its reply; for a pipeline an array of replies.
    pub(super) async fn send(self, mut to: GuardedConnection) -> Result<Value, RedisError> {
        match self {
            Call::One(command) => to.send_packed_command(command).await,
            Call::Many(pipeline) => to.send_packed_commands(pipeline).await.map(Value::Array),
        }
    }

    /// Follows an `ASK` redirection: sends the call to the server that imports the slot. `answer` is the
    /// reply of the server that still owns it. Of a pipeline without a transaction, only the redirected
    /// commands are sent again, and their replies replace the redirections in `answer`. The importing server
    /// does not have the keys that have not been migrated yet, and would report them as missing.
    pub(super) async fn ask_there(
        self,
        answer: Result<Value, RedisError>,
        to: GuardedConnection,
    ) -> Result<Value, RedisError> {
        let (Call::Many(pipeline), Ok(Value::Array(mut answers))) = (self, answer) else {
            return self.send_asking(to).await;
        };
        if pipeline.cmd_iter().any(|command| is_named(command, b"MULTI")) {
            return self.send_asking(to).await;
        }
        let mut again = Pipeline::new();
        let asked = |answer: &&mut Value| redirect_in(answer).is_some();
        for (command, _) in pipeline.cmd_iter().zip(&mut answers).filter(|(_, answer)| asked(answer)) {
            again.add_command(command.clone());
        }
        let told = match Call::Many(&again).send_asking(to).await? {
            Value::Array(told) => told,
            other => return Ok(other),
        };
        for (place, told) in answers.iter_mut().filter(asked).zip(told) {
            *place = told;
        }
        Ok(Value::Array(answers))
    }

    /// Like [`send`](Self::send), to a server that imports the slot. Each command outside a transaction, and
    /// each transaction as a whole, is preceded by `ASKING`, whose replies are dropped.
    async fn send_asking(self, mut to: GuardedConnection) -> Result<Value, RedisError> {
        let commands: Vec<_> = match self {
            Call::One(command) => vec![command],
            Call::Many(pipeline) => pipeline.cmd_iter().collect(),
        };
        let mut asking = Pipeline::with_capacity(2 * commands.len());
        let mut is_answer = Vec::with_capacity(2 * commands.len());
        let mut in_transaction = false;
        for command in commands {
            if !in_transaction {
                asking.add_command(cmd("ASKING"));
                is_answer.push(false);
            }
            in_transaction = (in_transaction || is_named(command, b"MULTI")) && !is_named(command, b"EXEC");
            asking.add_command(command.clone());
            is_answer.push(true);
        }
        let answers = to.send_packed_commands(&asking).await?;
        let mut wanted =
            answers.into_iter().zip(is_answer).filter(|(_, wanted)| *wanted).map(|(answer, _)| answer);
        Ok(match self {
            Call::One(_) => wanted.next().unwrap_or(Value::Nil),
            Call::Many(_) => Value::Array(wanted.collect()),
        })
    }
}

/// The first argument of a command; for `EVAL` its first key.
fn key(command: &Cmd) -> &[u8] {
    let place = if is_named(command, b"EVAL") { 3 } else { 1 };
    match command.args_iter().nth(place) {
        Some(Arg::Simple(key)) => key,
        _ => &[],
    }
}

fn is_named(command: &Cmd, name: &[u8]) -> bool {
    matches!(command.args_iter().next(), Some(Arg::Simple(first)) if first == name)
}

/// The redirection in a reply, if there is one.
pub(super) fn redirect(answer: &Result<Value, RedisError>) -> Option<Redirect> {
    match answer {
        Ok(value) => redirect_in(value),
        Err(error) => {
            let is_ask = error.code()? == "ASK";
            let (to, _) = error.redirect_node()?;
            Some(Redirect { to: Host::parse(to)?, is_ask })
        }
    }
}

fn redirect_in(value: &Value) -> Option<Redirect> {
    match value {
        Value::ServerError(error) => redirect_of(error),
        Value::Array(values) => values.iter().find_map(redirect_in),
        _ => None,
    }
}

/// Parses `MOVED slot host:port` or `ASK slot host:port`.
fn redirect_of(error: &ServerError) -> Option<Redirect> {
    let is_ask = match error.code() {
        "ASK" => true,
        "MOVED" => false,
        _ => return None,
    };
    let to = error.details()?.split(' ').nth(1)?;
    Some(Redirect { to: Host::parse(to)?, is_ask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_call_is_found() {
        let mut eval = cmd("EVAL");
        eval.arg("return 1").arg(1).arg("k").arg("x");
        let mut get = cmd("GET");
        get.arg("k");
        let mut transaction = Pipeline::new();
        transaction.cmd("MULTI").add_command(get.clone()).cmd("EXEC");
        for call in [Call::One(&eval), Call::One(&get), Call::Many(&transaction)] {
            assert_eq!(call.key(), b"k");
        }
        assert_eq!(Call::One(&cmd("PING")).key(), b"");
    }

    #[test]
    fn servers_send_us_elsewhere_from_anywhere_in_an_answer() {
        let to = |port, is_ask| Some(Redirect { to: Host { name: "h".to_owned(), port }, is_ask });
        for (reply, expected) in [
            ("-MOVED 7 h:1\r\n", to(1, false)),
            ("-ASK 7 h:2\r\n", to(2, true)),
            ("*2\r\n+OK\r\n-MOVED 7 h:1\r\n", to(1, false)),
            ("-MOVED 7 :1\r\n", None),
            ("-ERR MOVED 7 h:1\r\n", None),
            ("+MOVED 7 h:1\r\n", None),
        ] {
            let answer = redis::parse_redis_value(reply.as_bytes());
            assert_eq!(redirect(&answer), expected, "{reply:?}");
            if let Ok(Value::ServerError(error)) = answer {
                assert_eq!(redirect(&Err(RedisError::from(error))), expected, "{reply:?}");
            }
        }
    }
}
