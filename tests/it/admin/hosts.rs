//! A page of another site that has its name lead to us reads nothing here.

use crate::admin::{TOKEN, application, config};
use crate::support::client::Client;
use crate::support::vestibule::Vestibule;

/// The status of this request on the admin listener.
async fn status(proxy: &Vestibule, request: &str) -> u16 {
    let mut client = Client::connect(proxy.admin_address()).await;
    client.send(request).await;
    client.response().await.status
}

#[tokio::test]
async fn names_of_other_sites_are_misdirected() {
    let application = application().await;
    let proxy = Vestibule::start(config(&application)).await;
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/upstreams"] {
        for host in [
            "evil.example",
            "evil.example:9901",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "xn--e1aybc.example.",
        ] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
            assert_eq!(status(&proxy, &request).await, 421, "{path} {host}");
            let absolute = format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(status(&proxy, &absolute).await, 421, "{path} {host}");
        }
    }
}

#[tokio::test]
async fn addresses_and_names_without_a_dot_are_ours() {
    let application = application().await;
    let proxy = Vestibule::start(config(&application)).await;
    for host in [
        "127.0.0.1",
        "127.0.0.1:9901",
        "[::1]:9901",
        "10.1.2.3",
        "localhost",
        "LOCALHOST:1",
        "vestibule",
        "vestibule:9901",
    ] {
        assert_eq!(
            status(&proxy, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await,
            200,
            "{host}"
        );
    }
    assert_eq!(status(&proxy, "GET /livez HTTP/1.0\r\n\r\n").await, 200);
}

#[tokio::test]
async fn a_host_is_said_once_and_properly() {
    let application = application().await;
    let proxy = Vestibule::start(config(&application)).await;
    for headers in [
        "",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: a b\r\n",
        "Host: \r\n",
        "Host: user@localhost\r\n",
    ] {
        assert_eq!(
            status(&proxy, &format!("GET /livez HTTP/1.1\r\n{headers}\r\n")).await,
            400,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn further_names_are_configured() {
    let application = application().await;
    let proxy = Vestibule::start(config(&application).admin("hosts = [\"Vestibule.example.com\"]")).await;
    for (host, expected) in [
        ("vestibule.example.com:9901", 200),
        ("VESTIBULE.example.COM.", 200),
        ("example.com", 421),
        ("localhost", 200),
    ] {
        assert_eq!(
            status(&proxy, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await,
            expected,
            "{host}"
        );
    }
}
