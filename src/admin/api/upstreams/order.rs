//! The body of a call that changes an instance.

use serde::Deserialize;
use tokio::time::Instant;

use crate::admin::api::Problem;
use crate::config::{self, InstanceState};
use crate::proxy::instance_admin::InstanceUpdate;
use crate::upstream::{Deadline, DeadlineAction};

pub(super) const EXPECTED: &str = r#"{"instance": "IP:PORT or NAME"} with "state": "ready", "drain" or "down", "weight": 0 to 1000 or both, and where wanted with "upstream": "NAME", "deadline": "10m", "then": "keep" or "close", with nothing else in it"#;

const NOTHING: Problem = Problem::Invalid("nothing is to be changed: name a state or a weight");
const WEIGHT: Problem = Problem::Invalid("the weight is not from 0 to 1000");
const DURATION: Problem =
    Problem::Invalid("the deadline is no time: write a whole number and ms, s, m or h, such as \"10m\"");
const NO_END: Problem = Problem::Invalid("only \"drain\" and \"down\" have a deadline");
const NEVER: Problem =
    Problem::Invalid("\"then\" needs a \"deadline\" with \"drain\": it says what happens after it");

/// The body of a call; unknown fields are rejected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    upstream: Option<String>,
    instance: String,
    state: Option<State>,
    weight: Option<u32>,
    deadline: Option<String>,
    then: Option<Afterwards>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ready,
    Drain,
    Down,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Afterwards {
    Keep,
    Close,
}

impl Call {
    /// Validates the call. A deadline counts from `now`.
    pub(super) fn order(self, now: Instant) -> Result<InstanceUpdate, Problem> {
        if self.state.is_none() && self.weight.is_none() {
            return Err(NOTHING);
        }
        if self.weight.is_some_and(|weight| weight > 1000) {
            return Err(WEIGHT);
        }
        Ok(InstanceUpdate {
            deadline: self.deadline(now)?,
            upstream: self.upstream,
            instance: self.instance,
            state: self.state.map(State::wanted),
            weight: self.weight,
        })
    }

    fn deadline(&self, now: Instant) -> Result<Option<Deadline>, Problem> {
        let time = self.deadline.as_ref().map(|text| config::duration(text).ok_or(DURATION)).transpose()?;
        let then = match self.then {
            Some(Afterwards::Close) => DeadlineAction::Close,
            Some(Afterwards::Keep) | None => DeadlineAction::Keep,
        };
        match (self.state, time, self.then) {
            (_, None, None) => Ok(None),
            (None | Some(State::Ready), ..) => Err(NO_END),
            (Some(State::Drain), None, Some(_)) => Err(NEVER),
            (Some(State::Down), None, Some(_)) => Ok(Some(Deadline { at: now, then })),
            (_, Some(time), _) => Ok(Some(Deadline { at: now + time, then })),
        }
    }
}

impl State {
    fn wanted(self) -> InstanceState {
        match self {
            State::Ready => InstanceState::Ready,
            State::Drain => InstanceState::Drain,
            State::Down => InstanceState::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Result<InstanceUpdate, Problem> {
        let call: Call = serde_json::from_str(body).map_err(|_| Problem::Malformed(EXPECTED))?;
        call.order(Instant::now())
    }

    fn with(rest: &str) -> Result<InstanceUpdate, Problem> {
        read(&format!("{{\"instance\": \"127.0.0.1:5001\", {rest}}}"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_says_what_it_changes() {
        let order = InstanceUpdate {
            upstream: None,
            instance: "127.0.0.1:5001".into(),
            state: Some(InstanceState::Ready),
            weight: None,
            deadline: None,
        };
        assert_eq!(with(r#""state": "ready""#), Ok(order.clone()));
        let at = Instant::now() + Duration::from_secs(600);
        let drain = InstanceUpdate {
            upstream: Some("app".into()),
            state: Some(InstanceState::Drain),
            weight: Some(0),
            deadline: Some(Deadline { at, then: DeadlineAction::Close }),
            ..order.clone()
        };
        let said = r#""upstream": "app", "state": "drain", "weight": 0, "deadline": "10m", "then": "close""#;
        assert_eq!(with(said), Ok(drain));
        let now = Some(Deadline { at: Instant::now(), then: DeadlineAction::Close });
        let down = InstanceUpdate { state: Some(InstanceState::Down), deadline: now, ..order };
        assert_eq!(with(r#""state": "down", "then": "close""#), Ok(down));
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_with_a_reason() {
        for (said, problem) in [
            (r#""upstream": "app""#, NOTHING),
            (r#""weight": 1001"#, WEIGHT),
            (r#""state": "drain", "deadline": "10""#, DURATION),
            (r#""state": "drain", "deadline": "-1s""#, DURATION),
            (r#""state": "drain", "deadline": "999999h""#, DURATION),
            (r#""state": "ready", "deadline": "10m""#, NO_END),
            (r#""weight": 5, "deadline": "10m""#, NO_END),
            (r#""state": "drain", "then": "close""#, NEVER),
        ] {
            assert_eq!(with(said), Err(problem), "{said}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_malformed() {
        for said in [
            r#""state": "off""#,
            r#""weight": "5""#,
            r#""weight": -1"#,
            r#""state": "drain", "x": 1"#,
            r#""then": 1"#,
        ] {
            assert_eq!(with(said), Err(Problem::Malformed(EXPECTED)), "{said}");
        }
        for body in ["", "{}", "[]", r#"{"state": "drain"}"#, r#"{"instance": 5001, "state": "drain"}"#] {
            assert_eq!(read(body), Err(Problem::Malformed(EXPECTED)), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_reading_panic(body in "[{}\\[\\]\":,a-z0-9 .]{0,60}", deadline in "\\PC{0,24}") {
            let _ = read(&body);
            let said = serde_json::json!({ "instance": "[::1]:1", "state": "down", "deadline": deadline });
            let _ = read(&said.to_string());
        }
    }
}
