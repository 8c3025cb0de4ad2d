//! The access log: one JSON object per request. It never contains query strings, cookies, session ids or
//! other credentials.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use http::{StatusCode, Version};

use super::client::Client;
use super::cohort::OtherModeOutcome;
use super::context::RequestContext;
use crate::config::Mode;
use crate::secret::Fingerprints;

/// Writes the log entry of `exchange`, which took `took`.
pub(super) fn write(out: &mut Vec<u8>, exchange: &RequestContext, took: Duration, marks: &Fingerprints) {
    let config = &exchange.plan.config;
    let route = exchange.route.and_then(|index| config.routes.get(index));
    let upstream = exchange.upstream().and_then(|index| config.upstreams.get(index));
    let mut line = Line(out);
    line.text("request_id", exchange.request_id.as_ref().and_then(|id| id.to_str().ok()));
    line.show("client", exchange.client);
    line.text("method", Some(exchange.method.as_str()));
    line.text("host", exchange.host.as_ref().and_then(|host| host.to_str().ok()));
    line.text("path", Some(exchange.uri.path()));
    line.text("protocol", Some(protocol(exchange.version)));
    line.number("status", exchange.final_status());
    line.number("bytes_received", exchange.received);
    line.number("bytes_sent", exchange.sent);
    line.millis("duration_ms", Some(took));
    line.millis("first_byte_ms", exchange.first_byte);
    line.text("route", route.map(|route| route.path.as_str()));
    line.text("upstream", upstream.map(|upstream| upstream.name.as_str()));
    line.text("instance", exchange.lease.as_ref().map(|lease| lease.instance().label.as_str()));
    line.text("canary", exchange.visit.map(|visit| visit.choice.side.as_str()));
    line.number("attempts", exchange.attempts);
    line.text("mode", exchange.mode.map(Mode::as_str));
    cohort(&mut line, exchange);
    line.text("session", Some(exchange.session.as_str()));
    if let Some(id) = &exchange.session_id {
        line.show("session_mark", marks.mark(id.expose()));
    }
    line.text("affinity", exchange.affinity.map(|affinity| affinity.as_str()));
    line.text("reason", exchange.final_reason());
    line.text("cause", exchange.cause.as_deref());
}

/// Writes the cohort and the counterfactual outcome in another mode, while modes are compared.
fn cohort(line: &mut Line<'_>, exchange: &RequestContext) {
    if exchange.plan.cohorts.is_none() {
        return;
    }
    line.text("cohort", exchange.mode.map(Mode::as_str));
    let Some(comparison) = exchange.comparison else { return };
    line.text("other_mode", comparison.other.map(OtherModeOutcome::as_str));
    line.number("tie_lost", comparison.tie_lost);
}

/// Writes the log entry of a request that could not be parsed.
pub(super) fn write_refused(out: &mut Vec<u8>, client: &Client, status: StatusCode, reason: &str) {
    let mut line = Line(out);
    line.show("client", client.address);
    line.number("status", status.as_u16());
    line.text("reason", Some(reason));
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Writer for the members of a JSON object, each preceded by a comma. Writing to memory cannot fail, so
/// results are discarded.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn name(&mut self, name: &str) {
        let _ = write!(self.0, ",\"{name}\":");
    }

    /// Writes a string from any source, escaped. Writes nothing for `None`.
    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            let _ = serde_json::to_writer(&mut *self.0, value);
        }
    }

    /// Writes a string that needs no escaping.
    fn show(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.0, "\"{value}\"");
    }

    fn number(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.0, "{value}");
    }

    fn millis(&mut self, name: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.name(name);
            let micros = value.as_micros();
            let _ = write!(self.0, "{}.{:03}", micros / 1000, micros % 1000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_wrote() {
        let mut out = Vec::new();
        let mut line = Line(&mut out);
        line.text("path", Some("/a\"b\\\u{1}\n"));
        line.millis("duration_ms", Some(Duration::from_micros(12_005)));
        line.text("none", None);
        assert!(!out.contains(&b'\n'));
        let line = [b"{\"time\":0", &out[..], b"}"].concat();
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["path"], "/a\"b\\\u{1}\n");
        assert_eq!(value["duration_ms"], 12.005);
        assert!(value.get("none").is_none());
    }
}
