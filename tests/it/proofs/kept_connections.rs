//! An instance that closes its idle connections just when they are used again costs nobody an answer, nor a tie.

use std::time::Duration;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::service::{Service, send};
use crate::support::vestibule::Program;

use super::{report, scaled};

/// How long an instance keeps an idle connection.
const KEPT: Duration = Duration::from_millis(10);

/// Answers one request of each connection, and closes it when the next arrives or nothing has come for [`KEPT`].
fn instance(name: &'static str) -> Service {
    Service::start(async move |_, wire| {
        send(wire, 200, &[], name).await?;
        let _ = tokio::time::timeout(KEPT, wire.fill()).await;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    })
}

#[tokio::test]
async fn no_tie_is_lost_to_connections_that_are_closed_while_a_request_is_on_its_way() {
    let instances = [instance("a"), instance("b")];
    let addresses = instances.each_ref().map(Service::address);
    let program = Program::start(Config::to(&addresses).with("[session]\nmode = \"sticky\"")).await;
    let first = client::get(program.address, "/").await;
    let tie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let (least, mut requests, mut failed, mut moved) = (scaled(100, 1_000), 0, 0, 0);
    let mut client = Client::connect(program.address).await;
    let sent_again = async || metrics::read(program.admin, "upstream_resends_total", "").await;
    // A machine that is late now and then meets that moment more seldom.
    while requests < least || sent_again().await == 0.0 && requests < 100 * least {
        // Around the moment in which the instance loses patience.
        tokio::time::sleep(KEPT.mul_f64(0.1 * f64::from(requests % 13))).await;
        requests += 1;
        let answer = client.request("GET", "/", &[("Cookie", &tie)], b"").await;
        failed += u32::from(answer.status != 200);
        moved += u32::from(answer.text() != first.text() || answer.headers.get("set-cookie").is_some());
    }
    let again = sent_again().await;
    report(
        "kept connections",
        format!("{requests} requests, {again} sent again, {failed} failed, {moved} ties lost"),
    );
    assert_eq!((failed, moved), (0, 0));
    assert!(again > 0.0, "no connection was closed under a request");
    assert_eq!(metrics::read(program.admin, "upstream_retries_total", "").await, 0.0);
}
