//! The affinity binding of a request in sticky mode: reading, moving and renewing it.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::affinity::{Affinity, AffinityCookie, Binding};
use crate::balance::Balancer;
use crate::clock::unix_seconds;
use crate::config::Stick;
use crate::headers::cookie::{cookie_values, remove_cookie, shorten_cookie, split_set_cookie, unquoted};
use crate::upstream::InstanceId;

use super::context::AffinityOutcome;
use super::runtime_config::RuntimeConfig;

/// Separates an application's cookie value from the sealed binding that the proxy appends.
const SEPARATOR: u8 = b'~';
/// Separates an application's cookie value from the instance name that the application appends itself.
const SUFFIX: u8 = b'.';
/// Maximum length of cookie name and value together. Browsers ignore longer cookies (RFC 6265bis section
/// 5.6).
const LARGEST_COOKIE: usize = 4096;
/// The cookie is rewritten after 1/`SIGHTINGS` of the time after which a session counts as idle.
const SIGHTINGS: u64 = 4;

/// The binding of one request to one upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StickyBinding {
    hint: AffinityCookie,
    /// The instance to which an idle session is moved.
    moved_to: Option<InstanceId>,
    /// Whether the binding's age restarts although its instance stays: a move was considered and rejected, or
    /// the instance has lost the session.
    anew: bool,
}

impl StickyBinding {
    /// Reads the binding to the upstream with this index and removes the sealed part from the request's
    /// cookies. May decide to move the session. Returns `None` where the upstream keeps no binding (hash
    /// affinity).
    pub(super) fn read_and_strip(
        plan: &RuntimeConfig,
        upstream: usize,
        headers: &mut HeaderMap,
    ) -> Option<StickyBinding> {
        let mut tie = StickyBinding::read(plan, upstream, headers)?;
        tie.consider_move(plan.balancers.get(upstream)?);
        Some(tie)
    }

    /// Like [`StickyBinding::read_and_strip`], but never moves the session.
    pub(super) fn read(
        plan: &RuntimeConfig,
        upstream: usize,
        headers: &mut HeaderMap,
    ) -> Option<StickyBinding> {
        let balancer = plan.balancers.get(upstream)?;
        let hint = match &balancer.upstream().config.stick {
            Stick::Cookie => own_cookie(plan, plan.affinity_cookies.get(upstream)?, balancer, headers),
            Stick::AppCookie(name) => app_cookie(plan, name, balancer, headers),
            Stick::AppSuffix(name) => app_suffix(plan, name, balancer, headers),
            Stick::Hash(_) => return None,
        };
        Some(StickyBinding { hint, moved_to: None, anew: false })
    }

    /// The instance that the request should go to.
    pub(super) fn instance(self) -> Option<InstanceId> {
        self.moved_to.or_else(|| self.binding().map(|tied| tied.instance))
    }

    /// The affinity outcome when `chosen` serves the request.
    pub(super) fn outcome(self, chosen: InstanceId) -> AffinityOutcome {
        match self.hint {
            AffinityCookie::Tied(tied) if tied.instance == chosen => AffinityOutcome::Kept,
            AffinityCookie::Tied(_) if self.moved_to == Some(chosen) => AffinityOutcome::Moved,
            AffinityCookie::Tied(_) => AffinityOutcome::Lost,
            AffinityCookie::None => AffinityOutcome::New,
            AffinityCookie::Expired => AffinityOutcome::Expired,
            AffinityCookie::Forged => AffinityOutcome::Forged,
        }
    }

    /// Binds the client to `chosen` unless a current cookie already does. Depending on the affinity type this
    /// modifies the application's cookies in the response's `headers`, or returns a `Set-Cookie` value.
    pub(super) fn refresh_cookie(
        self,
        plan: &RuntimeConfig,
        balancer: &Balancer,
        chosen: InstanceId,
        headers: &mut HeaderMap,
        https: bool,
    ) -> Option<HeaderValue> {
        let (config, now) = (&balancer.upstream().config, unix_seconds());
        let client = self.binding().map_or_else(|| fastrand::u64(..), |tied| tied.client);
        match &config.stick {
            Stick::Cookie => {
                let since = match self.binding() {
                    Some(tied) if tied.instance == chosen => {
                        if !self.anew && !tied.old && !needs_refresh(&tied, balancer, now) {
                            return None;
                        }
                        if self.anew { now } else { tied.since }
                    }
                    _ => now,
                };
                plan.affinity.set_cookie(&config.name, client, chosen, since, https)
            }
            Stick::AppCookie(name) => {
                if let Some(sealed) = plan.affinity.seal(&config.name, client, chosen, now) {
                    append_to_cookies(headers, name, &sealed);
                }
                None
            }
            Stick::AppSuffix(_) | Stick::Hash(_) => None,
        }
    }

    /// The client's number, if the client was already bound to `chosen`.
    pub(super) fn client_of(self, chosen: InstanceId) -> Option<u64> {
        self.binding().filter(|tied| tied.instance == chosen).map(|tied| tied.client)
    }

    /// The same binding with its age restarted.
    pub(super) fn rebound(self) -> StickyBinding {
        StickyBinding { anew: true, ..self }
    }

    /// The binding that the client sent, if it is valid.
    pub(super) fn binding(self) -> Option<Binding> {
        match self.hint {
            AffinityCookie::Tied(tied) => Some(tied),
            _ => None,
        }
    }

    /// Moves an idle session that was bound before some instances were added to one of those, with a
    /// probability that gives each its share in the end. Each session is considered once.
    fn consider_move(&mut self, balancer: &Balancer) {
        let (Some(tied), Some(rebalance)) = (self.binding(), balancer.upstream().config.rebalance) else {
            return;
        };
        let idle = unix_seconds().saturating_sub(tied.seen);
        // `seen` may be outdated by up to one rewrite interval, because the cookie is not rewritten more
        // often. Whole seconds are compared, hence the strict comparison.
        let longest_unseen = rebalance.idle_over.as_secs() / SIGHTINGS;
        if tied.seen == 0 || idle <= rebalance.idle_over.as_secs() + longest_unseen {
            return;
        }
        let newcomers = balancer.newcomers(tied.since);
        if fastrand::f64() >= newcomers.share {
            self.anew = newcomers.share > 0.0;
        } else if balancer.upstream().group().may_move(rebalance.per_second) {
            self.moved_to = newcomers.pick();
        }
    }
}

fn needs_refresh(tied: &Binding, balancer: &Balancer, now: u64) -> bool {
    let rebalance = balancer.upstream().config.rebalance;
    rebalance.is_some_and(|rebalance| {
        now.saturating_sub(tied.seen) >= (rebalance.idle_over.as_secs() / SIGHTINGS).max(1)
    })
}

fn own_cookie(
    plan: &RuntimeConfig,
    cookie: &str,
    balancer: &Balancer,
    headers: &mut HeaderMap,
) -> AffinityCookie {
    let name = balancer.upstream().name();
    let values = cookie_values(headers, cookie).map(unquoted);
    let hint = best(values.map(|value| plan.affinity.read(name, value)));
    if hint != AffinityCookie::None {
        remove_cookie(headers, cookie);
    }
    hint
}

fn app_cookie(
    plan: &RuntimeConfig,
    cookie: &str,
    balancer: &Balancer,
    headers: &mut HeaderMap,
) -> AffinityCookie {
    let read = |sealed: &[u8]| plan.affinity.read(balancer.upstream().name(), sealed);
    let hint_of = |value: &[u8]| {
        split_at_last(value, SEPARATOR).map_or(AffinityCookie::None, |(_, sealed)| read(sealed))
    };
    let hint = best(cookie_values(headers, cookie).map(unquoted).map(hint_of));
    if hint != AffinityCookie::None {
        shorten_cookie(headers, cookie, |value| match split_at_last(value, SEPARATOR) {
            // A value sealed with a lost secret, for example by an earlier process, must be removed too.
            Some((own, sealed))
                if read(sealed) != AffinityCookie::Forged || Affinity::is_like_ours(sealed) =>
            {
                own
            }
            // Any other suffix belongs to the application's value.
            _ => value,
        });
    }
    hint
}

fn app_suffix(
    plan: &RuntimeConfig,
    cookie: &str,
    balancer: &Balancer,
    headers: &HeaderMap,
) -> AffinityCookie {
    let named = |value| {
        let (_, name) = split_at_last(value, SUFFIX)?;
        let instance = balancer.upstream().find_named(str::from_utf8(name).ok()?)?;
        Some((plan.affinity.key(value), instance))
    };
    match cookie_values(headers, cookie).map(unquoted).find_map(named) {
        Some((client, instance)) => {
            AffinityCookie::Tied(Binding { instance: instance.id, client, since: 0, seen: 0, old: false })
        }
        None => AffinityCookie::None,
    }
}

/// The first valid binding, otherwise the result for the last value.
fn best(hints: impl Iterator<Item = AffinityCookie>) -> AffinityCookie {
    let mut best = AffinityCookie::None;
    for hint in hints {
        best = hint;
        if matches!(hint, AffinityCookie::Tied(_)) {
            break;
        }
    }
    best
}

fn split_at_last(value: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let place = value.iter().rposition(|byte| *byte == separator)?;
    Some((value.get(..place)?, value.get(place + 1..)?))
}

/// Appends `sealed` to the value of each cookie called `name` that the response sets. An emptied cookie stays
/// empty.
fn append_to_cookies(headers: &mut HeaderMap, name: &str, sealed: &str) {
    let lines: Vec<HeaderValue> = headers.get_all(SET_COOKIE).into_iter().cloned().collect();
    if lines.iter().all(|line| appended(line, name, sealed).is_none()) {
        return;
    }
    headers.remove(SET_COOKIE);
    for line in lines {
        headers.append(SET_COOKIE, appended(&line, name, sealed).unwrap_or(line));
    }
}

/// Returns `None` when the line must stay unchanged. This includes a cookie that the appended part would make
/// too large for browsers.
fn appended(line: &HeaderValue, name: &str, sealed: &str) -> Option<HeaderValue> {
    let (own_name, value, attributes) = split_set_cookie(line.as_bytes())?;
    let inner = unquoted(value);
    if own_name != name.as_bytes() || inner.is_empty() {
        return None;
    }
    let quote = if inner.len() < value.len() { &b"\""[..] } else { b"" };
    let parts = [own_name, b"=", quote, inner, &[SEPARATOR], sealed.as_bytes(), quote, attributes];
    let size = parts.iter().map(|part| part.len()).sum::<usize>() - attributes.len() - b"=".len();
    if size > LARGEST_COOKIE {
        tracing::debug!(
            cookie = name,
            size,
            "the application's cookie has no room for the client's instance"
        );
        return None;
    }
    HeaderValue::from_bytes(&parts.concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_appendix(line: &str) -> Option<String> {
        let line = appended(&HeaderValue::from_str(line).unwrap(), "SID", "xyz")?;
        Some(line.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_instance_is_appended_to_the_value_alone() {
        for (line, expected) in [
            ("SID=abc; Path=/; HttpOnly", Some("SID=abc~xyz; Path=/; HttpOnly")),
            ("SID=abc", Some("SID=abc~xyz")),
            ("SID=\"abc\"; Path=/", Some("SID=\"abc~xyz\"; Path=/")),
            ("SID = abc ; Path=/", Some("SID=abc~xyz; Path=/")),
            ("SID=\"a b\"", Some("SID=\"a b~xyz\"")),
            ("SID=abc\"", Some("SID=abc\"~xyz")),
            ("SID=\"abc", Some("SID=\"abc~xyz")),
            ("SID=\"", Some("SID=\"~xyz")),
            ("SID=a~b=c; Secure", Some("SID=a~b=c~xyz; Secure")),
            ("SID=; Max-Age=0", None),
            ("SID=\"\"; Max-Age=0", None),
            ("SIDE=abc", None),
            ("sid=abc", None),
        ] {
            assert_eq!(with_appendix(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn other_cookies_of_the_answer_stay_as_they_are_and_in_order() {
        let mut headers = HeaderMap::new();
        for line in ["a=1", "SID=abc", "b=2"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        append_to_cookies(&mut headers, "SID", "xyz");
        assert_eq!(headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1", "SID=abc~xyz", "b=2"]);
    }
}
