//! Host validation on the admin listener, against DNS rebinding.
//!
//! A page of another site can make its own host name resolve to this address; a browser then lets it read the
//! responses (DNS rebinding). Such a name contains a dot and is not configured, so requests with it are
//! refused.

use http::{HeaderMap, StatusCode, Uri, Version};

use crate::headers::host::{TargetError, authority};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error(transparent)]
    Unclear(#[from] TargetError),
    #[error("vestibule is not known by this Host: write its name into `hosts` of [admin]")]
    Misdirected,
}

impl HostError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            HostError::Unclear(_) => StatusCode::BAD_REQUEST,
            HostError::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

/// Checks that a request's host is an address, `localhost`, a name without a dot, or one of `names` (lower
/// case).
pub(super) fn check(
    (headers, uri, version): (&HeaderMap, &Uri, Version),
    names: &[String],
) -> Result<(), HostError> {
    // HTTP/1.0 requests without `Host` pass: health probes of load balancers send them, browsers never do.
    let host = authority(headers, uri, version)?.host;
    if is_ours(host, names) { Ok(()) } else { Err(HostError::Misdirected) }
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let is_address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_address || !name.contains('.') || name.ends_with(".localhost") || names.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_other_site_has_are_ours() {
        let names = ["vestibule.example.com".to_owned()];
        for ours in [
            "127.0.0.1",
            "10.0.0.7",
            "[::1]",
            "localhost",
            "a.localhost",
            "vestibule",
            "Vestibule.Example.com.",
        ] {
            assert!(is_ours(ours, &names), "{ours}");
        }
        for other in
            ["example.com", "127.0.0.1.example", "localhost.example", "a.vestibule.example.com", "1.2.3.4.5"]
        {
            assert!(!is_ours(other, &names), "{other}");
        }
    }
}
