//! `POST /api/v1/sessions/revoke`.

use std::fmt::Display;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::admin::reply::{self, Reply};
use crate::session::{Durability, RevokeTarget, Revoked, SessionId};

use super::{Problem, auth, body};

const EXPECTED: &str = r#"{"id": "..."} or {"user": "..."}, with nothing else in it"#;
const NOT_AN_ID: Problem = Problem::Invalid("this is no session id: it does not match session.id_pattern");
const NO_USER: Problem = Problem::Invalid("the user is empty");

/// The body of a call: exactly one of the two fields.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Call {
    Id(String),
    User(String),
}

/// The response to a call that was carried out.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    sessions: u64,
}

/// Revokes one session, or all sessions of a user: 200 when the revocation is durable, 202 when it is in
/// effect but a store failure may undo it.
pub(in crate::admin) async fn revoke_sessions(admin: &Admin, request: Request<Incoming>) -> Reply {
    match target(admin, request).await {
        Ok(target) => revoke(admin, &target).await,
        Err(problem) => {
            log(problem.outcome(), None, None);
            problem.into()
        }
    }
}

async fn target(admin: &Admin, request: Request<Incoming>) -> Result<RevokeTarget, Problem> {
    let config = admin.shared.plan.load_full().config.clone();
    let (head, body) = request.into_parts();
    auth::check(config.admin.as_ref(), &head.headers)?;
    body::json::<Call, _>(&head.headers, body, EXPECTED).await?.target(&config.session.id_pattern)
}

impl Call {
    fn target(self, id_pattern: &Regex) -> Result<RevokeTarget, Problem> {
        match self {
            Call::Id(id) if id_pattern.is_match(&id) => Ok(RevokeTarget::Session(SessionId::new(&id))),
            Call::Id(_) => Err(NOT_AN_ID),
            Call::User(user) if user.is_empty() => Err(NO_USER),
            Call::User(user) => Ok(RevokeTarget::User(user)),
        }
    }
}

async fn revoke(admin: &Admin, target: &RevokeTarget) -> Reply {
    let revoked = admin.sessions.revoke(&admin.shared, target).await.map_err(Problem::Store);
    let mark = admin.shared.marks.mark(target.expose());
    let about = Some((target.kind(), &mark as &dyn Display));
    match revoked {
        Ok(revoked) => {
            let (status, answer) = answer(revoked);
            log(answer.status, about, Some(answer.sessions));
            reply::json("application/json", status, &answer)
        }
        Err(problem) => {
            log(problem.outcome(), about, None);
            problem.into()
        }
    }
}

fn answer(Revoked { sessions, durability }: Revoked) -> (StatusCode, Answer) {
    match durability {
        Durability::Durable => {
            (StatusCode::OK, Answer { status: "revoked", durable: None, reason: None, sessions })
        }
        Durability::Accepted(reason) => {
            let (durable, reason) = (Some(false), Some(reason));
            (StatusCode::ACCEPTED, Answer { status: "accepted", durable, reason, sessions })
        }
    }
}

/// Writes one log line per call. `about` is the kind of target and its fingerprint.
fn log(outcome: &str, about: Option<(&str, &dyn Display)>, sessions: Option<u64>) {
    let (by, mark) = about.map(|(by, mark)| (by, tracing::field::display(mark))).unzip();
    tracing::info!(outcome, by, mark, sessions, "sessions revoke");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Result<RevokeTarget, Problem> {
        let call: Call = serde_json::from_str(body).map_err(|_| Problem::Malformed(EXPECTED))?;
        call.target(&Regex::new("^(?:[a-z]{1,8})$").unwrap())
    }

    #[test]
    fn a_call_names_one_session_or_one_user() {
        assert_eq!(read(r#"{"id": "abc"}"#), Ok(RevokeTarget::Session(SessionId::new("abc"))));
        assert_eq!(read(r#" {"user":"Zo\u00eb"} "#), Ok(RevokeTarget::User("Zoë".to_owned())));
    }

    #[test]
    fn anything_else_is_malformed() {
        for body in [
            "",
            "{}",
            "[]",
            "null",
            "\"id\"",
            "{\"id\"",
            r#"{"id": "abc", "user": "42"}"#,
            r#"{"id": "abc", "id": "abc"}"#,
            r#"{"id": "abc", "x": 1}"#,
            r#"{"x": 1}"#,
            r#"{"id": null}"#,
            r#"{"id": ["abc"]}"#,
            r#"{"user": 42}"#,
            r#"{"ID": "abc"}"#,
            r#"{"id": "abc"} {}"#,
        ] {
            assert_eq!(read(body), Err(Problem::Malformed(EXPECTED)), "{body}");
        }
    }

    #[test]
    fn an_id_that_cannot_be_one_and_an_empty_user_are_refused() {
        for id in ["", "abc1", "a b", "abcdefghi", "abc\\n"] {
            assert_eq!(read(&format!("{{\"id\": \"{id}\"}}")), Err(NOT_AN_ID), "{id}");
        }
        assert_eq!(read(r#"{"user": ""}"#), Err(NO_USER));
    }

    #[test]
    fn answers_are_written_as_documented() {
        let written = |durability| {
            let (status, answer) = answer(Revoked { sessions: 1, durability });
            (status.as_u16(), serde_json::to_string(&answer).unwrap())
        };
        assert_eq!(written(Durability::Durable), (200, r#"{"status":"revoked","sessions":1}"#.to_owned()));
        let accepted = r#"{"status":"accepted","durable":false,"reason":"why","sessions":1}"#;
        assert_eq!(written(Durability::Accepted("why")), (202, accepted.to_owned()));
    }

    proptest! {
        #[test]
        fn only_what_matches_the_pattern_is_taken_for_an_id(id in "\\PC{0,12}") {
            let fits = (1..=8).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_lowercase());
            let body = serde_json::json!({ "id": id }).to_string();
            prop_assert_eq!(read(&body).is_ok(), fits);
        }

        #[test]
        fn no_body_makes_reading_panic(body in "[{}\\[\\]\":,a-z0-9 ]{0,40}") {
            let _ = read(&body);
        }
    }
}
