//! Rates, decisions and what waiting costs.

use std::cell::Cell;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vestibule::lab::load::{Histogram, Progress};

use super::{load, run, wait_for};
use crate::support::RefusedPort;
use crate::support::service::{Service, send};
use crate::support::vestibule::{command, write};

const TWO_ACTIONS: &str = "
[users]
count = 8
[arrival]
rate = 400
[[action]]
name = 'a'
path = '/a'
weight = 3
[[action]]
name = 'b'
path = '/b?{random}'
";

fn at_least(times: &Histogram, milliseconds: f64) -> u64 {
    times.counts.iter().filter(|(time, _)| *time >= milliseconds).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn as_many_actions_are_done_as_were_asked_for() {
    let service = Service::telling(|_| "told".to_owned());
    let result = run(load(TWO_ACTIONS, service.address())).await;
    assert_eq!((result.all.done, result.all.failed, result.requests, result.bytes), (400, 0, 400, 1600));
    assert_eq!((result.asked_rate, result.seconds), (Some(400.0), 1.0));
    assert_eq!(result.all.latency.count, 400);
    assert_eq!(result.timeline.iter().map(|slice| slice.done).sum::<u64>(), 400);
    let ends: Vec<_> = result.timeline.iter().map(|slice| slice.at).collect();
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] == 0.5) && ends[0] == 0.0, "{ends:?}");
}

#[tokio::test]
async fn warming_up_is_not_counted_but_happens() {
    let service = Service::telling(|_| "told".to_owned());
    let result = run(load(&format!("warm_up = '500ms'{TWO_ACTIONS}"), service.address())).await;
    assert_eq!((result.all.done, result.requests), (400, 500));
}

#[tokio::test]
async fn the_same_seed_does_the_same_on_any_number_of_threads() {
    let service = Service::telling(|_| "told".to_owned());
    let mut counts = Vec::new();
    for (seed, threads) in [(1, 1), (1, 3), (2, 1)] {
        let mut load = load(TWO_ACTIONS, service.address());
        (load.seed, load.threads) = (seed, Some(threads));
        let result = run(load).await;
        assert_eq!(result.all.done, 400);
        counts.push(result.actions["a"].done);
    }
    assert_eq!(counts[0], counts[1]);
    assert_ne!(counts[0], counts[2]);
    assert!((270..330).contains(&counts[0]), "{counts:?}");
}

/// A second's stall with 200 actions a second means that 200 people waited for up to a second, half of them for more
/// than half of it. This asserts no timing of ours: a slow machine only makes people wait longer, and a generator that
/// asks less while it waits (coordinated omission) would count four long waits instead, one of each user.
#[tokio::test]
async fn a_stall_is_felt_by_everybody_who_would_have_come() {
    let asked = Cell::new(0);
    let service = Service::start(async move |_, wire| {
        asked.set(asked.get() + 1);
        if asked.get() == 100 {
            // Nobody else is served meanwhile.
            thread::sleep(Duration::from_secs(1));
        }
        send(wire, 200, &[], "told").await
    });
    let tables = "
duration = '2s'
[users]
count = 4
[arrival]
rate = 200
spacing = 'even'
[[action]]
name = 'a'
path = '/'
";
    let times = run(load(tables, service.address())).await.all.latency;
    assert_eq!(times.count, 400);
    assert!(times.max >= 1000.0 && times.p99 >= 950.0, "{} {}", times.max, times.p99);
    for (waited, least) in [(100.0, 175), (500.0, 95), (900.0, 15)] {
        assert!(at_least(&times, waited) >= least, "{waited}: {}", at_least(&times, waited));
    }
}

#[tokio::test]
async fn users_of_the_closed_model_wait_for_their_answers() {
    let service = Service::telling(|_| "told".to_owned());
    let tables = "
duration = '300ms'
[users]
count = 3
think = { median = '10ms', p95 = '10ms' }
[[action]]
name = 'a'
path = '/'
";
    let result = run(load(tables, service.address())).await;
    // Nobody acts more often than every ten milliseconds.
    assert!((3..=90).contains(&result.all.done), "{}", result.all.done);
    assert_eq!((result.asked_rate, result.all.failed), (None, 0));
}

#[tokio::test]
async fn every_failure_is_told_with_its_reason() {
    let service = Service::start(async |request, wire| match request.start_line.as_str() {
        "GET /status HTTP/1.1" => send(wire, 503, &[], "").await,
        "GET /cut HTTP/1.1" => Err(io::ErrorKind::BrokenPipe.into()),
        "GET /silent HTTP/1.1" => wire.until(std::future::pending()).await,
        _ => send(wire, 200, &[], "not what was meant").await,
    });
    for (path, failure) in
        [("status", "status 503"), ("cut", "cut"), ("silent", "timeout"), ("other", "unexpected body")]
    {
        let tables = format!(
            "duration = '100ms'\ntimeout = '200ms'\n[arrival]\nrate = 50\n\
             [[action]]\nname = 'a'\npath = '/{path}'\ncontains = 'meant to be'"
        );
        let result = run(load(&tables, service.address())).await;
        assert_eq!((result.all.done, result.all.failed, result.all.latency.count), (5, 5, 0), "{path}");
        assert_eq!(result.failures.into_iter().collect::<Vec<_>>(), [(failure.to_owned(), 5)]);
    }
}

#[tokio::test]
async fn a_status_is_told_with_what_its_problem_document_says() {
    let service = Service::start(async |request, wire| {
        let kind = if request.start_line.contains("/problem") { "problem+json" } else { "json" };
        let headers = [("Content-Type", format!("application/{kind}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        send(wire, 503, &headers, "{\"detail\":\"Every instance is busy.\"}").await
    });
    for (path, failure) in [("problem", "status 503: Every instance is busy"), ("other", "status 503")] {
        let tables =
            format!("duration = '100ms'\n[arrival]\nrate = 50\n[[action]]\nname = 'a'\npath = '/{path}'");
        let result = run(load(&tables, service.address())).await;
        assert_eq!(result.failures.into_keys().collect::<Vec<_>>(), [failure]);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let service = Service::start(async |_, wire| {
        send(wire, 200, &[], "told").await?;
        Err(io::ErrorKind::BrokenPipe.into())
    });
    let tables =
        "[users]\ncount = 1\n[arrival]\nrate = 5\nspacing = 'even'\n[[action]]\nname = 'a'\npath = '/'";
    let result = run(load(tables, service.address())).await;
    assert_eq!((result.all.done, result.all.failed), (5, 0), "{:?}", result.failures);
}

#[tokio::test]
async fn a_load_that_is_stopped_tells_what_was_done() {
    let service = Service::telling(|_| "told".to_owned());
    let load = load(&format!("duration = '1h'{TWO_ACTIONS}"), service.address());
    let (progress, mut watched) = watch::channel(Progress::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(load.run(progress, stop.clone()));
    wait_for(&mut watched, Duration::from_millis(300)).await;
    stop.cancel();
    let result = running.await.unwrap().unwrap();
    assert!(result.all.done > 0 && result.all.failed == 0, "{:?}", result.all);
    assert!((0.3..600.0).contains(&result.seconds), "{}", result.seconds);
}

#[tokio::test]
async fn nobody_at_the_target_is_no_load() {
    let port = RefusedPort::new();
    let (progress, _) = watch::channel(Progress::default());
    let refused = load(TWO_ACTIONS, port.address()).run(progress, CancellationToken::new()).await;
    let told = refused.unwrap_err().to_string();
    let expected = format!("cannot connect to http://{}: Connection refused", port.address());
    assert!(told.starts_with(&expected), "{told}");
}

#[tokio::test]
async fn a_limit_that_is_passed_is_an_exit_code() {
    let service = Service::telling(|_| "told".to_owned());
    let scenario = write(
        "name = 'x'\nwarm_up = '0s'\nduration = '200ms'\n[arrival]\nrate = 50\n[[action]]\nname = 'a'\npath = '/'\n",
    );
    let path = scenario.path().to_str().unwrap();
    for (limits, code, told) in [
        (&["failed > 0%", "rate < 0.01/s"][..], 0, ""),
        (&["failed > 0%", "p50 >= 0ms"], 10, "  p50 >= 0ms: it is "),
        (&["lost > 1%"], 10, "  lost > 1%: nothing was measured\n"),
        (&["losses > 1%"], 2, ""),
    ] {
        let mut command = command();
        command.args(["load", path, "--target", &format!("http://{}", service.address())]);
        command.args(limits.iter().flat_map(|limit| ["--fail-if", limit]));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{limits:?}\n{stdout}");
        assert!(stdout.contains(told), "{limits:?}\n{stdout}");
        assert_eq!(stdout.contains("failed by --fail-if:"), code == 10, "{stdout}");
    }
}
