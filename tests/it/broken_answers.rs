//! An instance that breaks the rules of HTTP does not make the proxy break them too.

use http_body_util::BodyExt;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

/// A proxy in front of an instance that answers each request with these bytes and closes the connection.
async fn answering(bytes: &str) -> (Upstream, Vestibule) {
    let upstream = Upstream::answering(Reply::after_body().raw(bytes).close()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    (upstream, proxy)
}

const TRAILERS: &[(&str, &str)] = &[
    ("Set-Cookie", "a=b"),
    ("set_cookie", "a=b"),
    ("Vestibule-Session", "set; user_id=\"1\""),
    ("Content-Length", "5"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "close"),
    ("Cache-Control", "public"),
    ("Content-Type", "text/html"),
    ("Location", "http://evil.example/"),
    ("X-Sum", "1"),
    ("ETag", "\"a\""),
];

fn with_trailers() -> Reply {
    let names: Vec<&str> = TRAILERS.iter().map(|(name, _)| *name).collect();
    Reply::chunked(200, &[("Trailer", &names.join(", "))]).chunk("a").end_with_trailers(TRAILERS)
}

#[tokio::test]
async fn trailers_of_an_answer_change_nothing_of_its_head() {
    let upstream = Upstream::answering(with_trailers()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = proxy.connect().await;
    let response = client.request("GET", "/", &[("TE", "trailers"), ("Connection", "TE")], b"").await;
    assert_eq!((response.status, response.text()), (200, "a"));
    let mut names = response.trailers.names();
    names.sort();
    assert_eq!(names, ["etag", "x-sum"]);
}

#[tokio::test]
async fn trailers_of_an_answer_change_nothing_over_http_2_either() {
    let upstream = Upstream::answering(with_trailers()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = H2Client::connect(proxy.address()).await;
    let request = http::Request::get("http://h/").header("te", "trailers").body(Default::default()).unwrap();
    let body = client.begin(request).await.unwrap().into_body();
    let whole = within("body", body.collect()).await.unwrap();
    let trailers = whole.trailers().unwrap();
    let mut names: Vec<&str> = trailers.keys().map(|name| name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["etag", "x-sum"]);
}

#[tokio::test]
async fn an_answer_that_is_broken_from_its_beginning_is_502() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    ] {
        let (_upstream, proxy) = answering(bytes).await;
        let response = proxy.get("/", &[]).await;
        assert_eq!(response.status, 502, "{bytes:?}");
        let mut client = H2Client::connect(proxy.address()).await;
        let request = http::Request::get("http://h/").body(Default::default()).unwrap();
        assert_eq!(client.request(request).await.unwrap().status.as_u16(), 502, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_is_told_a_status_before_it_is_told_that_the_answer_broke_off() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nOK",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n",
    ] {
        let (_upstream, proxy) = answering(bytes).await;
        for method in ["GET", "POST"] {
            let mut client = proxy.connect().await;
            client.send_request(method, "/", &[], b"").await;
            let mut response = client.start_response().await;
            match response.status {
                502 => client.finish(&mut response).await.unwrap(),
                200 => {
                    client.finish(&mut response).await.unwrap_err();
                    assert_eq!(response.text(), "OK", "{method} {bytes:?}");
                }
                other => panic!("{other} for {method} {bytes:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_coding_that_the_client_would_not_know_of_is_502() {
    for coding in ["gzip, chunked", "gzip", "chunked, chunked", "deflate,chunked", "xyz"] {
        let (_upstream, proxy) =
            answering(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")).await;
        assert_eq!(proxy.get("/", &[]).await.status, 502, "{coding}");
    }
    for coding in ["chunked", "Chunked", " chunked\t"] {
        let (_upstream, proxy) =
            answering(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")).await;
        assert_eq!(proxy.get("/", &[]).await.status, 200, "{coding}");
    }
}

#[tokio::test]
async fn a_status_that_http_does_not_know_is_502() {
    for status in [600, 700, 999] {
        let (_upstream, proxy) =
            answering(&format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(proxy.get("/", &[]).await.status, 502, "{status}");
    }
    for status in [299, 420, 599] {
        let (_upstream, proxy) =
            answering(&format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(proxy.get("/", &[]).await.status, status);
    }
}

#[tokio::test]
async fn a_line_feed_among_line_ends_of_two_bytes_starts_no_header() {
    for head in [
        "HTTP/1.1 200 OK\r\nX-A: b\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nOK",
        "HTTP/1.1 200 OK\r\nX-A: b\r\nLocation: /\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nOK",
        "HTTP/1.1 200 OK\r\nX-A: b\n\r\nContent-Length: 2\r\n\r\nOK",
        "HTTP/1.1 200 OK\r\nX-A: b\n\nContent-Length: 2\r\n\r\nOK",
    ] {
        let (_upstream, proxy) = answering(head).await;
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.status, response.headers.get("set-cookie")), (502, None), "{head:?}");
    }
}

#[tokio::test]
async fn an_old_server_may_end_all_its_lines_with_a_line_feed() {
    let (_upstream, proxy) = answering("HTTP/1.1 200 OK\nX-A: b\nContent-Length: 4\n\na\r\nb").await;
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.status, response.text(), response.headers.get("x-a")), (200, "a\r\nb", Some("b")));
}

#[tokio::test]
async fn line_feeds_in_bodies_and_after_them_are_nobodys_business() {
    let body = "HTTP/1.1 200 OK\r\nX: a\nb\n\n\r\n";
    let upstream = Upstream::answering(Reply::text(200, body)).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/", &[], b"").await.text(), body);
    }
    assert_eq!(upstream.connections_opened(), 1);
}

#[tokio::test]
async fn no_broken_answer_is_held_against_the_instance() {
    let broken = "HTTP/1.1 200 OK\r\nX-A: b\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nOK";
    let odd = "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n";
    let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    for bytes in [broken, odd, coded] {
        let good = Upstream::answering(Reply::text(200, "good")).await;
        let bytes = bytes.to_owned();
        let odd = Upstream::start(move |request| match request.target.as_str() {
            "/odd" => Reply::after_body().raw(&bytes).close(),
            _ => Reply::text(200, "well"),
        })
        .await;
        let config = Config::to(&[good.address(), odd.address()]);
        let proxy = Vestibule::start(config).await;
        for _ in 0..20 {
            Client::connect(proxy.address()).await.request("POST", "/odd", &[], b"").await;
        }
        assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
        let answers: Vec<_> = [proxy.get("/", &[]).await, proxy.get("/", &[]).await]
            .iter()
            .map(|answer| answer.text().to_owned())
            .collect();
        assert!(answers.contains(&"well".to_owned()), "{answers:?}");
    }
}

#[tokio::test]
async fn one_length_reaches_the_instance_however_often_it_was_said() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = H2Client::connect(proxy.address()).await;
    for (lengths, is_one) in
        [(&["5", "5"][..], true), (&["5, 5"][..], true), (&["5", "6"][..], false), (&["5, 6"][..], false)]
    {
        let before = upstream.requests().len();
        let mut request = http::Request::post("http://h/").body("hello".into()).unwrap();
        for length in lengths {
            request.headers_mut().append("content-length", length.parse().unwrap());
        }
        match client.request(request).await {
            Ok(response) if is_one => assert_eq!(response.status, 200, "{lengths:?}"),
            Ok(response) => assert_eq!(response.status, 400, "{lengths:?}"),
            // A list is no length to some who read HTTP/2: the stream was reset (RFC 9113 section 8.1.1).
            Err(_) => assert_ne!(lengths, ["5", "5"]),
        }
        for request in &upstream.requests()[before..] {
            assert_eq!((request.headers.all("content-length"), is_one), (vec!["5"], true), "{lengths:?}");
        }
    }
}
