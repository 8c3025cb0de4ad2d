//! Cookie attributes, and the constraints of browsers on them.

use super::http_text::{cookie_domain, cookie_path};
use crate::config::fault::Fault;
use crate::config::section::Section;
use crate::config::value::{boolean, choice};
use crate::headers::set_cookie::{CookieAttributes, SameSite, SecureAttribute};

/// Reads the attributes of cookies whose names begin with `name`.
pub(super) fn attributes(s: &mut Section<'_>, name: &str) -> CookieAttributes {
    let same_site = choice(&[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)]);
    let secure = choice(&[
        ("auto", SecureAttribute::Auto),
        ("always", SecureAttribute::Always),
        ("never", SecureAttribute::Never),
    ]);
    let default = CookieAttributes::default();
    let attributes = CookieAttributes {
        path: s.value("path", cookie_path, default.path),
        domain: s.optional("domain", cookie_domain),
        same_site: s.value("same_site", same_site, default.same_site),
        secure: s.value("secure", secure, default.secure),
        partitioned: s.value("partitioned", boolean, default.partitioned),
    };
    check_secure(s, name, &attributes);
    check_host(s, name, &attributes);
    attributes
}

/// Combinations that browsers accept only with `Secure` (RFC 6265bis sections 4.1.3 and 5.7; CHIPS).
fn check_secure(s: &mut Section<'_>, name: &str, attributes: &CookieAttributes) {
    if attributes.secure != SecureAttribute::Never {
        return;
    }
    let which = if attributes.same_site == SameSite::None {
        "a cookie with same_site = \"none\""
    } else if attributes.partitioned {
        "a partitioned cookie"
    } else if ["__Host-", "__Secure-", "__Http-"].iter().any(|prefix| has_prefix(name, prefix)) {
        "a cookie of this name"
    } else {
        return;
    };
    let what = format!("{which} needs the attribute Secure");
    let help = "set secure to \"always\" or \"auto\"";
    s.fault(s.spot("secure"), Fault::new(what, "browsers refuse it otherwise", help));
}

fn check_host(s: &mut Section<'_>, name: &str, attributes: &CookieAttributes) {
    let key = match &attributes.domain {
        Some(_) => "domain",
        None if attributes.path != "/" => "path",
        None => return,
    };
    if has_prefix(name, "__Host-") {
        let what = "a `__Host-` cookie has no domain, and its path is `/`";
        let help = "leave `domain` and `path` out, or choose another name";
        s.fault(s.spot(key), Fault::new(what, "browsers refuse it otherwise", help));
    }
}

/// Browsers compare name prefixes case-insensitively.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
