//! URLs of Redis: `redis://`, `redis+sentinel://`, `redis+cluster://`, and `rediss…` for TLS.
//!
//! A URL may contain a password, so errors never quote any part of it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::reference::resolve;
use super::validate::domain;
use crate::secret::Secret;

const SENTINEL_PORT: u16 = 26_379;
const REDIS_PORT: u16 = 6379;

/// A validated URL of Redis servers.
#[derive(Debug, Clone)]
pub struct RedisUrl {
    pub kind: RedisKind,
    /// Never empty, no duplicates. The servers, the sentinels, or the initial nodes of a cluster.
    pub hosts: Vec<Host>,
    pub tls: bool,
    pub credentials: Credentials,
    /// 0 in a cluster.
    pub database: u32,
    /// `env:NAME` or `file:PATH`, if the URL was resolved from a reference.
    reference: Option<String>,
}

/// How the primaries are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisKind {
    /// The only host, or of several hosts the one that reports the role `master`.
    Hosts,
    /// The hosts are sentinels; the primary is the one that they report for this master name.
    Sentinel { master: String },
    /// The nodes that own the slots of a Redis Cluster.
    Cluster,
}

/// A host and a port; displayed as in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// A name or an address; an IPv6 address without brackets.
    pub name: String,
    pub port: u16,
}

/// Credentials for a server. Without a password the connection is not authenticated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
}

/// With a reference the credentials are not compared, because they may change at any time (rotation); the
/// references are compared instead.
impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let rest =
            |url: &Self| (url.kind.clone(), url.hosts.clone(), url.tls, url.database, url.reference.clone());
        rest(self) == rest(other) && (self.reference.is_some() || self.credentials == other.credentials)
    }
}

impl RedisUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// What is wrong, without quoting any part of the URL.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(UNKNOWN_SCHEME)?;
        let (protocol, discovery) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match protocol {
            "redis" => false,
            "rediss" => true,
            _ => return Err(UNKNOWN_SCHEME),
        };
        if !rest.chars().all(|c| c.is_ascii_graphic()) {
            return Err("it holds a space, a control character or a letter beyond ASCII");
        }
        if rest.contains(['?', '#']) {
            return Err("it holds `?` or `#`, and there are no options to set that way");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, database, port) = match discovery {
            "" if scheme == protocol => (RedisKind::Hosts, database(path)?, REDIS_PORT),
            "sentinel" => {
                let (master, path) = path.split_once('/').unwrap_or((path, ""));
                (RedisKind::Sentinel { master: master_name(master)? }, database(path)?, SENTINEL_PORT)
            }
            "cluster" if database(path)? == 0 => (RedisKind::Cluster, 0, REDIS_PORT),
            "cluster" => return Err("a cluster has no database but 0"),
            _ => return Err(UNKNOWN_SCHEME),
        };
        let (user_info, addresses) = authority.rsplit_once('@').unwrap_or(("", authority));
        let credentials = credentials(user_info)?;
        Ok(RedisUrl { kind, hosts: hosts(addresses, port)?, tls, credentials, database, reference: None })
    }

    /// The same URL, marked as resolved from `reference`.
    pub(super) fn taken_from(self, reference: &str) -> Self {
        RedisUrl { reference: Some(reference.to_owned()), ..self }
    }

    /// Whether the URL was resolved from a reference instead of the configuration file itself.
    pub fn is_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Resolves the reference again and returns the current credentials. `None` if the URL is not a reference
    /// or no valid URL is found there. Reads a file.
    pub fn reread_credentials(&self) -> Option<Credentials> {
        let bytes = resolve(self.reference.as_ref()?)?.ok()?;
        RedisUrl::parse(str::from_utf8(&bytes).ok()?).ok().map(|url| url.credentials)
    }
}

impl Host {
    /// Parses `host:port` as Redis servers write it: an IPv6 address with or without brackets.
    pub fn parse(text: &str) -> Option<Host> {
        let (name, port) = text.rsplit_once(':')?;
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!name.is_empty()).then(|| Host { name: name.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

const UNKNOWN_SCHEME: &str = "it begins with no scheme that is known here";

fn database(path: &str) -> Result<u32, &'static str> {
    if path.is_empty() {
        return Ok(0);
    }
    number(path, 1_000_000).ok_or("after the address there is something else than the number of a database")
}

fn master_name(name: &str) -> Result<String, &'static str> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name.is_empty() || !name.chars().all(is_letter) {
        true => Err("after the sentinels there is no name of a master, such as `/mymaster`"),
        false => Ok(name.to_owned()),
    }
}

fn credentials(user_info: &str) -> Result<Credentials, &'static str> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decoded = |text: &str| match percent_decoded(text) {
        Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        None => Err("user or password is not percent-encoded UTF-8"),
    };
    Ok(Credentials { user: decoded(user)?, password: decoded(password)?.map(Secret::new) })
}

/// `None` unless every `%` begins an encoded byte and the result is UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
        bytes.push(u8::from_str_radix(byte?, 16).ok()?);
        bytes.extend(part.bytes().skip(2));
    }
    String::from_utf8(bytes).ok()
}

fn hosts(addresses: &str, default_port: u16) -> Result<Vec<Host>, &'static str> {
    let mut hosts = Vec::new();
    for address in addresses.split(',') {
        let host = host(address, default_port)?;
        if hosts.contains(&host) {
            return Err("it names a host twice");
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn host(address: &str, default_port: u16) -> Result<Host, &'static str> {
    // A port's colon comes after the bracket of an IPv6 address.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = number(port, 65_535).and_then(|port| u16::try_from(port).ok());
            let port = port.filter(|port| *port != 0);
            (host, port.ok_or("the port is not a number from 1 to 65535")?)
        }
        _ => (address, default_port),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    if !is_host(host) {
        return Err("the host is neither a name nor an address to connect to; IPv6 stands in brackets");
    }
    Ok(Host { name: host.trim_matches(['[', ']']).to_owned(), port })
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return address.is_some_and(|address| !address.is_unspecified());
    }
    // Resolvers treat a name whose last label is numeric as an IPv4 address.
    let is_numeric = host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    match is_numeric {
        true => host.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_unspecified()),
        false => domain(host).is_some(),
    }
}

fn number(text: &str, max: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(url: &str) -> String {
        let RedisUrl { kind, hosts, tls, credentials, database, .. } = RedisUrl::parse(url).unwrap();
        let hosts: Vec<_> = hosts.iter().map(Host::to_string).collect();
        let user = credentials.user.unwrap_or_default();
        let password = credentials.password.map(|secret| secret.expose().clone()).unwrap_or_default();
        let kind = match kind {
            RedisKind::Hosts => String::new(),
            RedisKind::Sentinel { master } => format!(" master {master}"),
            RedisKind::Cluster => " cluster".to_owned(),
        };
        format!("{}{user}:{password}@{}/{database}{kind}", if tls { "tls " } else { "" }, hosts.join(","))
    }

    #[test]
    fn well_formed_urls_are_read() {
        for (url, expected) in [
            ("redis://localhost", ":@localhost:6379/0"),
            ("redis://127.0.0.1:6379/", ":@127.0.0.1:6379/0"),
            ("rediss://user:p%40ss@cache.example.com:6380/12", "tls user:p@ss@cache.example.com:6380/12"),
            ("redis://:pw@[::1]:7", ":pw@[::1]:7/0"),
            ("redis://:p@w@[fd00::1]", ":p@w@[fd00::1]:6379/0"),
            ("redis://:a:b@h", ":a:b@h:6379/0"),
            ("redis://u:p@h1:1,h2,[::1]:3/4", "u:p@h1:1,h2:6379,[::1]:3/4"),
            ("redis+sentinel://s1,s2:7/my.master-1", ":@s1:26379,s2:7/0 master my.master-1"),
            ("rediss+sentinel://:p@s1/m/3", "tls :p@s1:26379/3 master m"),
            ("redis+cluster://n1:7001,n2:7002", ":@n1:7001,n2:7002/0 cluster"),
            ("rediss+cluster://u:p@n1/0", "tls u:p@n1:6379/0 cluster"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn malformed_urls_are_refused_for_what_is_wrong_with_them() {
        let no_database = "after the address there is something else than the number of a database";
        let no_master = "after the sentinels there is no name of a master, such as `/mymaster`";
        let no_port = "the port is not a number from 1 to 65535";
        for (url, expected) in [
            ("h", UNKNOWN_SCHEME),
            ("http://h", UNKNOWN_SCHEME),
            ("redis:h", UNKNOWN_SCHEME),
            ("redis+://h", UNKNOWN_SCHEME),
            ("redis+unix://h", UNKNOWN_SCHEME),
            ("redis+sentinels://h/m", UNKNOWN_SCHEME),
            ("redis://:p@", "it names no host"),
            ("redis://:p@:6379", "it names no host"),
            ("redis://h1,,h2", "it names no host"),
            ("redis://h1,h2:6379,h2", "it names a host twice"),
            ("redis://h:0", no_port),
            ("redis://h:", no_port),
            ("redis://h:65536", no_port),
            ("redis://h:+1", no_port),
            ("redis://h/x", no_database),
            ("redis://h/0/", no_database),
            ("redis+sentinel://s1", no_master),
            ("redis+sentinel://s1/", no_master),
            ("redis+sentinel://s1/m%20", no_master),
            ("redis+sentinel://s1/m/x", no_database),
            ("redis+cluster://h/1", "a cluster has no database but 0"),
            ("redis://h/0#insecure", "it holds `?` or `#`, and there are no options to set that way"),
            ("redis://p @h", "it holds a space, a control character or a letter beyond ASCII"),
            ("redis://:p%zz@h", "user or password is not percent-encoded UTF-8"),
            ("redis://:p%ff@h", "user or password is not percent-encoded UTF-8"),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap_err(), expected, "{url}");
        }
        for host in ["0.0.0.0", "[::]", "1.2.3", "::1", "[::1", "a..b"] {
            assert!(RedisUrl::parse(&format!("redis://{host}")).is_err(), "{host}");
        }
    }

    #[test]
    fn credentials_are_read_again_where_they_came_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = RedisUrl::parse("redis://:old@h").unwrap();
        assert_eq!(url.reread_credentials(), None);
        let url = url.taken_from(&format!("file:{}", file.path().display()));
        assert_eq!(url.reread_credentials(), None);
        std::fs::write(file.path(), "redis://u:new@h\n").unwrap();
        let expected = Credentials { user: Some("u".into()), password: Some(Secret::new("new".into())) };
        assert_eq!(url.reread_credentials(), Some(expected));
    }

    #[test]
    fn servers_write_addresses_of_every_kind() {
        for (text, shown) in
            [("1.2.3.4:5", "1.2.3.4:5"), ("::1:5", "[::1]:5"), ("[::1]:5", "[::1]:5"), ("h.x:1", "h.x:1")]
        {
            assert_eq!(Host::parse(text).unwrap().to_string(), shown);
        }
        for wrong in ["", ":5", "h", "h:", "h:0", "h:65536"] {
            assert_eq!(Host::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            names in proptest::collection::btree_set("[a-z]{1,9}|10\\.[0-9]\\.[0-9]\\.1|\\[fd00::[0-9a-f]\\]", 1..4),
            port in 1_u16..,
            password in "[a-z%:@ -~é]{0,9}",
        ) {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let hosts: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
            let url = RedisUrl::parse(&format!("redis://:{encoded}@{}/1", hosts.join(","))).unwrap();
            prop_assert_eq!(url.hosts.iter().map(Host::to_string).collect::<Vec<_>>(), hosts);
            let read = url.credentials.password.map(|secret| secret.expose().clone()).unwrap_or_default();
            prop_assert_eq!(read, password);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(rediss?(\\+[a-z]+)?://)?.{0,30}") {
            let _ = RedisUrl::parse(&text);
            let _ = Host::parse(&text);
        }
    }
}
