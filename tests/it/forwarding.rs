//! A request reaches the instance its route names, and its answer comes back, as they were sent.

use std::time::Duration;

use crate::support::RefusedPort;
use crate::support::client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

async fn in_front_of(upstream: &Upstream) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()])).await
}

#[tokio::test]
async fn method_target_headers_and_body_arrive_unchanged() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = in_front_of(&upstream).await;
    let target = "/a//b%2Fc;d/%7e?x=%20&y=[1]&z";
    let headers = [("Host", "app.example:81"), ("X-Two", "1"), ("X-Two", "2"), ("Accept", "a, b")];
    proxy.connect().await.request("PATCH", target, &headers, b"\0body\xff").await;

    let request = upstream.only_request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PATCH", target));
    assert_eq!(request.version, "HTTP/1.1");
    assert_eq!(request.headers.get("host"), Some("app.example:81"));
    assert_eq!(request.headers.all("x-two"), ["1", "2"]);
    assert_eq!(request.headers.get("accept"), Some("a, b"));
    assert_eq!(request.headers.get("content-length"), Some("6"));
    assert_eq!(request.body, b"\0body\xff");
}

#[tokio::test]
async fn an_answer_comes_back_unchanged() {
    let headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Odd", "\tvalue"), ("Server", "app")];
    let upstream = Upstream::answering(Reply::with_headers(418, &headers, "body")).await;
    let response = in_front_of(&upstream).await.get("/", &[]).await;
    assert_eq!((response.status, response.text()), (418, "body"));
    assert_eq!(response.headers.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.headers.get("x-odd"), Some("value"));
    assert_eq!(response.headers.get("server"), Some("app"));
    assert_eq!(response.headers.get("content-length"), Some("4"));
}

#[tokio::test]
async fn a_chunked_request_arrives_whole() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3;ext=1\r\nabc\r\n").await;
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "abcde");
    let request = upstream.only_request();
    assert_eq!(request.headers.all("transfer-encoding"), ["chunked"]);
    assert_eq!(request.headers.get("content-length"), None);
}

#[tokio::test]
async fn trailers_of_an_answer_come_back() {
    let reply =
        Reply::chunked(200, &[("Trailer", "X-Sum")]).chunk("abc").end_with_trailers(&[("X-Sum", "6")]);
    let upstream = Upstream::answering(reply).await;
    let response = in_front_of(&upstream).await.get("/", &[("TE", "trailers")]).await;
    assert_eq!((response.text(), response.trailers.get("x-sum")), ("abc", Some("6")));
}

#[tokio::test]
async fn trailers_that_were_not_announced_come_back_to_those_who_take_them() {
    let long: &str = "a".repeat(5000).leak();
    let trailers = [("X-Sum", "6"), ("X-Sum", "7"), ("X-Long", long)];
    let large = "b".repeat(300_000);
    let upstream = Upstream::start(move |request| match request.target.as_str() {
        "/announced" => {
            Reply::chunked(200, &[("Trailer", "X-Sum")]).chunk("abc").end_with_trailers(&trailers)
        }
        "/large" => Reply::chunked(200, &[]).chunk(&large).chunk("0\r\n\r\n").end_with_trailers(&trailers),
        "/none" => Reply::chunked(200, &[]).chunk("abc").end(),
        _ => Reply::chunked(200, &[]).chunk("abc").end_with_trailers(&trailers),
    })
    .await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for (target, length) in [("/", 3), ("/announced", 3), ("/large", 300_005), ("/", 3)] {
        let response = client.request("GET", target, &[("TE", "trailers")], b"").await;
        assert_eq!(
            (response.body.len(), response.trailers.all("x-sum")),
            (length, vec!["6", "7"]),
            "{target}"
        );
        assert_eq!(response.trailers.get("x-long").map(str::len), Some(5000), "{target}");
    }
    assert_eq!(client.request("GET", "/none", &[("TE", "trailers")], b"").await.trailers.names(), [""; 0]);
    let response = client.request("GET", "/", &[], b"").await;
    assert_eq!((response.text(), response.trailers.names().len()), ("abc", 0));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/204" => Reply::after_body().head(204, &[]),
        "/304" => Reply::after_body().head(304, &[("ETag", "\"e\"")]),
        _ => Reply::after_body().head(200, &[("Content-Length", "5")]),
    })
    .await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await; // one connection: a stray body would become the next answer
    assert_eq!(client.request("GET", "/204", &[], b"").await.status, 204);
    assert_eq!(client.request("GET", "/304", &[], b"").await.headers.get("etag"), Some("\"e\""));
    let head = client.request("HEAD", "/", &[], b"").await;
    assert_eq!((head.status, head.headers.get("content-length")), (200, Some("5")));
    assert_eq!(client.request("GET", "/204", &[], b"").await.status, 204);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..20 {
        assert_eq!(client.request("POST", "/", &[], b"body").await.status, 200);
    }
    assert_eq!((upstream.connections_opened(), upstream.requests().len()), (1, 20));
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_served_again() {
    let upstream = Upstream::answering(Reply::text(200, "again")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for pause in [0, 1000, 1000] {
        tokio::time::sleep(Duration::from_millis(pause)).await; // past the point where idle state is given up
        assert_eq!(client.request("GET", "/", &[], b"").await.text(), "again");
    }
    for piece in ["GET / HT", "TP/1.1\r\nHos", "t: h\r\n\r\n"] {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        client.send(piece).await;
    }
    assert_eq!(client.response().await.text(), "again");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|request| {
        let pause = if request.target == "/0" { Duration::from_millis(50) } else { Duration::ZERO };
        Reply::after_body().delay(pause).head(200, &[("Content-Length", "2")]).raw(&request.target)
    })
    .await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send((0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect::<String>()).await;
    for n in 0..5 {
        assert_eq!(client.response().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_request_end_here() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = in_front_of(&upstream).await;
    let headers = [
        ("Connection", "keep-alive, X-Hop"),
        ("Connection", "x-hop-2"),
        ("X-Hop", "1"),
        ("X-Hop-2", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"),
        ("X-Stays", "1"),
    ];
    assert_eq!(proxy.get("/", &headers).await.status, 200);
    let request = upstream.only_request();
    for gone in ["x-hop", "x-hop-2", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(request.headers.all(gone), [""; 0], "{gone}");
    }
    assert_eq!(request.headers.get("x-stays"), Some("1"));
}

#[tokio::test]
async fn hop_by_hop_headers_of_an_answer_end_here() {
    let headers = [
        ("Connection", "keep-alive, X-Hop"),
        ("Connection", "X-Hop-2"),
        ("X-Hop", "1"),
        ("X-Hop-2", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Stays", "1"),
    ];
    let upstream = Upstream::answering(Reply::with_headers(200, &headers, "")).await;
    let response = in_front_of(&upstream).await.get("/", &[]).await;
    let names = response.headers.names();
    for gone in ["x-hop", "x-hop-2", "keep-alive", "proxy-connection"] {
        assert!(!names.contains(&gone.to_owned()), "{gone}");
    }
    assert_eq!(response.headers.get("x-stays"), Some("1"));
}

#[tokio::test]
async fn http_1_0_clients_are_answered_and_closed() {
    let upstream = Upstream::answering(Reply::chunked(200, &[]).chunk("ab").chunk("cd").end()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "abcd"));
    assert_eq!(response.headers.get("transfer-encoding"), None);
    assert_eq!(upstream.only_request().version, "HTTP/1.1");
}

#[tokio::test]
async fn an_http_1_0_client_is_shown_that_an_answer_was_cut() {
    let gate = Signal::new();
    let upstream =
        Upstream::answering(Reply::chunked(200, &[]).chunk("half a page").wait(&gate).close()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let mut response = client.start_response().await;
    assert_eq!(client.next_piece(&mut response).await.unwrap().as_deref(), Some(&b"half a page"[..]));
    gate.fire();
    let error = client.finish(&mut response).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_answer_has_the_version_of_its_own_hop() {
    let raw = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(Reply::after_body().raw(raw).close()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.read(15).await, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_chunked_body_arrives_whatever_the_method() {
    for method in ["GET", "HEAD", "DELETE"] {
        let upstream = Upstream::answering(Reply::with_headers(200, &[], "")).await;
        let proxy = in_front_of(&upstream).await;
        let mut client = proxy.connect().await;
        let head = format!("{method} / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(head + "5\r\nquery\r\n0\r\n\r\n").await;
        upstream.wait_until("a request", |seen| !seen.requests.is_empty()).await;
        assert_eq!(upstream.only_request().body, b"query", "{method}");
    }
}

#[tokio::test]
async fn http_2_clients_are_served() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = H2Client::connect(proxy.address()).await;
    let request = http::Request::post("http://app.example/x?y").body("hello".into()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"hello"[..]));
    let request = upstream.only_request();
    assert_eq!((request.target.as_str(), request.version.as_str()), ("/x?y", "HTTP/1.1"));
    assert_eq!(request.headers.all("host"), ["app.example"]);
}

#[tokio::test]
async fn the_longest_path_of_whole_segments_wins() {
    let (root, api, v2) = (named("root").await, named("api").await, named("v2").await);
    let tables = format!(
        "[[upstream]]\nname = \"api\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[route]]\npath = \"/api\"\nupstream = \"api\"\n\
         [[route]]\npath = \"/api/v2\"\nupstream = \"v2\"\n\
         [[route]]\nhost = \"*.example.com\"\npath = \"/api\"\nupstream = \"v2\"\n",
        api.address(),
        v2.address()
    );
    let proxy = Vestibule::start(Config::to(&[root.address()]).with(&tables)).await;
    for (target, expected) in [
        ("/", "root"),
        ("/api", "api"),
        ("/api?x", "api"),
        ("/api/x", "api"),
        ("/api-foo", "root"),
        ("/apix", "root"),
        ("/api/v2/x", "v2"),
        ("/api/v22", "api"),
        ("//api/x", "api"),
        ("/%61pi/x", "api"),
    ] {
        assert_eq!(proxy.get(target, &[]).await.text(), expected, "{target}");
    }
    assert_eq!(proxy.get("/api", &[("Host", "A.Example.COM:80")]).await.text(), "v2");
    assert_eq!(proxy.get("/api", &[("Host", "example.com")]).await.text(), "api");
}

async fn named(name: &'static str) -> Upstream {
    Upstream::answering(Reply::text(200, name)).await
}

#[tokio::test]
async fn without_a_route_it_is_not_found() {
    let upstream = named("app").await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).route("host = \"app.example\"")).await;
    assert_problem(&proxy.get("/", &[]).await, 404);
    assert_eq!(proxy.get("/", &[("Host", "app.example")]).await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[track_caller]
pub(crate) fn assert_problem(response: &client::Response, status: u16) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.headers.get("content-type"), Some("application/problem+json"));
    assert_eq!(response.json()["status"], status);
}

#[tokio::test]
async fn instances_get_requests_by_their_weights() {
    let (light, heavy) = (named("light").await, named("heavy").await);
    let heavy_instance = format!("[[upstream.instance]]\naddress = \"{}\"\nweight = 3", heavy.address());
    let proxy = Vestibule::start(Config::to(&[light.address()]).instance(&heavy_instance)).await;
    for _ in 0..40 {
        proxy.get("/", &[]).await;
    }
    assert_eq!((light.requests().len(), heavy.requests().len()), (10, 30));
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over_even_for_a_post() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let refused = RefusedPort::new();
    let proxy = Vestibule::start(Config::to(&[refused.address(), upstream.address()])).await;
    for _ in 0..6 {
        let response = proxy.connect().await.request("POST", "/", &[], b"once").await;
        assert_eq!((response.status, response.text()), (200, "once"));
    }
    assert_eq!(upstream.requests().len(), 6);
}

#[tokio::test]
async fn what_an_instance_may_have_executed_is_never_repeated() {
    for reply in [Reply::after_body().reset(), Reply::after_body().close(), Reply::early().close()] {
        let (broken, spare) = (Upstream::answering(reply).await, named("spare").await);
        let proxy = Vestibule::start(Config::to(&[broken.address(), spare.address()])).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(proxy.connect().await.request("POST", "/", &[], b"once").await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 502, 502]);
        assert_eq!((broken.requests().len(), spare.requests().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_instance_closed_costs_nobody_an_answer() {
    let mut upstream = named("back").await;
    let proxy = in_front_of(&upstream).await;
    for _ in 0..5 {
        let response = proxy.connect().await.request("POST", "/", &[], b"body").await;
        assert_eq!(response.status, 200);
        upstream.restart().await;
    }
}

#[tokio::test]
async fn the_fault_of_an_instance_is_named_by_the_status() {
    let garbage = Upstream::answering(Reply::after_body().raw("SSH-2.0-OpenSSH\r\n\r\n").close()).await;
    assert_problem(&in_front_of(&garbage).await.get("/", &[]).await, 502);

    let refused = RefusedPort::new();
    let proxy = Vestibule::start(Config::to(&[refused.address()])).await;
    assert_problem(&proxy.get("/", &[]).await, 502);

    let silent = Upstream::answering(Reply::after_body().hang()).await;
    let config = Config::to(&[silent.address()]).with("[timeouts]\nfirst_byte = \"100ms\"");
    assert_problem(&Vestibule::start(config).await.get("/", &[]).await, 504);
    silent.wait_until("the request was given up", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn a_truncated_answer_never_looks_complete() {
    let with_length = Reply::after_body().head(200, &[("Content-Length", "10")]).raw("half");
    let chunked = Reply::chunked(200, &[]).chunk("half");
    for half in [with_length, chunked] {
        for cut in [half.clone().close(), half.clone().reset()] {
            let upstream = Upstream::answering(cut).await;
            let proxy = in_front_of(&upstream).await;
            let mut client = proxy.connect().await;
            client.send_request("GET", "/", &[], b"").await;
            // Nothing of it may have been passed on yet; then there is a better answer.
            assert!(client.try_response().await.map_or(true, |answer| answer.status == 502));
        }
        let signal = Signal::new();
        let upstream = Upstream::answering(half.wait(&signal).close()).await;
        let proxy = in_front_of(&upstream).await;
        let mut client = proxy.connect().await;
        client.send_request("GET", "/", &[], b"").await;
        let mut response = client.start_response().await;
        assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"half".to_vec()));
        signal.fire();
        assert!(client.finish(&mut response).await.is_err());
    }
}
