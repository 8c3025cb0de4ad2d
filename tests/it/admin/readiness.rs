//! `/readyz?verbose`: each condition with its state.

use super::{application, config};
use crate::support::client::get;
use crate::support::redis::Redis;
use crate::support::vestibule::Program;

#[tokio::test]
async fn every_condition_has_a_line_and_the_plain_form_has_none() {
    let application = application().await;
    let program = Program::start(config(&application)).await;
    let (plain, verbose) = (get(program.admin, "/readyz").await, get(program.admin, "/readyz?verbose").await);
    assert_eq!((plain.status, plain.text()), (200, "ready\n"));
    assert_eq!(
        (verbose.status, verbose.text()),
        (200, "ready\naccepting: ok\nstore: ok\ninstances: not checked\n")
    );
    assert_eq!(verbose.headers.get("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn a_store_that_is_out_is_told_but_does_not_count() {
    let (application, mut redis) = (application().await, Redis::start().await);
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let program = Program::start(config(&application).with(&store)).await;
    assert_eq!(
        get(program.admin, "/readyz?verbose").await.text(),
        "ready\naccepting: ok\nstore: ok\ninstances: not checked\n"
    );
    redis.stop();
    let verbose = get(program.admin, "/readyz?verbose").await;
    assert_eq!(verbose.status, 200);
    let failed = "ready\naccepting: ok\nstore: failed (not required): ";
    assert!(verbose.text().starts_with(failed), "{}", verbose.text());
    assert_eq!(get(program.admin, "/readyz").await.text(), "ready\n");
}

#[tokio::test]
async fn a_store_that_no_request_needs_is_not_asked() {
    let application = application().await;
    let program = Program::start(config(&application).with("[session]\nmode = \"local\"")).await;
    assert_eq!(
        get(program.admin, "/readyz?verbose").await.text(),
        "ready\naccepting: ok\nstore: not used\ninstances: not checked\n"
    );
}

#[tokio::test]
async fn while_draining_it_is_said_why_it_is_not_ready() {
    let application = application().await;
    let program = Program::start(config(&application).with("[shutdown]\naccept_grace = \"1m\"")).await;
    program.process.signal("TERM");
    program.wait_for_readiness(503).await;
    let verbose = get(program.admin, "/readyz?verbose").await;
    let expected =
        "not ready\naccepting: failed: not serving yet, or draining\nstore: ok\ninstances: not checked\n";
    assert_eq!((verbose.status, verbose.text()), (503, expected));
}
