//! The load generator tells what other generators tell: of an instance that takes the same time for every answer.

use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use super::{report, scaled};
use crate::load::{load, run};
use crate::support::service::{Service, send};

/// What every answer takes at least.
const TAKES: Duration = Duration::from_millis(5);
const CONNECTIONS: u32 = 10;

/// Figures in milliseconds are printed, not asserted: whose are right on a busy machine nobody knows. What is asserted is
/// that no latency is shorter than the answer took, and that every action of an asked rate was done.
#[tokio::test]
async fn its_figures_are_those_of_other_generators() {
    let service = Service::start(async |_, wire| {
        sleep(TAKES).await;
        send(wire, 200, &[], "told").await
    });
    let seconds = scaled(1, 15);
    let tables = format!(
        "duration = '{seconds}s'\n[users]\ncount = {CONNECTIONS}\n[[action]]\nname = 'a'\npath = '/'"
    );
    let closed = run(load(&tables, service.address())).await;
    let open = run(load(&format!("{tables}\n[arrival]\nrate = 500"), service.address())).await;
    for (model, result) in [("closed", &closed), ("500/s", &open)] {
        let (times, rate) = (&result.all.latency, result.all.done as f64 / result.seconds);
        let figures = format!("mean {:.3} ms, p50 {:.3}, p99 {:.3}", times.mean, times.p50, times.p99);
        report("latency of a constant server", format!("vestibule load, {model}: {rate:.1}/s, {figures}"));
        assert_eq!(result.all.failed, 0, "{:?}", result.failures);
        assert!(times.counts[0].0 >= 4.99, "{:?}", times.counts[0]);
    }
    assert_eq!(open.all.done, 500 * seconds);
    let (url, seconds) = (format!("http://{}/", service.address()), seconds.to_string());
    let connections = CONNECTIONS.to_string();
    let wrk = ["-t1", "-c", &connections, "-d", &seconds, "--latency", &url];
    let h2load = ["--h1", "-t1", "-c", &connections, "-D", &seconds, &url];
    other("wrk", &wrk, &["Latency", "50%", "99%", "Requests/sec"]);
    other("h2load", &h2load, &["finished in", "time for request", "time to 1st byte"]);
}

/// Shows the telling lines of another generator, if it is installed.
fn other(program: &str, arguments: &[&str], telling: &[&str]) {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return report("latency of a constant server", format!("{program} is not installed"));
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| telling.iter().any(|word| line.contains(word)));
    let lines: Vec<_> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    report("latency of a constant server", format!("{program}: {}", lines.join(", ")));
}
