//! What the application reads about the user and the way of a request comes from us, never from the client.

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Request, Upstream};
use crate::support::vestibule::Vestibule;

/// Every way to claim to be `evil` that an application might fall for.
const SPOOFS: &[&str] = &[
    "X-User-Id: evil",
    "x-user-id: evil",
    "X-USER-ID: evil",
    "X_User_Id: evil",
    "x_user_id: evil",
    "X-User_Id: evil",
    "X_USER-ID: evil",
    "x.user.id: evil",
    "X~User~Id: evil",
    "X-User-Id: evil\r\nX-User-Id: evil",
    "X-User-Id: evil\r\nX_User_Id: evil\r\nx.user.id: evil",
    "X-User-Id: \r\nX-User-Id: evil",
    "X-User-Id:evil",
    "X-User-Id:\tevil",
    "X-User-Id: evil\r\nConnection: X-User-Id",
    "X_User_Id: evil\r\nConnection: X-User-Id",
    "Connection: X-User-Id",
    "Connection: close, X-User-Id",
    "Connection: keep-alive\r\nConnection: x-user-id",
    "Connection: x_user_id, X-User-Id, x.user.id\r\nX-User-Id: evil",
    "Connection: X-Forwarded-For, X-Real-IP, X-Request-Id",
    "Keep-Alive: X-User-Id\r\nConnection: keep-alive",
    "Proxy-Connection: X-User-Id",
    "X-Constant: evil",
    "X_Constant: evil",
    "Connection: X-Constant",
];

const IDENTITY: &str = "[identity]\npreset = \"none\"\n\
     [identity.headers]\n\"X-User-Id\" = \"/user_id\"\n\"X-Constant\" = { value = \"ours\" }";

/// The values that an application could take for `asserted`, from headers and trailers.
fn values<'a>(request: &'a Request, asserted: &str) -> Vec<&'a str> {
    let fold = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let lines = request.headers.0.iter().chain(&request.trailers.0);
    lines.filter(|(name, _)| fold(name) == fold(asserted)).map(|(_, value)| value.as_str()).collect()
}

/// A proxy whose sessions are in `redis`, with a public route besides.
async fn guarded(redis: &Redis, upstream: &Upstream) -> Vestibule {
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let public = "[[route]]\npath = \"/public\"\nupstream = \"app\"\nsession = false";
    let config = Config::to(&[upstream.address()]).with(IDENTITY).with(&store).with(public);
    Vestibule::start(config).await
}

#[tokio::test]
async fn no_spelling_of_an_identity_header_gets_through() {
    let (redis, upstream) = (Redis::start().await, Upstream::answering(Reply::text(200, "")).await);
    redis.put_session("alice-id", &[("user_id", "alice")]).await;
    let proxy = guarded(&redis, &upstream).await;
    let situations: [(&str, &str, &[&str]); 4] = [
        ("/", "", &[]),
        ("/", "Cookie: session-id=gone\r\n", &[]),
        ("/", "Cookie: session-id=alice-id\r\n", &["alice"]),
        ("/public", "Cookie: session-id=alice-id\r\n", &[]),
    ];
    let mut count = 0;
    for (target, cookie, expected) in situations {
        for spoof in SPOOFS {
            let mut client = proxy.connect().await;
            client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{spoof}\r\n{cookie}\r\n")).await;
            let status = client.response().await.status;
            assert_eq!(status, 200, "{spoof:?}");
            count += 1;
            let request = upstream.requests().pop().unwrap();
            assert_eq!(values(&request, "x-user-id"), expected, "{spoof:?} {cookie:?} {target}");
            assert_eq!(values(&request, "x-constant"), ["ours"], "{spoof:?} {cookie:?} {target}");
        }
    }
    assert_eq!(upstream.requests().len(), count);
}

#[tokio::test]
async fn no_spelling_gets_through_over_http_2() {
    let (redis, upstream) = (Redis::start().await, Upstream::answering(Reply::text(200, "")).await);
    redis.put_session("alice-id", &[("user_id", "alice")]).await;
    let proxy = guarded(&redis, &upstream).await;
    let mut client = H2Client::connect(proxy.address()).await;
    for name in ["x-user-id", "x_user_id", "x.user.id", "x-user_id"] {
        for (cookie, expected) in [("other=1", &[][..]), ("session-id=alice-id", &["alice"][..])] {
            let request = http::Request::get("http://h/").header(name, "evil").header("cookie", cookie);
            let response = client.request(request.body(Default::default()).unwrap()).await.unwrap();
            assert_eq!(response.status.as_u16(), 200);
            assert_eq!(values(&upstream.requests().pop().unwrap(), "x-user-id"), expected, "{name} {cookie}");
        }
    }
}

#[tokio::test]
async fn trailers_carry_no_identity() {
    let (redis, upstream) = (Redis::start().await, Upstream::answering(Reply::body_back()).await);
    let proxy = guarded(&redis, &upstream).await;
    let names = [
        "X-User-Id",
        "x_user_id",
        "X-Forwarded-For",
        "Cookie",
        "Authorization",
        "Content-Type",
        "X-Forwarded-User",
        "Proxy",
    ];
    for name in names {
        let mut client = proxy.connect().await;
        let head = format!("Trailer: {name}, X-Sum\r\nTransfer-Encoding: chunked");
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n")).await;
        client.send(format!("1\r\na\r\n0\r\n{name}: 1\r\nX-Sum: 1\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), "a");
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.trailers.names(), ["x-sum"], "{name}");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_a_header_stops_the_request() {
    let (redis, upstream) = (Redis::start().await, Upstream::answering(Reply::text(200, "")).await);
    redis.put_session("odd", &[("user_id", "alice\r\nX-Admin: 1")]).await;
    let proxy = guarded(&redis, &upstream).await;
    assert_eq!(proxy.get("/", &[("Cookie", "session-id=odd")]).await.status, 500);
    assert_eq!(upstream.requests().len(), 0);
}

/// What an application might take from a proxy, spelled in each way that it might.
const PROXY_CLAIMS: &[&str] = &[
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Method",
    "X-Forwarded-Path",
    "X-Forwarded-By",
    "X-Forwarded-Client-Cert",
    "X-Forwarded",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "X-Host",
    "Forwarded-For",
    "X-Original-Forwarded-For",
    "X-Scheme",
    "Front-End-Https",
    "Fastly-Client-IP",
    "X-Remote-User",
    "Remote-User",
    "Remote-Groups",
    "X-Auth-Request-User",
    "X-Auth-Request-Groups",
    "X-SSL-Client-Verify",
    "Ssl-Client-Cert",
    "Client-Cert",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "Script-Name",
    "Client-IP",
    "X-WebAuth-User",
];

/// A request with one header line more, as `lines` of the instance show it; answered with 200.
async fn sent_on(proxy: &Vestibule, upstream: &Upstream, name: &str) -> Request {
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{name}: evil\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200, "{name}");
    upstream.requests().pop().unwrap()
}

#[tokio::test]
async fn an_untrusted_client_cannot_claim_what_a_proxy_may() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    for preset in ["x-user", "remote-user", "none"] {
        let config = Config::to(&[upstream.address()]).with(&format!("[identity]\npreset = \"{preset}\""));
        let proxy = Vestibule::start(config).await;
        for name in PROXY_CLAIMS {
            for spelled in [(*name).to_owned(), name.to_uppercase().replace('-', "_"), name.replace('-', ".")]
            {
                let request = sent_on(&proxy, &upstream, &spelled).await;
                assert_eq!(values(&request, name), [""; 0], "{spelled} with preset {preset}");
            }
        }
    }
}

#[tokio::test]
async fn an_untrusted_client_cannot_claim_over_http_2_either() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = H2Client::connect(proxy.address()).await;
    for name in ["x-forwarded-user", "x_forwarded_user", "remote_user", "proxy", "content_length"] {
        let request = http::Request::get("http://h/").header(name, "evil").body(Default::default()).unwrap();
        assert_eq!(client.request(request).await.unwrap().status.as_u16(), 200);
        assert_eq!(values(&upstream.requests().pop().unwrap(), name), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn a_trusted_peer_may_claim_in_proper_spelling_only() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let trusting = Config::to(&[upstream.address()]).with("[forwarding]\ntrusted_peers = [\"127.0.0.0/8\"]");
    let proxy = Vestibule::start(trusting).await;
    for name in PROXY_CLAIMS {
        assert_eq!(values(&sent_on(&proxy, &upstream, name).await, name), ["evil"], "{name}");
        let respelled = name.replace('-', "_");
        if respelled != *name {
            assert_eq!(values(&sent_on(&proxy, &upstream, &respelled).await, name), [""; 0], "{respelled}");
        }
    }
}

#[tokio::test]
async fn nobody_can_say_proxy_or_frame_a_message_in_another_spelling() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    for trusted in ["", "[forwarding]\ntrusted_peers = [\"127.0.0.0/8\"]"] {
        let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(trusted)).await;
        for name in [
            "Proxy",
            "Content_Length",
            "Content.Length",
            "Content_Type",
            "Transfer_Encoding",
            "Host_",
            "Cookie_",
        ] {
            let request = sent_on(&proxy, &upstream, name).await;
            let evil = request.headers.0.iter().find(|(_, value)| value == "evil");
            assert_eq!(evil, None, "{name} {trusted}");
        }
    }
}

#[tokio::test]
async fn a_claim_that_is_passed_by_name_passes_in_its_proper_spelling() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let pass = "[forwarding]\npass = [\"X-HTTP-Method-Override\"]";
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(pass)).await;
    let name = "x-http-method-override";
    assert_eq!(values(&sent_on(&proxy, &upstream, name).await, name), ["evil"]);
    let respelled = sent_on(&proxy, &upstream, "X_HTTP_Method_Override").await;
    assert_eq!(values(&respelled, name), [""; 0]);
    assert_eq!(values(&sent_on(&proxy, &upstream, "x-method-override").await, "x-method-override"), [""; 0]);
}

#[tokio::test]
async fn what_is_no_claim_passes() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for name in
        ["X-CSRF-Token", "X_Custom_Field", "X-Original-Filename", "Sec-Fetch-Site", "Origin", "X-Api-Key"]
    {
        assert_eq!(values(&sent_on(&proxy, &upstream, name).await, name), ["evil"], "{name}");
    }
}

/// What an upstream behind `forwarding` sees of a request with these header lines.
async fn forwarded(forwarding: &str, lines: &[(&str, &str)]) -> Request {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let config = Config::to(&[upstream.address()]).with(&format!("[forwarding]\n{forwarding}"));
    assert_eq!(Vestibule::start(config).await.get("/", lines).await.status, 200);
    upstream.only_request()
}

const CLAIMS: [(&str, &str); 8] = [
    ("Host", "app.example:81"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Request-Id", "claimed"),
    ("Forwarded", "for=6.6.6.6"),
];

#[tokio::test]
async fn an_untrusted_client_is_not_believed() {
    let request = forwarded("", &CLAIMS).await;
    assert_eq!(values(&request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&request, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&request, "x-forwarded-host"), ["app.example:81"]);
    assert_eq!(values(&request, "x-forwarded-port").len(), 1);
    assert_eq!(values(&request, "forwarded"), [""; 0]);
    let ids = values(&request, "x-request-id");
    assert!(ids.len() == 1 && ids[0] != "claimed" && !ids[0].is_empty(), "{ids:?}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let request = forwarded("trusted_peers = [\"127.0.0.0/8\"]", &CLAIMS).await;
    assert_eq!(values(&request, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(values(&request, "x-real-ip"), ["6.6.6.6"]);
    assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&request, "x-request-id"), ["claimed"]);
}

#[tokio::test]
async fn the_client_is_the_first_untrusted_address_from_the_right() {
    let keys =
        "trusted_peers = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\nx_forwarded_for = \"replace\"\nforwarded = true";
    let lines = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "7.7.7.7, 10.0.0.9")];
    let request = forwarded(keys, &lines).await;
    assert_eq!(values(&request, "x-forwarded-for"), ["7.7.7.7"]);
    assert_eq!(values(&request, "x-real-ip"), ["7.7.7.7"]);
    assert_eq!(values(&request, "forwarded"), ["for=127.0.0.1;proto=http;host=\"localhost\""]);
}

#[tokio::test]
async fn forwarding_headers_can_be_left_out() {
    let keys = "x_forwarded_for = \"off\"\nx_forwarded = false\nx_real_ip = false\nrequest_id = false";
    let request = forwarded(keys, &CLAIMS).await;
    for name in
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-request-id", "forwarded"]
    {
        assert_eq!(values(&request, name), [""; 0], "{name}");
    }
}

/// Ways to say where a hook was called.
const HOOKS: [&str; 6] = [
    "Dify-Hook-Url: http://evil/",
    "dify_hook_url: http://evil/",
    "Dify.Hook.Url: http://evil/\r\nDify-Hook-Url: http://evil/",
    "Dify-Hook-Url: http://evil/\r\nConnection: Dify-Hook-Url",
    "Dify-Hook-Url:",
    "Accept: */*",
];

#[tokio::test]
async fn what_a_route_sets_is_never_the_clients_word() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let hook = "headers = { \"Dify-Hook-Url\" = \"{scheme}://{authority}{request_uri}\", \"X-Debug\" = \"\", \"X-Of\" = \"{host} for {client}\" }";
    let route = format!("[[route]]\npath = \"/e\"\nupstream = \"app\"\n{hook}");
    let trusted = "[forwarding]\ntrusted_peers = [\"127.0.0.0/8\"]";
    for (trust, scheme) in [("", "http"), (trusted, "https")] {
        let config = Config::to(&[upstream.address()]).with(&route).with(trust);
        let proxy = Vestibule::start(config).await;
        for lines in HOOKS {
            let mut client = proxy.connect().await;
            let head = "X-Forwarded-Proto: https\r\nX-Debug: 1\r\nX-Of: evil";
            client
                .send(format!(
                    "GET /e/a%20b?c=d HTTP/1.1\r\nHost: Dify.example:81\r\n{head}\r\n{lines}\r\n\r\n"
                ))
                .await;
            assert_eq!(client.response().await.status, 200, "{lines:?}");
            let request = upstream.requests().pop().unwrap();
            let url = format!("{scheme}://Dify.example:81/e/a%20b?c=d");
            assert_eq!(values(&request, "dify-hook-url"), [url.as_str()], "{lines:?}");
            assert_eq!(values(&request, "x-debug"), [""; 0], "{lines:?}");
            assert_eq!(values(&request, "x-of"), ["dify.example for 127.0.0.1"], "{lines:?}");
        }
        assert_eq!(proxy.get("/other", &[("X-Debug", "1")]).await.status, 200);
        assert_eq!(values(&upstream.requests().pop().unwrap(), "x-debug"), ["1"], "other routes set nothing");
    }
}

#[tokio::test]
async fn framing_and_host_cannot_be_named_away() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for connection in ["Content-Length", "Host", "Transfer-Encoding", "close, content-length, host", "Cookie"]
    {
        let headers = [("Connection", connection), ("Cookie", "a=b")];
        let response = proxy.connect().await.request("POST", "/", &headers, b"body").await;
        assert_eq!((response.status, response.text()), (200, "body"), "{connection}");
        let request = upstream.requests().pop().unwrap();
        assert_eq!((request.headers.get("host"), request.body.as_slice()), (Some("localhost"), &b"body"[..]));
        assert_eq!(request.headers.get("cookie"), Some("a=b"), "{connection}");
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\\b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    ] {
        let mut client = Client::connect(proxy.address()).await;
        client.send(request).await;
        let status = client.response().await.status;
        assert!((400..=599).contains(&status), "{status} for {request:?}");
        assert!(status != 500 && status != 502, "{status} for {request:?}");
    }
    assert_eq!(upstream.requests().len(), 0, "{:?}", upstream.requests());
}

#[tokio::test]
async fn a_request_with_two_framings_cannot_hide_another() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for framing in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 200\r\nTransfer-Encoding: chunked",
    ] {
        let mut client = Client::connect(proxy.address()).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n{hidden}")).await;
        client.response().await;
        client.assert_closed().await; // RFC 9112 section 6.1
    }
    for request in upstream.requests() {
        assert_ne!(request.target, "/hidden");
        assert_eq!(request.headers.get("content-length").or(Some("0")), Some("0"));
    }
}

#[tokio::test]
async fn cookies_that_http_2_split_are_one_line_again() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = H2Client::connect(proxy.address()).await;
    let request = http::Request::get("http://h/").header("cookie", "a=1").header("cookie", "b=2; c=3");
    client.request(request.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(upstream.only_request().headers.all("cookie"), ["a=1; b=2; c=3"]); // RFC 9113 section 8.2.3
}

#[tokio::test]
async fn of_a_list_of_protocols_the_one_counts_that_the_client_used() {
    let trusted = "trusted_peers = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    for (addresses, protocols, expected) in [
        ("1.2.3.4, 10.0.0.2", "https, http", "https"),
        ("1.2.3.4", "https, http", "http"),
        ("1.2.3.4, 10.0.0.2", "https", "https"),
        ("1.2.3.4", "HTTPS", "https"),
    ] {
        let claims = [("X-Forwarded-For", addresses), ("X-Forwarded-Proto", protocols)];
        let request = forwarded(trusted, &claims).await;
        assert_eq!(values(&request, "x-forwarded-proto"), [expected], "{addresses} {protocols}");
    }
}

#[tokio::test]
async fn an_empty_list_is_begun_rather_than_gone_on_with() {
    let trusted = "trusted_peers = [\"127.0.0.0/8\"]\nforwarded = true";
    let request = forwarded(trusted, &[("X-Forwarded-For", ""), ("Forwarded", "")]).await;
    assert_eq!(values(&request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&request, "forwarded"), ["for=127.0.0.1;proto=http;host=\"localhost\""]);
}
