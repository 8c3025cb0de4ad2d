//! Logins and losses, counted exactly.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vestibule::lab::load::{Load, LoadResult, Progress};

use super::{load, run, wait_for};
use crate::support::service::{Service, send};
use crate::support::stub::Stub;

const LOGIN: &str = "
[session]
[[session.login]]
path = '/console/api/login'
json = '{ \"email\": \"u{user}@example.com\", \"password\": \"{base64:Passw0rd{user}}\" }'
[[session.logout]]
path = '/console/api/logout'
method = 'POST'
[session.check]
path = '/console/api/account/profile'
headers = { 'X-CSRF-Token' = '{cookie:csrf_token}' }
";

const PROFILE: &str = "
instance_header = 'X-Stub-Instance'
[users]
count = 20
think = { median = '20ms', p95 = '40ms' }
[[action]]
name = 'profile'
session = true
path = '/console/api/account/profile'
headers = { 'X-CSRF-Token' = '{cookie:csrf_token}' }
contains = '@example.com'
";

/// Runs `load` and starts the instance again in the middle: it forgets everybody.
async fn run_over_restart(load: Load, stub: &mut Stub) -> LoadResult {
    let (progress, mut watched) = watch::channel(Progress::default());
    let running = tokio::spawn(load.run(progress, CancellationToken::new()));
    wait_for(&mut watched, Duration::from_millis(700)).await;
    stub.restart().await;
    running.await.unwrap().unwrap()
}

#[tokio::test]
async fn every_session_that_an_instance_forgets_is_counted_once() {
    let mut stub = Stub::start(&["--instance", "one"]).await;
    let load = load(&format!("duration = '3s'{PROFILE}{LOGIN}"), stub.address);
    let result = run_over_restart(load, &mut stub).await;
    let stats = stub.stats().await;
    assert_eq!((result.sessions.begun, result.sessions.lost, result.sessions.unclear), (40, 20, 0));
    assert_eq!((&stats["logins"], &stats["sessions_unknown"]), (&20.into(), &20.into()));
    let mut losers: Vec<_> = result.losses.iter().map(|loss| loss.user).collect();
    assert!(result.losses.iter().all(|loss| loss.instance.as_deref() == Some("one") && loss.at > 0.3));
    losers.sort_unstable();
    assert_eq!(losers, (1..=20).collect::<Vec<_>>());
    assert!(result.failures.keys().all(|failure| failure == "connect" || failure == "cut"), "{result:?}");
}

#[tokio::test]
async fn who_did_not_notice_the_loss_is_asked_at_the_end() {
    let mut stub = Stub::start(&[]).await;
    let tables = "duration = '2s'\n[users]\ncount = 12\n[arrival]\nrate = 20\n[[action]]\nname = 'a'\npath = '/health'";
    let result = run_over_restart(load(&format!("{tables}{LOGIN}"), stub.address), &mut stub).await;
    assert_eq!((result.sessions.begun, result.sessions.lost, result.sessions.unclear), (12, 12, 0));
    assert!(result.losses.iter().all(|loss| loss.at >= 2.0), "{:?}", result.losses);
}

#[tokio::test]
async fn who_logs_out_comes_back_with_another_session() {
    let stub = Stub::start(&[]).await;
    let login = LOGIN.replace("[session]\n", "[session]\nlog_out = '100%'\n");
    let tables = PROFILE.replace("[users]", "[arrival]\nrate = 100\n[users]").replace("20ms", "1ms");
    let result = run(load(&format!("{tables}{login}"), stub.address)).await;
    assert_eq!((result.all.done, result.all.failed), (100, 0), "{:?}", result.failures);
    assert_eq!((result.sessions.begun, result.sessions.ended, result.sessions.lost), (120, 100, 0));
    assert_eq!(stub.stats().await["logins"], 120);
}

/// An application that forgets everybody at once.
fn forgetful() -> Service {
    Service::start(async |request, wire| match request.start_line.as_str() {
        "GET /login HTTP/1.1" => send(wire, 200, &[("set-cookie", "s=1"), ("x-login", "nr-1")], "").await,
        _ => send(wire, 401, &[], "").await,
    })
}

const FORGOTTEN: &str = "
login_header = 'X-Login'
[users]
count = 1
[arrival]
rate = 4
[[action]]
name = 'a'
session = true
path = '/'
[session]
login_attempts = 2
on_lost = 'login'
[[session.login]]
path = '/login'
";

#[tokio::test]
async fn an_action_is_given_up_after_as_many_logins_as_it_may_have() {
    let service = forgetful();
    let result = run(load(FORGOTTEN, service.address())).await;
    // The first action finds a session and logs in twice more, the others only twice.
    assert_eq!((result.sessions.begun, result.sessions.lost), (9, 9));
    assert_eq!(result.requests, 18);
    assert_eq!(result.failures.into_iter().collect::<Vec<_>>(), [("session lost".to_owned(), 4)]);
    assert!(result.losses.iter().all(|loss| loss.login.as_deref() == Some("nr-1")));
}

#[tokio::test]
async fn who_leaves_does_not_come_back() {
    let service = forgetful();
    let mut load = load(&FORGOTTEN.replace("on_lost = 'login'", "on_lost = 'leave'"), service.address());
    load.scenario.timeout = Duration::from_millis(300);
    let result = run(load).await;
    assert_eq!((result.sessions.begun, result.sessions.lost, result.requests), (1, 1, 2));
    let expected = [("not begun".to_owned(), 3), ("session lost".to_owned(), 1)];
    assert_eq!(result.failures.into_iter().collect::<Vec<_>>(), expected);
}
