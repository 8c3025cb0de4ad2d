//! `[upstream.discovery]`: where instances are discovered.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::http_text::domain;
use super::listen::socket_address;
use crate::config::discovery::{
    AddressFamily, Discovery, DiscoverySource, DnsDiscovery, DnsQuestion, OnEmpty,
};
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::section::Section;
use crate::config::value::{choice, duration, text};

const SOURCES: [&str; 3] = ["dns", "srv", "file"];

/// The content of the table.
#[derive(Default)]
pub(super) struct Written {
    /// Whether any source is present, valid or not.
    pub(super) named: bool,
    /// `None`: no source, or it has been reported.
    pub(super) discovery: Option<Discovery>,
}

/// Reads the table. `max_requests` is the default number of slots of a discovered instance.
pub(super) fn discovery(s: &mut Section<'_>, max_requests: Option<usize>) -> Written {
    let empty = choice(&[("keep", OnEmpty::Keep), ("apply", OnEmpty::Apply)]);
    let named: Vec<_> = SOURCES.into_iter().filter(|source| s.has(source)).collect();
    let (dns, srv) = (s.optional("dns", name_and_port), s.optional("srv", name));
    let file = s.optional("file", path).map(DiscoverySource::File);
    // With a file these keys have no effect, so they are reported as unknown.
    let settings = (!s.has("file")).then(|| settings(s));
    let empty_key = s.has("empty");
    let empty = s.value("empty", empty, OnEmpty::Keep);
    if let [_, second, ..] = named.as_slice() {
        let what = format!("there are {} sources of instances", named.len());
        let why = "which of them is right would be left to chance";
        s.fault(s.spot(second), Fault::new(what, why, "keep one of `dns`, `srv` and `file`"));
    }
    if named.is_empty() && (empty_key || settings.as_ref().is_some_and(|settings| settings.written)) {
        let help = "add one of `dns`, `srv` and `file`, or leave the table out";
        let what = "there is no source of instances";
        s.fault(s.own_spot(), Fault::new(what, "these keys have no effect without one", help));
    }
    let question = dns.or_else(|| srv.map(|name| DnsQuestion::Services { name }));
    let dns = question.zip(settings).map(|(question, settings)| settings.asking(question));
    let source = file.or(dns.map(DiscoverySource::Dns));
    Written {
        named: !named.is_empty(),
        discovery: source.map(|source| Discovery { source, empty, max_requests }),
    }
}

/// The DNS settings.
struct Settings {
    /// Whether any of the keys is present.
    written: bool,
    resolvers: Vec<SocketAddr>,
    family: AddressFamily,
    min_ttl: Duration,
    max_ttl: Duration,
    timeout: Duration,
}

impl Settings {
    fn asking(self, question: DnsQuestion) -> DnsDiscovery {
        let Settings { resolvers, family, min_ttl, max_ttl, timeout, .. } = self;
        DnsDiscovery { question, resolvers, family, min_ttl, max_ttl, timeout }
    }
}

fn settings(s: &mut Section<'_>) -> Settings {
    let family =
        choice(&[("any", AddressFamily::Any), ("ipv4", AddressFamily::Ipv4), ("ipv6", AddressFamily::Ipv6)]);
    let settings = Settings {
        written: ["resolvers", "family", "min_ttl", "max_ttl", "timeout"].into_iter().any(|key| s.has(key)),
        resolvers: s.list("resolvers", resolver),
        family: s.value("family", family, AddressFamily::Any),
        min_ttl: s.value("min_ttl", duration, Duration::from_secs(1)),
        max_ttl: s.value("max_ttl", duration, Duration::from_secs(300)),
        timeout: s.value("timeout", duration, Duration::from_secs(2)),
    };
    if settings.min_ttl > settings.max_ttl && s.are_sound(&["min_ttl", "max_ttl"]) {
        let what = "min_ttl is longer than max_ttl";
        let why = "no time between two look-ups would be right";
        s.fault(s.spot("min_ttl"), Fault::new(what, why, "make `min_ttl` the shorter one"));
    }
    settings
}

fn resolver(node: &Node) -> Result<SocketAddr, Fault> {
    let address = socket_address(node)?;
    if address.port() == 0 {
        return Err(Fault::new("the port is 0", "no resolver answers there", "write the port, mostly 53"));
    }
    Ok(address)
}

fn name_and_port(node: &Node) -> Result<DnsQuestion, Fault> {
    let text = text(node)?;
    let read = || {
        let (name, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(DnsQuestion::Addresses { name: dns_name(name)?, port })
    };
    read().ok_or_else(|| {
        let why = "A and AAAA records tell addresses, but no port";
        let help = "write name:port, such as \"app.default.svc.cluster.local:5001\"; \
                    an address is an [[upstream.instance]]";
        Fault::new(format!("{text:?} is not a name with a port"), why, help)
    })
}

fn name(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    dns_name(text).ok_or_else(|| {
        let help = "write a name without port, such as \"_http._tcp.app.default.svc.cluster.local\"";
        Fault::new(format!("{text:?} is not a DNS name"), "nothing can be asked for", help)
    })
}

/// A DNS name in lower case; a trailing dot is kept.
fn dns_name(text: &str) -> Option<String> {
    let has_loose_hyphen = text.split('.').any(|label| label.starts_with('-') || label.ends_with('-'));
    if has_loose_hyphen || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    match text.strip_suffix('.') {
        Some(absolute) => domain(absolute).map(|name| format!("{name}.")),
        None => domain(text),
    }
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    match text(node)? {
        "" => Err(Fault::new("the path is empty", "there is no such file", "write the path of the file")),
        path => Ok(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::file::Value;

    fn node(text: &str) -> Node {
        Node { span: 0..0, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn names_are_lowered_and_keep_the_dot_that_makes_them_absolute() {
        let addresses = |name: &str| DnsQuestion::Addresses { name: name.to_owned(), port: 5001 };
        assert_eq!(name_and_port(&node("App:5001")), Ok(addresses("app")));
        assert_eq!(name_and_port(&node("app.example.com.:5001")), Ok(addresses("app.example.com.")));
        assert_eq!(name(&node("_http._TCP.app")), Ok("_http._tcp.app".to_owned()));
    }

    #[test]
    fn what_cannot_be_looked_up_is_refused() {
        for text in ["app", "app:", "app:0", "app:65536", "10.0.0.1:80", "[::1]:80", "a..b:80", ":80", ".:80"]
        {
            assert!(name_and_port(&node(text)).is_err(), "{text}");
        }
        for text in ["", ".", "10.0.0.1", "app:80", "a b", "é", "-a", "a-.b"] {
            assert!(name(&node(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_can_be_asked_for(text in "[a-zA-Z0-9_-]{1,8}(\\.[a-z-]{1,5}){0,3}\\.?:?[0-9]{0,6}") {
            if let Ok(name) = name(&node(&text)) {
                prop_assert_eq!(name, text.to_ascii_lowercase());
                prop_assert!(text.split('.').all(|label| label.len() <= 63));
            }
            if let Ok(DnsQuestion::Addresses { name, port }) = name_and_port(&node(&text)) {
                prop_assert!(port > 0 && !name.contains(':'));
            }
        }
    }
}
