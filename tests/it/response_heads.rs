//! Heads of answers: large ones pass, odd ones are put right, and none of them is held against its instance.

use crate::forwarding::assert_problem;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

async fn in_front_of(upstream: &Upstream, tables: &str) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()]).with(tables)).await
}

fn links(count: usize) -> Reply {
    Reply::with_headers(200, &vec![("Link", "</style.css>; rel=preload"); count], "page")
}

#[tokio::test]
async fn a_page_with_hundreds_of_header_lines_passes() {
    let upstream = Upstream::answering(links(900)).await;
    let response = in_front_of(&upstream, "").await.get("/", &[]).await;
    assert_eq!((response.status, response.text()), (200, "page"));
    assert_eq!(response.headers.all("link").len(), 900);
}

#[tokio::test]
async fn a_header_of_48_kib_passes() {
    let policy = "a".repeat(48 << 10);
    let upstream = Upstream::answering(Reply::with_headers(200, &[("X-Policy", &policy)], "page")).await;
    let response = in_front_of(&upstream, "").await.get("/", &[]).await;
    assert_eq!((response.status, response.headers.get("x-policy")), (200, Some(&*policy)));
}

#[tokio::test]
async fn what_exceeds_a_limit_is_502_and_names_it() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/lines" => links(60),
        "/bytes" => Reply::with_headers(200, &[("X-Long", &"a".repeat(9000))], ""),
        _ => Reply::with_headers(200, &[("X-Long", &"a".repeat(7000))], ""),
    })
    .await;
    let limits = "[limits]\nresponse_header_count = 50\nresponse_header_bytes = \"8KiB\"";
    let proxy = in_front_of(&upstream, limits).await;
    for target in ["/lines", "/bytes"] {
        let response = proxy.get(target, &[]).await;
        assert_problem(&response, 502);
        let limit = response.json()["limit"].as_str().unwrap().to_owned();
        assert_eq!(limit, "limits.response_header_count, limits.response_header_bytes", "{target}");
    }
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn a_large_head_ejects_nobody_and_is_not_asked_for_again() {
    let (odd, good) = (Upstream::answering(links(60)).await, Upstream::answering(links(1)).await);
    let config = Config::to(&[odd.address(), good.address()])
        .upstream("[upstream.outlier]\nconsecutive = 3")
        .with("[limits]\nresponse_header_count = 50");
    let proxy = Vestibule::start(config).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(proxy.get("/", &[]).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 10, "{statuses:?}");
    assert_eq!((odd.requests().len(), good.requests().len()), (10, 10));
    assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
}

#[tokio::test]
async fn a_malformed_header_ejects_nobody() {
    let malformed = Reply::after_body().raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX Bad: 1\r\n\r\n");
    let (odd, good) = (Upstream::answering(malformed).await, Upstream::answering(links(1)).await);
    let config = Config::to(&[odd.address(), good.address()]);
    let strict = "[upstream.outlier]\nconsecutive = 3\n[upstream.retry]\nattempts = 1";
    let proxy = Vestibule::start(config.upstream(strict)).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(proxy.get("/", &[]).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 10, "{statuses:?}");
    assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
}

#[tokio::test]
async fn a_check_answered_with_a_large_head_is_good() {
    let upstream = Upstream::answering(links(900)).await;
    let check = "[upstream.health]\npath = \"/health\"\ninterval = \"20ms\"\nrise = 1\nfall = 1";
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).upstream(check)).await;
    upstream.wait_until("some checks", |seen| seen.requests.len() > 5).await;
    assert_eq!(proxy.metric("upstream_instance_up", "").await, 1.0);
}

#[tokio::test]
async fn a_length_given_twice_is_sent_once() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/list" => Reply::after_body().head(200, &[("Content-Length", "4, 4")]).raw("page"),
        _ => Reply::after_body().head(200, &[("Content-Length", "4"), ("Content-Length", "4")]).raw("page"),
    })
    .await;
    let proxy = in_front_of(&upstream, "").await;
    for target in ["/list", "/lines"] {
        let response = proxy.get(target, &[]).await;
        assert_eq!(
            (response.text(), response.headers.all("content-length")),
            ("page", vec!["4"]),
            "{target}"
        );
        let head = proxy.connect().await.request("HEAD", target, &[], b"").await;
        assert_eq!(head.headers.all("content-length"), ["4"], "{target}");
    }
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_a_bad_gateway_or_left_out_where_they_mean_nothing() {
    let upstream =
        Upstream::answering(Reply::after_body().head(200, &[("Content-Length", "4, 5")]).raw("page")).await;
    let proxy = in_front_of(&upstream, "").await;
    assert_problem(&proxy.get("/", &[]).await, 502);
    let head = proxy.connect().await.request("HEAD", "/", &[], b"").await;
    assert_eq!((head.status, head.headers.all("content-length").len()), (200, 0));
}

#[tokio::test]
async fn a_space_before_a_colon_and_a_folded_line_are_put_right() {
    let raw = "HTTP/1.1 200 OK\r\nX-Colon : v\r\nX-Fold: a\r\n  b\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(Reply::after_body().raw(raw)).await;
    let response = in_front_of(&upstream, "").await.get("/", &[]).await;
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert_eq!(response.headers.get("x-colon"), Some("v"));
    let folded: Vec<_> = response.headers.get("x-fold").unwrap().split_whitespace().collect();
    assert_eq!(folded, ["a", "b"]);
}

#[tokio::test]
async fn a_reset_right_behind_a_whole_answer_takes_nothing_of_it() {
    for (reply, expected) in [
        (Reply::after_body().head(204, &[]), ""),
        (Reply::after_body().head(200, &[("Content-Length", "0")]), ""),
        (Reply::text(200, "page"), "page"),
        (Reply::chunked(200, &[]).chunk("page").end(), "page"),
    ] {
        let upstream = Upstream::answering(reply.reset()).await;
        let proxy = in_front_of(&upstream, "").await;
        for _ in 0..20 {
            let response = proxy.get("/", &[]).await;
            assert_eq!((response.status / 100, response.text()), (2, expected));
        }
    }
}

#[tokio::test]
async fn a_reset_behind_a_head_never_looks_like_the_end_of_the_answer() {
    for length in [&[("Content-Length", "9")][..], &[("Transfer-Encoding", "chunked")], &[]] {
        let upstream = Upstream::answering(Reply::after_body().head(201, length).reset()).await;
        let proxy = in_front_of(&upstream, "").await;
        for _ in 0..20 {
            let mut client = proxy.connect().await;
            client.send_request("POST", "/", &[], b"once").await;
            let mut response = client.start_response().await;
            let end = client.finish(&mut response).await;
            // The reset may have come before anything was passed on.
            assert!(matches!((response.status, end), (201, Err(_)) | (502, Ok(()))), "{length:?}");
        }
    }
}
