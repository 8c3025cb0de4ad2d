//! The summary of a load test.

use std::io::{self, Write};

use crate::lab::load::{ActionResult, Histogram, LoadResult, Sessions};

/// Prints the summary, aligned.
pub(super) fn write(result: &LoadResult, out: &mut impl Write) -> io::Result<()> {
    let LoadResult { scenario, target, seed, seconds, .. } = result;
    writeln!(out, "{scenario} on {target}, seed {seed}, {seconds:.1} s")?;
    let rate = if *seconds > 0.0 { result.all.done as f64 / seconds } else { 0.0 };
    let asked = result.asked_rate.map_or(String::new(), |asked| format!(" of {asked} asked for"));
    writeln!(
        out,
        "{rate:.1} actions/s{asked}, {} requests, {:.1} MiB",
        result.requests,
        mebibytes(result.bytes)
    )?;
    writeln!(out)?;
    latencies(result, out)?;
    sessions(&result.sessions, out)?;
    list("failed", &result.failures, out)?;
    list("instances", &result.instances, out)
}

fn latencies(result: &LoadResult, out: &mut impl Write) -> io::Result<()> {
    fn row<'a>(name: &'a str, action: &'a ActionResult) -> (&'a str, String, String, &'a Histogram) {
        let ActionResult { done, failed, latency } = action;
        (name, done.to_string(), failed.to_string(), latency)
    }
    let mut rows: Vec<(&str, String, String, &Histogram)> =
        result.actions.iter().map(|(name, action)| row(name.as_str(), action)).collect();
    if result.actions.len() > 1 {
        rows.push(row("all", &result.all));
    }
    let streams = [("first event", &result.first_token), ("between events", &result.token_gap)];
    let streams = streams.into_iter().filter(|(_, times)| times.count > 0);
    rows.extend(streams.map(|(name, times)| (name, times.count.to_string(), String::new(), times)));
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    let header = ["done", "failed", "mean ms", "p50", "p95", "p99", "max"];
    let [done, failed, mean, p50, p95, p99, max] = header;
    writeln!(out, "{:width$} {done:>9} {failed:>7} {mean:>9} {p50:>9} {p95:>9} {p99:>9} {max:>9}", "")?;
    for (name, done, failed, times) in rows {
        let Histogram { mean, p50, p95, p99, max, .. } = times;
        writeln!(
            out,
            "{name:width$} {done:>9} {failed:>7} {mean:>9.2} {p50:>9.2} {p95:>9.2} {p99:>9.2} {max:>9.2}"
        )?;
    }
    Ok(())
}

fn sessions(sessions: &Sessions, out: &mut impl Write) -> io::Result<()> {
    let Sessions { begun, lost, ended, unclear } = sessions;
    if *begun == 0 {
        return Ok(());
    }
    let share = *lost as f64 / *begun as f64 * 100.0;
    let unclear = if *unclear > 0 { format!(", {unclear} unclear at the end") } else { String::new() };
    writeln!(out, "\nsessions   {begun} begun, {lost} lost ({share:.2}%), {ended} logged out{unclear}")
}

fn list<'a>(
    name: &str,
    counts: impl IntoIterator<Item = (&'a String, &'a u64)>,
    out: &mut impl Write,
) -> io::Result<()> {
    let counts: Vec<_> = counts.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
    if counts.is_empty() { Ok(()) } else { writeln!(out, "{name:10} {}", counts.join(", ")) }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn action(done: u64, failed: u64, times: f64) -> ActionResult {
        let latency = Histogram {
            count: done - failed,
            mean: times,
            p50: times,
            p95: 2.0 * times,
            p99: 3.0 * times,
            max: 4.0 * times,
            ..Histogram::default()
        };
        ActionResult { done, failed, latency }
    }

    fn result() -> LoadResult {
        LoadResult {
            scenario: "shop".to_owned(),
            target: "http://127.0.0.1:8080".to_owned(),
            seed: 7,
            asked_rate: Some(30.0),
            seconds: 10.0,
            requests: 320,
            bytes: 3 << 20,
            actions: BTreeMap::from([
                ("look".to_owned(), action(200, 0, 1.5)),
                ("buy".to_owned(), action(100, 2, 12.25)),
            ]),
            all: action(300, 2, 5.0),
            first_token: Histogram::default(),
            token_gap: Histogram::default(),
            sessions: Sessions { begun: 50, lost: 3, ended: 4, unclear: 0 },
            losses: Vec::new(),
            failures: BTreeMap::from([("connect".to_owned(), 1), ("status 502".to_owned(), 1)]),
            instances: BTreeMap::from([("a".to_owned(), 160), ("b".to_owned(), 160)]),
            timeline: Vec::new(),
        }
    }

    #[test]
    fn a_summary_is_short_and_aligned() {
        let mut out = Vec::new();
        write(&result(), &mut out).unwrap();
        let expected = "\
shop on http://127.0.0.1:8080, seed 7, 10.0 s
30.0 actions/s of 30 asked for, 320 requests, 3.0 MiB

          done  failed   mean ms       p50       p95       p99       max
buy        100       2     12.25     12.25     24.50     36.75     49.00
look       200       0      1.50      1.50      3.00      4.50      6.00
all        300       2      5.00      5.00     10.00     15.00     20.00

sessions   50 begun, 3 lost (6.00%), 4 logged out
failed     connect 1, status 502 1
instances  a 160, b 160
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
