//! Reloads lose nobody and leave nothing behind.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::steady::{Application, Crowd};
use super::{report, scaled};
use crate::support::vestibule::Program;

#[tokio::test]
async fn a_hundred_reloads_in_a_minute_fail_no_request_and_cut_no_stream() {
    let (reloads, time) = scaled((10, Duration::from_secs(3)), (100, Duration::from_secs(60)));
    let application = Application::start(3).await;
    let program = Program::start(application.config(0..3)).await;
    let mut crowd = Crowd::at(program.address);
    crowd.open_streams(scaled(20, 200)).await;
    crowd.open_sockets(scaled(5, 50)).await;
    crowd.ask(scaled(100, 500));
    let begun = Instant::now();
    let mut before = 0;
    for reload in 0..reloads {
        sleep_until(begun + time * reload / reloads).await;
        if reload == reloads / 4 {
            before = program.process.memory("VmRSS");
        }
        // Each takes an instance out and brings the one before back.
        let gone = reload as usize % 3;
        let tables = format!("[timeouts]\nclient_idle = \"{}s\"", 60 + reload % 2);
        program.configure(&application.config((0..3).filter(|index| *index != gone)).with(&tables));
        program.reload("the configuration was reloaded").await;
    }
    let (took, after) = (begun.elapsed(), program.process.memory("VmRSS"));
    let noticed = crowd.leave(&application).await;
    let figures = format!(
        "{reloads} in {took:.1?}: {noticed}; {} KiB of memory after a quarter of them, {} KiB in the end",
        before >> 10,
        after >> 10
    );
    report("reloads", figures);
    assert_eq!((noticed.failed, noticed.cut), (0, 0));
    assert!(after < before + (4 << 20), "{before} bytes grew to {after}");
}
