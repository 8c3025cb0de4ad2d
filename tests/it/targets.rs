//! Request targets and hosts as clients really write them.

use crate::forwarding::assert_problem;
use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

struct House {
    upstream: Upstream,
    proxy: Vestibule,
}

impl House {
    async fn start(config: impl FnOnce(Config) -> Config) -> Self {
        let upstream = Upstream::start(|request| Reply::text(200, &request.target)).await;
        let proxy = Vestibule::start(config(Config::to(&[upstream.address()]))).await;
        House { upstream, proxy }
    }

    /// One request on a connection of its own.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.proxy.connect().await;
        client.send(bytes).await;
        client.response().await
    }

    /// The `Host` lines that the last request came with.
    fn last_host(&self) -> Vec<String> {
        let request = self.upstream.requests().pop().unwrap();
        request.headers.all("host").into_iter().map(str::to_owned).collect()
    }
}

fn get(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat()
}

#[tokio::test]
async fn what_a_target_may_not_hold_is_percent_encoded_on_the_way() {
    let house = House::start(|config| config).await;
    for (raw, encoded) in [
        ("/a?keyword=知识库&x".as_bytes(), "/a?keyword=%E7%9F%A5%E8%AF%86%E5%BA%93&x"),
        ("/ä/b".as_bytes(), "/%C3%A4/b"),
        (b"/caf\xe9?q=\xe9", "/caf%E9?q=%E9"),
        (b"/\"<a>\"?x=\"<b>\"", "/%22%3Ca%3E%22?x=%22%3Cb%3E%22"),
        (b"/`a`^b?`c`", "/%60a%60^b?`c`"),
        (b"/{id}|x?{y}", "/{id}|x?{y}"),
        (b"/%e4%zz?%", ""),
        (b"/%e4?100%", "/%e4?100%"),
    ] {
        let response = house.ask(get(raw)).await;
        match encoded {
            "" => assert_eq!(response.status, 400),
            _ => assert_eq!((response.status, response.text()), (200, encoded)),
        }
    }
}

#[tokio::test]
async fn a_raw_target_that_comes_in_pieces_or_pipelined_is_encoded_all_the_same() {
    let house = House::start(|config| config).await;
    let mut client = house.proxy.connect().await;
    let bytes = [get("/1?ä<".as_bytes()), get("/2?知".as_bytes()), get(b"/3")].concat();
    for byte in &bytes {
        client.send([*byte]).await;
    }
    for expected in ["/1?%C3%A4%3C", "/2?%E7%9F%A5", "/3"] {
        assert_eq!(client.response().await.text(), expected);
    }
    client.send(&bytes).await;
    for expected in ["/1?%C3%A4%3C", "/2?%E7%9F%A5", "/3"] {
        assert_eq!(client.response().await.text(), expected);
    }
}

#[tokio::test]
async fn bodies_and_headers_are_not_touched_by_the_encoding() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = proxy.connect().await;
    let body = "<\"知\">\r\n\r\nGET /ä HTTP/1.1\r\n\r\n";
    for _ in 0..3 {
        let response = client.request("POST", "/?ä", &[("X-Name", "<ä>")], body.as_bytes()).await;
        assert_eq!(response.text(), body);
    }
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for _ in 0..3 {
        client
            .send(format!("POST /?< HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"))
            .await;
        assert_eq!(client.response().await.text(), body);
    }
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/?%C3%A4", "/?%C3%A4", "/?%C3%A4", "/?%3C", "/?%3C", "/?%3C"]);
}

#[tokio::test]
async fn control_bytes_in_a_target_are_refused() {
    let house = House::start(|config| config).await;
    for target in [&b"/\x01"[..], b"/a?\x7f", b"/a?\x1b[0m", b"/a?b\tc", b"/a b", b"/\x00"] {
        let response = house.ask(get(target)).await;
        assert_eq!(response.status, 400, "{target:?}");
    }
    assert_eq!(house.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_raw_path_is_routed_by_what_it_means_and_no_way_around_a_route() {
    let (open, inner) = (named("open").await, named("inner").await);
    let tables = format!(
        "[[upstream]]\nname = \"inner\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[route]]\npath = \"/admin\"\nupstream = \"inner\"",
        inner.address()
    );
    let proxy = Vestibule::start(Config::to(&[open.address()]).with(&tables)).await;
    for (target, expected) in [("/admin/ä", "inner"), ("/ä/admin", "open"), ("//admin/<b>", "inner")] {
        assert_eq!(proxy.get(target, &[]).await.text(), expected, "{target}");
    }
    assert_problem(&proxy.get("/ä/../admin", &[]).await, 400);
}

async fn named(name: &'static str) -> Upstream {
    Upstream::answering(Reply::text(200, name)).await
}

#[tokio::test]
async fn a_raw_query_over_http_2_is_percent_encoded_too() {
    let house = House::start(|config| config).await;
    let mut client = H2Client::connect(house.proxy.address()).await;
    let request = http::Request::get("http://h/\"a?keyword=知识库").body("".into()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status.as_u16(), 200);
    assert_eq!(response.body, "/%22a?keyword=%E7%9F%A5%E8%AF%86%E5%BA%93");
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let house = House::start(|config| config).await;
    for request in ["GET /a HTTP/1.0\r\n\r\n", "OPTIONS /a HTTP/1.0\r\n\r\n", "HEAD /a HTTP/1.0\r\n\r\n"] {
        let mut client = house.proxy.connect().await;
        client.send(request).await;
        assert_eq!(client.start_response().await.status, 200, "{request:?}");
        assert_eq!(house.last_host(), [""], "{request:?}");
    }
    assert_problem(&house.ask("GET /a HTTP/1.1\r\n\r\n").await, 400);
    let bound = House::start(|config| config.route("host = \"app.example\"")).await;
    assert_problem(&bound.ask("GET /a HTTP/1.0\r\n\r\n").await, 404);
}

#[tokio::test]
async fn a_host_and_an_absolute_target_are_equal_whatever_way_the_port_is_left_out() {
    let house = House::start(|config| config).await;
    for (target, host, sent) in [
        ("http://h/a", "h", "h"),
        ("http://h:80/a", "h", "h"),
        ("http://h/a", "h:80", "h:80"),
        ("http://h:/a", "h", "h"),
        ("http://H:80/a", "h", "h"),
        ("https://h:443/a", "h", "h"),
        ("http://h:81/a", "h:81", "h:81"),
        ("/a", "h:", "h"),
        ("/a", "[::1]:", "[::1]"),
    ] {
        let response = house.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((response.status, response.text()), (200, "/a"), "{target} {host}");
        assert_eq!(house.last_host(), [sent], "{target} {host}");
    }
    let before = house.upstream.requests().len();
    for (target, host) in [
        ("http://h:81/a", "h"),
        ("http://h/a", "h:81"),
        ("https://h:80/a", "h"),
        ("http://h:443/a", "h"),
        ("http://h/a", "g"),
        ("/a", ":"),
        ("/a", "h::"),
        ("ftp://h/a", "h"),
        ("ws://h/a", "h"),
    ] {
        let response = house.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_problem(&response, 400);
    }
    assert_eq!(house.upstream.requests().len(), before);
}

#[tokio::test]
async fn options_may_be_asked_of_the_server_as_a_whole() {
    let house = House::start(|config| config).await;
    for (target, sent) in [("*", "*"), ("http://h/", "/"), ("/", "/")] {
        let response = house.ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!((response.status, response.text()), (200, sent), "{target}");
    }
    assert_problem(&house.ask("GET * HTTP/1.1\r\nHost: h\r\n\r\n").await, 400);
    assert_eq!(house.ask("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").await.text(), "/");
}
