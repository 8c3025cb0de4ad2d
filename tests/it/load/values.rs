//! What users take from answers and send again, and forms.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use vestibule::lab::load::{LoadResult, scenario};

use super::{load, run};
use crate::support::service::{Service, begin, chunk, send};
use crate::support::stub::Stub;
use crate::support::wire::{Framing, Head, Headers, Wire};

/// What arrived: the first line, the `Authorization` header and the body.
type Arrived = Arc<Mutex<Vec<(String, String, String)>>>;

/// A service that writes down every request and gives the answer of `answer`.
fn service<A>(answer: A) -> (Service, Arrived)
where
    A: AsyncFn(&str, &mut Wire<TcpStream>) -> io::Result<()> + Send + 'static,
{
    let arrived = Arrived::default();
    let log = arrived.clone();
    let service = Service::start(async move |head: &Head, wire| {
        let body = body(head, wire).await?;
        let line = head.start_line.trim_end_matches(" HTTP/1.1").to_owned();
        let authorization = head.headers.get("authorization").unwrap_or_default().to_owned();
        log.lock().unwrap().push((line.clone(), authorization, String::from_utf8(body).unwrap()));
        answer(&line, wire).await
    });
    (service, arrived)
}

async fn body(head: &Head, wire: &mut Wire<TcpStream>) -> io::Result<Vec<u8>> {
    let (mut framing, mut trailers) = (Framing::of(&head.headers, Framing::Length(0)), Headers::default());
    let mut body = Vec::new();
    while let Some(piece) = wire.piece(&mut framing, &mut trailers).await? {
        body.extend(piece);
    }
    Ok(body)
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// One user acts once: the scenario's tables besides.
async fn once(tables: &str, service: &Service) -> LoadResult {
    run(load(
        &format!("timeout = '60s'\n[users]\ncount = 1\n[arrival]\nrate = 1\nspacing = 'even'\n{tables}"),
        service.address(),
    ))
    .await
}

fn failures(result: LoadResult) -> Vec<(String, u64)> {
    result.failures.into_iter().collect()
}

const LOGIN: &str = "
[session]
[[session.login]]
path = '/login'
form = { user = 'u{user} & co', password = 'pä ss' }
capture = { token = '/data/access_token' }
[[action]]
name = 'orders'
session = true
path = '/orders'
headers = { Authorization = 'Bearer {token}' }
";

#[tokio::test]
async fn a_token_from_a_login_by_form_is_sent_with_what_follows() {
    let (service, arrived) = service(async |line, wire| match line {
        "POST /login" => send(wire, 200, &[JSON], r#"{"data":{"access_token":"t-1"}}"#).await,
        _ => send(wire, 200, &[], "").await,
    });
    let result = once(LOGIN, &service).await;
    assert_eq!((result.all.done, result.all.failed), (1, 0), "{:?}", result.failures);
    let told = |line: &str, authorization: &str, body: &str| {
        (line.to_owned(), authorization.to_owned(), body.to_owned())
    };
    assert_eq!(
        *arrived.lock().unwrap(),
        [
            told("POST /login", "", "user=u1+%26+co&password=p%C3%A4+ss"),
            told("GET /orders", "Bearer t-1", "")
        ]
    );
}

#[tokio::test]
async fn a_value_is_written_as_its_place_demands() {
    let (service, arrived) = service(async |line, wire| match line {
        "GET /page" => {
            let headers = [("x-next", "a/b c?"), ("set-cookie", "sid=s 1; Path=/")];
            send(wire, 200, &headers, "<input name=csrf value=\"q\"uote&\">").await
        }
        _ => send(wire, 200, &[], "").await,
    });
    let tables = r#"
[[action]]
name = 'a'
path = '/page'
capture = { next = 'header:X-Next', sid = 'cookie:sid', csrf = 'regex:name=csrf value="(.+)">' }
[[action.then]]
path = '/x/{next}?q={csrf}'
json = '{ "csrf": "{csrf}" }'
[[action.then]]
path = '/form'
form = { csrf = '{csrf}', sid = ['{sid}', '2'] }
[[action.then]]
path = '/text'
text = '{csrf} {base64:{sid}}'
"#;
    let result = once(tables, &service).await;
    assert_eq!((result.all.done, result.all.failed), (1, 0), "{:?}", result.failures);
    let arrived = arrived.lock().unwrap();
    let arrived: Vec<_> = arrived.iter().map(|(line, _, body)| (line.as_str(), body.as_str())).collect();
    assert_eq!(
        arrived,
        [
            ("GET /page", ""),
            ("POST /x/a%2Fb%20c%3F?q=q%22uote%26", "{ \"csrf\": \"q\\\"uote&\" }"),
            ("POST /form", "csrf=q%22uote%26&sid=s+1&sid=2"),
            ("POST /text", "q\"uote& cyAx"),
        ]
    );
}

#[tokio::test]
async fn what_an_answer_does_not_hold_fails_the_action_with_its_own_cause() {
    let tables = "
[[action]]
name = 'a'
path = '/'
capture = { id = '/id', next = 'header:X-Next' }
[[action.then]]
path = '/{id}'
";
    for (body, cause) in [
        ("{\"id\":null}", "no value for id in the answer"),
        ("{\"id\":[1]}", "no value for id in the answer"),
        ("not JSON", "no value for id in the answer"),
        ("{\"id\":1}", "no value for next in the answer"),
    ] {
        let (service, arrived) = service(async move |_, wire| send(wire, 200, &[JSON], body).await);
        assert_eq!(failures(once(tables, &service).await), [(cause.to_owned(), 1)], "{body}");
        assert_eq!(arrived.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_value_or_body_beyond_its_bound_is_not_kept() {
    let tables = "[[action]]\nname = 'a'\npath = '/'\ncapture = { id = '/id' }";
    for (letters, cause) in [
        (8 << 10, None),
        ((8 << 10) + 1, Some("the value for id is longer than 8 KiB")),
        (1 << 20, Some("the answer that id is looked for in is longer than 1 MiB")),
    ] {
        let (service, _) = service(async move |_, wire| {
            send(wire, 200, &[JSON], &format!("{{\"id\":\"{}\"}}", "x".repeat(letters))).await
        });
        let expected: Vec<_> = cause.iter().map(|cause| ((*cause).to_owned(), 1)).collect();
        assert_eq!(failures(once(tables, &service).await), expected, "{letters}");
    }
}

#[tokio::test]
async fn an_action_that_needs_a_value_nobody_has_yet_sends_nothing() {
    let (service, arrived) = service(async |_, wire| send(wire, 200, &[JSON], "{\"id\":\"1\"}").await);
    let tables = "
[[action]]
name = 'use'
weight = 1000000
path = '/{id}'
[[action]]
name = 'get'
path = '/'
capture = { id = '/id' }
";
    assert_eq!(failures(once(tables, &service).await), [("no value for id yet".to_owned(), 1)]);
    assert_eq!(arrived.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn no_failure_tells_a_value() {
    let (service, _) = service(async |line, wire| match line {
        "POST /login" => send(wire, 200, &[JSON], r#"{"data":{"access_token":"s3cret-token"}}"#).await,
        _ => {
            let kind = [("content-type", "application/problem+json")];
            send(wire, 403, &kind, r#"{"detail":"the token s3cret-token may not"}"#).await
        }
    });
    let result = once(LOGIN, &service).await;
    assert_eq!(failures(result), [("status 403: the token {token} may not".to_owned(), 1)]);
}

#[tokio::test]
async fn a_stream_gives_values_while_it_runs_and_is_stopped_by_one() {
    let (stopped, stop) = tokio::sync::watch::channel(false);
    let (service, arrived) = service(async move |line, wire| match line {
        "POST /chat" => {
            begin(wire, "text/event-stream").await?;
            let event =
                "event: ping\n\ndata: no JSON\n\ndata: {\"task\":\"t/1\",\ndata: \"chat\":\"c-1\"}\r\n\r\n";
            chunk(wire, event.as_bytes()).await?;
            // Ends only when it is stopped.
            let _ = stop.clone().wait_for(|stopped| *stopped).await;
            chunk(wire, b"data: {\"event\":\"end\"}\n\n").await?;
            chunk(wire, b"").await
        }
        _ => {
            stopped.send_replace(line.ends_with("/stop"));
            send(wire, 200, &[], "").await
        }
    });
    let tables = "
[[action]]
name = 'a'
stream = true
path = '/chat'
text = '-'
contains = 'end'
capture = { task = '/task', chat = '/chat' }
meanwhile = { path = '/chat/{task}/stop', method = 'POST' }
[[action.then]]
path = '/chat/{chat}'
";
    let result = once(tables, &service).await;
    assert_eq!((result.all.done, result.all.failed), (1, 0), "{:?}", result.failures);
    let lines: Vec<_> = arrived.lock().unwrap().iter().map(|(line, ..)| line.clone()).collect();
    assert_eq!(lines, ["POST /chat", "POST /chat/t%2F1/stop", "GET /chat/c-1"]);
}

#[tokio::test]
async fn what_fails_behind_the_first_request_says_where() {
    let (service, _) = service(async |line, wire| match line {
        "GET /" => {
            begin(wire, "text/event-stream").await?;
            chunk(wire, b"data: 1\n\n").await?;
            chunk(wire, b"").await
        }
        _ => send(wire, 500, &[], "").await,
    });
    let then = "[[action]]\nname = 'a'\npath = '/'\n[[action.then]]\npath = '/second'";
    assert_eq!(failures(once(then, &service).await), [("request 2: status 500".to_owned(), 1)]);
    let meanwhile = "[[action]]\nname = 'a'\nstream = true\npath = '/'\nmeanwhile = { path = '/m' }";
    assert_eq!(failures(once(meanwhile, &service).await), [("meanwhile: status 500".to_owned(), 1)]);
}

#[tokio::test]
async fn a_logout_forgets_every_value() {
    let (service, arrived) = service(async |line, wire| match line {
        "POST /login" => send(wire, 200, &[JSON], r#"{"data":{"access_token":"t-1"}}"#).await,
        _ => send(wire, 200, &[JSON], "{\"cart\":\"c-1\"}").await,
    });
    let logout = "[session]\nlog_out = '100%'\n[[session.logout]]\npath = '/logout?{token}'\n";
    let tables = LOGIN.replace("[session]\n", logout)
        + "[[action.then]]\npath = '/cart'\ncapture = { cart = '/cart' }\n"
        + "[[action]]\nname = 'b'\npath = '/{cart}'\n";
    let result = run(load(
        &format!("timeout = '60s'\n[users]\ncount = 1\n[arrival]\nrate = 40\nspacing = 'even'\n{tables}"),
        service.address(),
    ))
    .await;
    // Whatever comes first after a login has no cart.
    let failed = result.actions["b"].failed;
    assert!(failed > 0 && failed == result.actions["b"].done, "{:?}", result.failures);
    assert_eq!(failures(result), [("no value for cart yet".to_owned(), failed)]);
    let lines = arrived.lock().unwrap();
    assert!(lines.iter().any(|(line, ..)| line == "GET /logout?t-1"), "{lines:?}");
}

#[tokio::test]
async fn people_at_a_dify_go_on_with_their_conversation_and_stop_its_answer() {
    let stub = Stub::start(&[]).await;
    let mut load = load("[[action]]\nname = 'a'\npath = '/'", stub.address);
    load.scenario = scenario("dify-chat").unwrap().0;
    load.scenario.users.count = 12;
    load.scenario.users.think = None;
    (load.scenario.warm_up, load.scenario.duration) = (Duration::ZERO, Duration::from_secs(3));
    let result = run(load).await;
    let stats = stub.stats().await;
    let chats = result.actions["chat"].done;
    assert!(chats > 0 && result.all.failed == 0, "{:?}", result.failures);
    let stops = stats["endpoints"]["POST /api/chat-messages/*/stop"].as_u64().unwrap();
    assert_eq!(stats["endpoints"]["POST /api/chat-messages"], 2 * stops);
    assert_eq!((stops, &stats["endpoints"]["GET /api/passport"]), (chats, &result.sessions.begun.into()));
}
