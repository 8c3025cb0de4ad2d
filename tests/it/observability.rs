//! Operators see every request once, and never a secret.

use serde_json::Value;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule};

#[tokio::test]
async fn every_request_is_counted_once_with_its_status() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/teapot" => Reply::text(418, ""),
        _ => Reply::text(200, ""),
    })
    .await;
    let config = Config::to(&[upstream.address()]).workers(2).route("host = \"h\"");
    let proxy = Vestibule::start(config).await;
    for (target, host) in [("/", "h"), ("/", "h"), ("/teapot", "h"), ("/", "nowhere")] {
        proxy.get(target, &[("Host", host)]).await;
    }
    proxy.wait_for_metric("http_requests_total", "", 4.0).await;
    assert_eq!(proxy.metric("http_requests_total", "status=\"200\"").await, 2.0);
    assert_eq!(proxy.metric("http_requests_total", "status=\"418\"").await, 1.0);
    assert_eq!(proxy.metric("http_requests_total", "status=\"404\"").await, 1.0);
    assert_eq!(proxy.metric("http_request_duration_seconds_count", "").await, 4.0);
    assert_eq!(proxy.metric("upstream_requests_total", "").await, 3.0);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_counted_with_the_status_it_got() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let config = Config::to(&[upstream.address()]).with("[limits]\nheader_bytes = \"256KiB\"");
    let proxy = Vestibule::start(config).await;
    let (target, value) = ("a".repeat(70_000), "a".repeat(300_000));
    for (head, status) in [
        (format!("GET /{target} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {value}\r\n\r\n"), 431),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = proxy.connect().await;
        client.send(head).await;
        assert_eq!(client.response().await.status, status);
        let label = format!("status=\"{status}\"");
        proxy.wait_for_metric("http_requests_total", &label, 1.0).await;
    }
    proxy.wait_for_metric("http_requests_total", "", 3.0).await;
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_last_byte_or_its_client_has_left() {
    let signal = Signal::new();
    let upstream = Upstream::answering(Reply::chunked(200, &[]).chunk("a").wait(&signal).end()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let (mut stays, mut leaves) = (proxy.connect().await, proxy.connect().await);
    for client in [&mut stays, &mut leaves] {
        client.send_request("GET", "/", &[], b"").await;
    }
    let mut response = stays.start_response().await;
    leaves.start_response().await;
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 2.0);
    drop(leaves);
    proxy.wait_for_metric("upstream_requests_in_flight", "", 1.0).await;
    signal.fire();
    stays.finish(&mut response).await.unwrap();
    proxy.wait_for_metric("upstream_requests_in_flight", "", 0.0).await;
    proxy.wait_for_metric("http_requests_total", "status=\"200\"", 2.0).await;
}

#[tokio::test]
async fn sessions_are_counted_by_outcome() {
    let (mut redis, upstream) = (Redis::start().await, Upstream::answering(Reply::text(200, "")).await);
    redis.put_session("abc", &[("user_id", "42")]).await;
    let store = format!("[session.cache]\nenabled = false\n[session.store]\nurl = \"{}\"", redis.url());
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(&store)).await;
    for cookie in ["session-id=abc", "session-id=abc", "session-id=gone", "other=1"] {
        proxy.get("/", &[("Cookie", cookie)]).await;
    }
    redis.stop();
    proxy.get("/", &[("Cookie", "session-id=abc")]).await;
    let count = async |outcome: &str| {
        proxy.metric("session_resolutions_total", &format!("outcome=\"{outcome}\"")).await
    };
    assert_eq!((count("active").await, count("unknown").await, count("unavailable").await), (2.0, 1.0, 1.0));
    assert_eq!(proxy.metric("session_resolutions_total", "").await, 5.0);
    assert_eq!(proxy.metric("session_store_errors_total", "").await, 1.0);
}

#[tokio::test]
async fn the_page_is_openmetrics() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let page = proxy.admin("/metrics").await;
    let kind = page.headers.get("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(page.text().ends_with("# EOF\n"));
    assert_eq!(proxy.admin("/nothing").await.status, 404);
}

#[tokio::test]
async fn the_readme_lists_exactly_the_metrics_that_are_there() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let page = proxy.admin("/metrics").await;
    let mut served: Vec<String> = page.text().lines().filter_map(metric_of_type_line).collect();
    let readme = include_str!("../../README.md");
    let table = readme.split("| metric | labels | meaning |").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = table.lines().filter_map(|row| row.strip_prefix("| `")?.split(" | ").next());
    let mut listed: Vec<String> =
        names.flat_map(|names| names.split(", ").map(|name| name.trim_matches('`').to_owned())).collect();
    served.sort();
    listed.sort();
    assert_eq!(served, listed);
}

/// `# TYPE http_requests counter` is `http_requests_total`.
fn metric_of_type_line(line: &str) -> Option<String> {
    let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
    Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
}

/// The access-log line about a path.
async fn log_line(program: &Program, path: &str) -> Value {
    let find = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["path"] == path).then_some(line)
    };
    program.process.wait_for_line("an access-log line", find).await
}

#[tokio::test]
async fn every_request_has_one_line_that_tells_what_happened() {
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let upstream = Upstream::answering(Reply::text(201, "answer")).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let program = Program::start(Config::to(&[upstream.address()]).with(&store)).await;
    let headers = [("Cookie", "session-id=abc")];
    Client::connect(program.address).await.request("POST", "/told?token=1", &headers, b"body").await;
    let line = log_line(&program, "/told").await;
    for (field, expected) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "POST".into()),
        ("host", "localhost".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 201.into()),
        ("bytes_received", 4.into()),
        ("bytes_sent", 6.into()),
        ("route", "/".into()),
        ("upstream", "app".into()),
        ("instance", upstream.address().to_string().into()),
        ("attempts", 1.into()),
        ("mode", "shared".into()),
        ("session", "active".into()),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert_eq!(line["request_id"], upstream.only_request().headers.get("x-request-id").unwrap());
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    let lines = program.process.stdout();
    assert_eq!(lines.iter().filter(|line| line.contains("/told")).count(), 1, "{lines:?}");
}

/// Trailers are the last that is read of an answer: nothing asks for more behind them.
#[tokio::test]
async fn an_answer_with_trailers_is_whole_and_leaves_its_connection_to_the_next() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/at-once" => Reply::chunked(200, &[]).chunk("abc").end_with_trailers(&[("X-Sum", "6")]),
        _ => Reply::chunked(200, &[("Trailer", "X-Sum")]).chunk("abc").end_with_trailers(&[("X-Sum", "6")]),
    })
    .await;
    let program = Program::start(Config::to(&[upstream.address()])).await;
    let mut client = Client::connect(program.address).await;
    for (path, headers) in [("/at-once", &[][..]), ("/announced", &[("TE", "trailers")]), ("/untaken", &[])] {
        assert_eq!(client.request("GET", path, headers, b"").await.text(), "abc");
        let line = log_line(&program, path).await;
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &Value::Null), "{path}: {line}");
    }
    let mut client = H2Client::connect(program.address).await;
    let request = http::Request::get("http://h/h2").header("te", "trailers").body(Default::default());
    assert_eq!(client.request(request.unwrap()).await.unwrap().status, 200);
    let line = log_line(&program, "/h2").await;
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &Value::Null), "{line}");
    assert_eq!((upstream.connections_opened(), upstream.requests().len()), (1, 4));
}

#[tokio::test]
async fn an_error_names_the_request_that_the_log_explains() {
    let program = Program::start(Config::to(&["127.0.0.1:1".parse().unwrap()])).await;
    let problem = client::get(program.address, "/lost").await;
    assert_eq!(problem.status, 502);
    let line = log_line(&program, "/lost").await;
    assert_eq!(line["request_id"], problem.json()["request_id"]);
    assert!(line["request_id"].is_string() && line["reason"].is_string(), "{line}");
}

#[tokio::test]
async fn no_output_ever_holds_a_secret() {
    let redis = Redis::start().await;
    let () = redis.command("ACL", ("SETUSER", "proxy", "on", ">store-password", "~*", "&*", "+@all")).await;
    redis.put_session("secret-id", &[("user_id", "42"), ("token", "secret-field")]).await;
    let url = redis.url().replace("redis://", "redis://proxy:store-password@");
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/login" => Reply::with_headers(200, &[("Vestibule-Session", "set; token=secret-field")], ""),
        _ => Reply::text(200, ""),
    })
    .await;
    let config = Config::to(&[upstream.address()])
        .upstream("session_control = true")
        .with(&format!("[session.store]\nurl = \"{url}\""));
    let mut program = Program::start_with(config, &["--log-level", "trace"]).await;
    let headers =
        [("Cookie", "session-id=secret-id; other=secret-cookie"), ("Authorization", "Bearer secret-token")];
    let mut made = String::new();
    for target in ["/", "/x?key=secret-query", "/login", "/"] {
        let response = client::get_with(program.address, target, &headers).await;
        assert_eq!(response.status, 200, "{}", response.text());
        if target == "/login" {
            made = response.headers.get("set-cookie").unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
        }
    }
    drop(redis);
    assert_eq!(
        client::get_with(program.address, "/", &[("Cookie", "session-id=secret-other")]).await.status,
        503
    );
    let metrics = client::get(program.admin, "/metrics").await;
    program.process.signal("TERM");
    program.process.exit().await;
    let output = [program.process.stdout(), program.process.stderr()].concat().join("\n");
    assert!(output.contains("listening") && output.contains("\"path\":\"/login\""), "{output}");
    assert_eq!(made.len(), 43);
    for secret in ["secret-", "store-password", made.as_str()] {
        assert!(!output.contains(secret), "{secret} in {output}");
        assert!(!metrics.text().contains(secret), "{secret} in the metrics");
    }
}
