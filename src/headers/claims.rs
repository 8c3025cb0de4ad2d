//! Headers whose claims only a proxy in front of the application may make: the origin of the request, the
//! user's identity, and a target that differs from the request line.
//!
//! An application that trusts such a header trusts every client that can set it. These headers are therefore
//! accepted only from trusted peers or set by vestibule itself; otherwise they are removed.

use super::name::NameSet;

/// Origin of the request.
const ORIGIN: &[&str] = &[
    "forwarded",
    "x-forwarded",
    "forwarded-for",
    "forwarded-host",
    "forwarded-proto",
    "x-forward-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-proto",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "remote-addr",
    "x-originating-ip",
    "x-proxyuser-ip",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-host",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "fastly-client-ip",
    "fastly-ssl",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-envoy-external-address",
    "x-request-id",
];

/// Identity of the user: the headers of all identity presets and those of other authenticating proxies.
const IDENTITY: &[&str] = &[
    "x-user-id",
    "x-user-name",
    "x-user-email",
    "remote-user",
    "remote-name",
    "remote-email",
    "remote-groups",
    "x-remote-user",
    "x-remote-name",
    "x-remote-email",
    "x-remote-group",
    "x-remote-groups",
    "x-webauth-user",
    "x-vouch-user",
    "cf-access-authenticated-user-email",
];

/// Replacements for the method, target or body of the request.
const TARGET: &[&str] = &[
    "x-original-url",
    "x-original-uri",
    "x-original-method",
    "x-rewrite-url",
    "x-override-url",
    "x-waws-unencoded-url",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "x-script-name",
    "script-name",
    "path-info",
    "request-uri",
    "x-sendfile-type",
    "x-accel-mapping",
];

/// Prefixes of header families that belong to proxies.
const PREFIXES: &[&str] = &[
    "x-forwarded-",
    "x-auth-request-",
    "x-ssl-client-",
    "ssl-client-",
    "x-client-cert",
    "client-cert",
    "x-authentik-",
    "x-pomerium-",
    "x-goog-authenticated-user-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "tailscale-user-",
];

/// Never accepted. CGI maps `Proxy` to the variable `HTTP_PROXY`, which many programs use as the proxy for
/// their own outgoing requests ("httpoxy").
pub const NEVER: [&str; 1] = ["proxy"];

/// Headers that determine the framing, target or user of a message and have a single valid spelling. The
/// proxy ignores other spellings, but an application behind CGI or WSGI reads them as the same header.
const FRAME: [&str; 7] =
    ["host", "authorization", "cookie", "content-type", "content-length", "content-encoding", "trailer"];

/// The set of all claims.
pub fn claims() -> NameSet {
    claims_and([])
}

/// The set of all claims and `others`.
pub fn claims_and<'a>(others: impl IntoIterator<Item = &'a str>) -> NameSet {
    NameSet::new(ORIGIN.iter().chain(IDENTITY).chain(TARGET).copied().chain(others)).with_prefixes(PREFIXES)
}

/// Names that may pass in their [proper](is_proper) spelling only.
pub fn frame() -> NameSet {
    NameSet::new(FRAME)
}

/// Whether `name`, in lower case, consists of letters, digits and `-` only and does not end with `-`.
pub fn is_proper(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_families_are_claims_in_every_spelling() {
        let claims = claims();
        for name in
            ["x-forwarded-anything", "x_forwarded_user", "x-auth-request-email", "remote_user", "x-real-ip_"]
        {
            assert!(claims.matches(name), "{name}");
        }
        for name in
            ["x-forwarding", "x-original-filename", "x-csrf-token", "x-auth-token", "user-agent", "origin"]
        {
            assert!(!claims.matches(name), "{name}");
        }
    }

    #[test]
    fn only_letters_digits_and_hyphens_are_proper() {
        assert!(is_proper("x-user-id") && is_proper("sec-ch-ua-wow64"));
        for name in ["x_user_id", "x.user", "host_", "host-", "x~y"] {
            assert!(!is_proper(name), "{name}");
        }
    }

    #[test]
    fn proper_spellings_are_what_the_lists_hold() {
        for name in ORIGIN.iter().chain(IDENTITY).chain(TARGET).chain(&FRAME).chain(&NEVER) {
            assert!(is_proper(name) && *name == name.to_ascii_lowercase(), "{name}");
        }
    }
}
