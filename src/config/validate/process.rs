//! Workers, limits, timeouts, shutdown, the access log and forwarding headers.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;
use ipnet::IpNet;

use super::header::free_name;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::{AccessLogOutput, ForwardedFor, Forwarding, Identity, Limits, Shutdown, Timeouts};
use crate::config::section::Section;
use crate::config::value::{
    boolean, choice, duration, duration_or_zero, integer, size, size_or_unlimited, text,
};
use crate::headers::claims::{claims, is_proper};

/// Maximum workers. Each has a thread, sockets and store connections.
const MAX_WORKERS: usize = 1024;

pub(super) fn workers(s: &mut Section<'_>) -> NonZeroUsize {
    let written = s.optional("workers", integer(1..=MAX_WORKERS)).and_then(NonZeroUsize::new);
    written.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn limits(s: &mut Section<'_>) -> Limits {
    Limits {
        connections: s.value("connections", integer(1..=10_000_000), 10_000),
        upstream_connections: s.value("upstream_connections", integer(1..=10_000_000), 10_000),
        header_count: s.value("header_count", integer(1..=10_000), 100),
        // The lower bound is hyper's minimum buffer.
        header_bytes: s.value("header_bytes", size(8 << 10..=16 << 20), 64 << 10),
        // The upper bound is the longest target that `http::Uri` supports.
        uri_bytes: s.value("uri_bytes", size(1..=65_534), 8 << 10),
        body_bytes: s.value("body_bytes", size_or_unlimited, None),
        response_header_count: s.value(
            "response_header_count",
            integer(1..=Limits::MAX_RESPONSE_HEADER_COUNT),
            1000,
        ),
        // The lower bound is hyper's minimum buffer.
        response_header_bytes: s.value(
            "response_header_bytes",
            size(8 << 10..=Limits::MAX_RESPONSE_HEADER_BYTES),
            64 << 10,
        ),
        // The lower bound is above what a single connection may buffer.
        buffer_bytes: s.value("buffer_bytes", size(1 << 20..=1 << 40), 512 << 20),
    }
}

pub(super) fn timeouts(s: &mut Section<'_>) -> Timeouts {
    Timeouts {
        request_head: s.value("request_head", duration, Duration::from_secs(10)),
        expect_continue: s.value("expect_continue", duration, Duration::from_secs(1)),
        half_closed: s.value("half_closed", duration_or_zero, Duration::from_secs(1)),
        keep_alive: s.value("keep_alive", duration, Duration::from_secs(75)),
        client_idle: s.value("client_idle", duration, Duration::from_secs(60)),
        connect: s.value("connect", duration, Duration::from_secs(2)),
        first_byte: s.value("first_byte", duration, Duration::from_secs(60)),
        upstream_idle: s.value("upstream_idle", duration, Duration::from_secs(300)),
        upstream_keep_alive: s.value("upstream_keep_alive", duration, Duration::from_millis(1500)),
        tunnel_idle: s.value("tunnel_idle", duration, Duration::from_secs(3600)),
    }
}

pub(super) fn shutdown(s: &mut Section<'_>) -> Shutdown {
    Shutdown {
        accept_grace: s.value("accept_grace", duration_or_zero, Duration::ZERO),
        deadline: s.value("deadline", duration_or_zero, Duration::from_secs(30)),
    }
}

pub(super) fn access_log(s: &mut Section<'_>) -> AccessLogOutput {
    s.value("output", log_output, AccessLogOutput::Stdout)
}

fn log_output(node: &Node) -> Result<AccessLogOutput, Fault> {
    match text(node)? {
        "stdout" => Ok(AccessLogOutput::Stdout),
        "stderr" => Ok(AccessLogOutput::Stderr),
        "off" => Ok(AccessLogOutput::Off),
        other => match other.strip_prefix("file:").filter(|path| !path.is_empty()) {
            Some(path) => Ok(AccessLogOutput::File(PathBuf::from(path))),
            None => Err(Fault::new(
                format!("{other:?} is no place to write to"),
                "the lines would be lost",
                "write \"stdout\", \"stderr\", \"off\" or \"file:/path\"",
            )),
        },
    }
}

pub(super) fn forwarding(s: &mut Section<'_>, identity: &Identity) -> Forwarding {
    let x_forwarded_for = choice(&[
        ("append", ForwardedFor::Append),
        ("replace", ForwardedFor::Replace),
        ("off", ForwardedFor::Off),
    ]);
    Forwarding {
        trusted_peers: s.list("trusted_peers", network),
        pass: s.list("pass", |node| passed(node, identity)),
        x_forwarded_for: s.value("x_forwarded_for", x_forwarded_for, ForwardedFor::Append),
        x_forwarded: s.value("x_forwarded", boolean, true),
        x_real_ip: s.value("x_real_ip", boolean, true),
        forwarded: s.value("forwarded", boolean, false),
        request_id: s.value("request_id", boolean, true),
    }
}

/// A header that is otherwise removed from requests of untrusted clients. It must not be an identity header
/// of vestibule's own.
fn passed(node: &Node, identity: &Identity) -> Result<HeaderName, Fault> {
    let name = free_name(text(node)?)?;
    if !is_proper(name.as_str()) || !claims().matches(name.as_str()) {
        let why = "the list is for headers that would be removed from requests of clients";
        return Err(Fault::new(format!("`{name}` is not such a header"), why, "leave it out"));
    }
    if identity.headers.iter().any(|header| header.name == name) {
        let why = "a client could say who it is";
        let help = "leave it out, or tell the application in another header under [identity]";
        return Err(Fault::new(format!("`{name}` is an identity header"), why, help));
    }
    Ok(name)
}

fn network(node: &Node) -> Result<IpNet, Fault> {
    let text = text(node)?;
    text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into())).map_err(|_| {
        Fault::new(
            format!("{text:?} is not a network"),
            "whom to believe is decided by address; names are not looked up",
            "write an address or a CIDR, such as \"10.0.0.0/8\" or \"fd00::/8\"",
        )
    })
}
