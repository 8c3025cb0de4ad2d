//! `session.store.url`: the embedded store or Redis.
//!
//! A URL may contain a password, so no fault quotes any part of it except a scheme from a fixed list.

use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::StoreKind;
use crate::config::redis_url::RedisUrl;
use crate::config::reference::resolve;
use crate::config::value::text;

const ANOTHER_STORE: &str = "write \"memory:\", \"redis://user:password@host:port/db\", \
    \"redis+sentinel://host:port,host:port/master\" or \"redis+cluster://host:port,host:port\"; \
    with TLS \"rediss…\"";

/// Schemes of other clients that users may try.
const UNSUPPORTED: [&str; 14] = [
    "redis-sentinel",
    "redis+sentinels",
    "redis-cluster",
    "redis+clusters",
    "redis+tls",
    "redis+ssl",
    "redis+unix",
    "unix",
    "valkey",
    "valkeys",
    "memcached",
    "postgres",
    "mysql",
    "sqlite",
];

/// A URL or a reference to one.
pub(super) fn store_url(node: &Node) -> Result<StoreKind, Fault> {
    let read = || match text(node).map(|text| (text, resolve(text)))? {
        (text, None) => parse(text),
        (reference, Some(secret)) => match String::from_utf8(secret?).map(|url| parse(&url)) {
            Ok(Ok(StoreKind::Redis(url))) => Ok(StoreKind::Redis(url.taken_from(reference))),
            Ok(other) => other,
            Err(_) => Err(malformed("what it refers to is not text")),
        },
    };
    read().map_err(|fault| Fault { hidden: true, ..fault })
}

fn parse(url: &str) -> Result<StoreKind, Fault> {
    if url == "memory:" {
        return Ok(StoreKind::Memory);
    }
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if UNSUPPORTED.contains(&scheme) {
        let what = format!("stores of the kind `{scheme}` are not supported");
        return Err(Fault::new(what, "no session could be read", ANOTHER_STORE));
    }
    RedisUrl::parse(url).map(StoreKind::Redis).map_err(malformed)
}

fn malformed(what: &'static str) -> Fault {
    let help = format!("{ANOTHER_STORE}; percent-encode `/ ? # @ :` in a password");
    Fault::new(format!("the store's URL is not well formed: {what}"), "no session could be read", help)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_of_every_kind_are_accepted() {
        assert!(matches!(parse("memory:"), Ok(StoreKind::Memory)));
        for url in ["redis://h", "rediss://h", "redis+sentinel://h/m", "rediss+cluster://h"] {
            assert!(matches!(parse(url), Ok(StoreKind::Redis(_))), "{url}");
        }
    }

    #[test]
    fn malformed_urls_are_refused_without_being_quoted() {
        let urls = [
            "hunter2",
            "http://hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@h/hunter2",
            "redis://:hunter2%zz@h",
        ];
        for url in urls {
            let fault = parse(url).unwrap_err();
            assert!(fault.what.starts_with("the store's URL is not well formed: "), "{fault:?}");
            assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
        }
    }

    #[test]
    fn stores_that_are_not_supported_are_named() {
        let fault = parse("redis+sentinels://:hunter2@h/mymaster").unwrap_err();
        assert_eq!(fault.what, "stores of the kind `redis+sentinels` are not supported");
        assert!(fault.help.contains("redis+sentinel://host"), "{}", fault.help);
        assert!(!format!("{fault:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_url_makes_the_parser_panic_or_is_quoted(noise in "[ -~é]{0,20}") {
            let url = format!("redis://:hunter2@{noise}");
            if let Err(fault) = parse(&url) {
                let shown = format!("{fault:?}");
                prop_assert!(!shown.contains("hunter2"), "{}", shown);
            }
        }
    }
}
