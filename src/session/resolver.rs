//! Looks up the session of a request: from the request's headers to a [`Resolution`].

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::config::{self, OnOutage, Renewal};

use super::cache::{Absence, Found, Known, LookupOwner, SessionCache, Timestamp, TombstoneReason, checks};
use super::renewal::{expires, renewed_ttl};
use super::store::{Lookup, Record, Ttl, UserIndex};
use super::user_index_queue::{UserIndexEntry, user_in};
use super::{
    AbsentReason, IdReader, IdentityMapper, Ids, Resolution, Session, SessionId, SharedState, Store,
    StoreError, Unreadable,
};

/// Maximum number of store reads in one look-up. A read is repeated when the session changes during it.
const ATTEMPTS: usize = 3;

/// Resolves sessions for one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ids: IdReader,
    store: Store,
    cache: Option<Arc<SessionCache>>,
    shared: Arc<SharedState>,
    idle_timeout: Option<Duration>,
    absolute_timeout: Duration,
    renewal: Renewal,
    /// JSON Pointer to the user in a session.
    user: String,
    identity: Arc<dyn IdentityMapper>,
    /// Rule set id of `identity`. Cached headers made under another rule set are not used, because their
    /// values would be sent under the wrong header names.
    mark: u64,
}

/// A resolution and its source.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub outcome: Resolution,
    pub source: Source,
}

/// The source of a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The request alone.
    Request,
    Cache,
    /// The store, with the time it took to respond or to fail.
    Store(Duration),
    /// The cache, because the store failed with this error after this time.
    Stale(StoreError, Duration),
}

impl Resolver {
    /// Creates a resolver. Results are cached in `cache`, if given. `identity` makes the identity headers of
    /// each session.
    pub fn new(
        config: &config::Session,
        store: Store,
        cache: Option<Arc<SessionCache>>,
        shared: Arc<SharedState>,
        identity: Arc<dyn IdentityMapper>,
    ) -> Self {
        Resolver(Arc::new(Inner {
            ids: IdReader::new(config),
            store,
            cache,
            shared,
            idle_timeout: config.idle_timeout,
            absolute_timeout: config.absolute_timeout,
            renewal: config.renewal,
            user: config.user.clone(),
            mark: identity.ruleset_id(),
            identity,
        }))
    }

    /// Resolves the session of the request with these headers. `on_outage` decides whether a cached session
    /// may be used when the store fails.
    ///
    /// Completes within the store's timeouts: a few times its `response_timeout` plus `wait_timeout`, since a
    /// look-up may read again when the session changes, and a synchronous renewal is one more call. Cancel
    /// safe: dropping the future does not disturb other requests that wait for the same session.
    ///
    /// A use of the session renews its TTL, at most once per tenth of the idle timeout. A failed renewal does
    /// not change the outcome.
    pub async fn resolve(&self, headers: &HeaderMap, on_outage: OnOutage) -> Resolved {
        match self.0.ids.read(headers) {
            Ok(Ids { first, others }) if others.is_empty() => self.resolve_one(first, on_outage).await,
            // Boxed because it is rare: its state would otherwise enlarge the future of every request.
            Ok(ids) => Box::pin(self.resolve_several(&ids, on_outage)).await,
            Err(reason) => {
                if reason == AbsentReason::BadId && self.0.shared.warnings.is_due(reason.as_str()) {
                    self.0.shared.warnings.bad_id(self.0.ids.value(headers).unwrap_or_default());
                }
                Resolved { outcome: Resolution::Absent(reason), source: Source::Request }
            }
        }
    }

    /// Resolves several ids in one request, as a browser sends them that holds an old cookie of a parent path
    /// or domain. Returns the first live session. Live sessions of two users give
    /// [`AbsentReason::Ambiguous`], because an application might pick the other one.
    async fn resolve_several(&self, ids: &Ids<'_>, on_outage: OnOutage) -> Resolved {
        let mut chosen = self.resolve_one(ids.first, on_outage).await;
        for id in &ids.others {
            if matches!(chosen.outcome, Resolution::Unavailable(_)) {
                break;
            }
            let other = self.resolve_one(id, on_outage).await;
            match (&chosen.outcome, &other.outcome) {
                (Resolution::Active(one), Resolution::Active(other)) if are_of_two(one, other) => {
                    return Resolved {
                        outcome: Resolution::Absent(AbsentReason::Ambiguous),
                        source: chosen.source,
                    };
                }
                (one, other_outcome) if weight(other_outcome) > weight(one) => chosen = other,
                _ => {}
            }
        }
        chosen
    }

    async fn resolve_one(&self, id: &str, on_outage: OnOutage) -> Resolved {
        if let Some(cache) = &self.0.cache {
            let now = cache.freshness.now();
            if let Some(known) = cache.get(id, now).filter(|known| known.suits(self.0.mark)) {
                return self.0.cached(cache, id, known, now).await;
            }
        }
        // Boxed: a cache miss would otherwise enlarge the future of every request.
        Box::pin(self.look_up(SessionId::new(id), on_outage)).await
    }

    async fn look_up(&self, id: SessionId, on_outage: OnOutage) -> Resolved {
        let asked = Instant::now();
        let found = match &self.0.cache {
            Some(cache) => self.join(cache, &id).await,
            None => self.0.read(&id, None).await,
        };
        let took = asked.elapsed();
        let error = match found {
            Ok(known) => {
                if let (Known::Active(session), Some(cache)) = (&known, &self.0.cache) {
                    self.0.use_now(cache, session, cache.freshness.now(), self.0.renewal).await;
                }
                return Resolved { outcome: resolution(known, || id), source: Source::Store(took) };
            }
            Err(error) => error,
        };
        if let (OnOutage::Stale(bound), Some(cache)) = (on_outage, &self.0.cache)
            && let now = cache.freshness.now()
            && let Some(session) = cache.last_known(id.expose(), now, bound)
            && session.described_by == self.0.mark
        {
            // Queued until the store is back, so that an outage ends no session that is in use.
            self.0.use_now(cache, &session, now, Renewal::Async).await;
            return Resolved { outcome: Resolution::Active(session), source: Source::Stale(error, took) };
        }
        Resolved { outcome: Resolution::Unavailable(error), source: Source::Store(took) }
    }

    /// Joins the look-up in flight, or starts one. It runs in its own task, so that it continues for the
    /// other requests when this one is cancelled.
    async fn join(&self, cache: &Arc<SessionCache>, id: &SessionId) -> Found {
        // The task runs on the worker that started it. When that worker stops, the look-up ends without a
        // result and is started once more here.
        for _ in 0..2 {
            let (flight, leader) = cache.join(id);
            if let Some(leader) = leader {
                let inner = Arc::clone(&self.0);
                tokio::spawn(async move { inner.run_lookup(leader).await });
            }
            match flight.outcome().await {
                Some(Ok(known)) if !known.suits(self.0.mark) => {
                    return self.0.read(id, Some(cache.freshness.now())).await;
                }
                Some(found) => return found,
                None => {}
            }
        }
        Err(StoreError::Disconnected)
    }
}

impl Inner {
    async fn run_lookup(&self, leader: LookupOwner) {
        for attempt in 1..=ATTEMPTS {
            let reading = leader.depart();
            let found = self.read(&leader.id, Some(reading.at)).await;
            if leader.land(found, reading, attempt == ATTEMPTS) {
                return;
            }
        }
    }

    /// Converts a cache hit into a resolution, and triggers the renewal and the consistency check that are
    /// due.
    async fn cached(
        self: &Arc<Self>,
        cache: &Arc<SessionCache>,
        id: &str,
        known: Known,
        now: Timestamp,
    ) -> Resolved {
        if let Known::Active(session) = &known {
            self.use_now(cache, session, now, self.renewal).await;
            if session.claim_check(now) && cache.checks.claim(now) {
                let (inner, cache, session) = (Arc::clone(self), Arc::clone(cache), Arc::clone(session));
                tokio::spawn(async move { inner.check(&cache, &session).await });
            }
        }
        Resolved { outcome: resolution(known, || SessionId::new(id)), source: Source::Cache }
    }

    /// Records a use of the session and renews its TTL if that is due: queued with [`Renewal::Async`], before
    /// the resolution completes with [`Renewal::Sync`].
    async fn use_now(&self, cache: &SessionCache, session: &Arc<Session>, now: Timestamp, renewal: Renewal) {
        let Some(idle) = self.idle_timeout else { return };
        if !session.claim_renewal(now, idle) {
            return;
        }
        match renewal {
            Renewal::Async => cache.renewals.push(session, now),
            Renewal::Sync => {
                let until = session.end_if_used(now, idle);
                // Boxed because it is rare: its state would otherwise enlarge the future of every resolution.
                if Box::pin(self.renew(session.id(), until.since(now))).await {
                    session.renewed(until);
                }
            }
        }
    }

    /// Consistency check: compares `session` with the store. A change is reported within one lease. If the
    /// values differ and the session is still cached and valid after that time, the change was not reported.
    async fn check(&self, cache: &SessionCache, session: &Arc<Session>) {
        let now = cache.freshness.now();
        let is_same = match self.read(session.id(), Some(now)).await {
            Ok(Known::Active(read)) => session.says_the_same(&read, now),
            // The session may have expired just now.
            Ok(Known::Absent(_)) => !session.is_live(cache.freshness.now()),
            Ok(Known::Unreadable(_)) => false,
            Err(_) => return,
        };
        if !is_same {
            sleep(cache.lease()).await;
        }
        let is_mismatch = !is_same && cache.is_kept(session, cache.freshness.now());
        cache.checks.count(is_mismatch);
        if is_mismatch {
            tracing::error!("a session in the cache was not what the store has, and no change was reported");
            cache.invalidate(session.id().expose());
        }
    }

    async fn renew(&self, id: &SessionId, ttl: Duration) -> bool {
        let renewed = self.store.renew(id, ttl).await;
        if let Err(error) = &renewed {
            tracing::debug!(reason = error.kind(), "a session's TTL could not be renewed");
        }
        renewed.is_ok()
    }

    /// Reads a session from the store. `at` is the start of the read on the cache's clock. Without it there
    /// is no cache, and the TTL is renewed here.
    async fn read(&self, id: &SessionId, at: Option<Timestamp>) -> Found {
        let with_ttl = at.is_some() || self.idle_timeout.is_some();
        let record = match self.store.load(id, with_ttl).await? {
            Lookup::Found(record) => record,
            Lookup::Absent(death) => return Ok(Known::Absent(self.absence(id, death))),
            Lookup::Unreadable(why) => return Ok(self.unreadable(id, why).await),
        };
        self.shared.warnings.looked_up(true);
        let (end, user) = match (expires(&record.contents), user_in(&record.contents, &self.user)) {
            (Ok(end), Ok(user)) => (end, user.map(Cow::into_owned)),
            (Err(why), _) | (_, Err(why)) => return Ok(self.unreadable(id, why).await),
        };
        let left = match end {
            // Uses the store's clock, which all vestibules and applications share; the local one only if the
            // store does not return its time.
            Some(end) => match end.checked_sub(record.read.at.unwrap_or_else(clock::unix_time)) {
                Some(left) => Some(left),
                None => return Ok(Known::Absent(Absence::Ended)),
            },
            None => None,
        };
        if let Some(user) = &user
            && self.note(user, id, &record).await? == UserIndex::Revoked
        {
            self.end_revoked(user, id).await;
            return Ok(Known::Absent(Absence::Ended));
        }
        self.shared.seen.insert(id);
        if let (None, Some(idle)) = (at, self.idle_timeout)
            && let Some(ttl) = renewed_ttl(record.ttl, idle, left)
        {
            self.renew(id, ttl).await;
        }
        Ok(Known::Active(Arc::new(self.session(id, user, record, left, at))))
    }

    /// Why the store has no session for `id`.
    fn absence(&self, id: &SessionId, death: Option<TombstoneReason>) -> Absence {
        self.shared.warnings.looked_up(death.is_some());
        match death {
            Some(death) => death.into(),
            None if self.shared.seen.contains(id) => Absence::Ended,
            None => Absence::Unknown,
        }
    }

    async fn unreadable(&self, id: &SessionId, why: Unreadable) -> Known {
        let warnings = &self.shared.warnings;
        warnings.looked_up(true);
        if warnings.is_due(why.kind()) {
            let inspection = match why {
                Unreadable::WrongType => self.store.inspect(id).await,
                _ => None,
            };
            warnings.unreadable(why, inspection.as_ref());
        }
        Known::Unreadable(why)
    }

    /// Adds the session to the store's index of `user`'s sessions, so that revoking the user finds it. This
    /// must happen before the session is first used. Returns [`UserIndex::Revoked`] if all sessions of the
    /// user were revoked after this one was read.
    async fn note(&self, user: &str, id: &SessionId, record: &Record) -> Result<UserIndex, StoreError> {
        match self.store.note_user(user, id, self.absolute_timeout, Some(&record.read)).await {
            // A store that refuses writes must not end the session. The index entry is queued until the store
            // accepts writes.
            Err(error) if error.is_refusal() => {
                tracing::debug!(reason = error.kind(), "a session could not be noted as a user's");
                if let Some(cache) = &self.cache {
                    let (id, user, read) = (id.clone(), user.to_owned(), record.read.clone());
                    cache.sightings.push(UserIndexEntry { id, user, read });
                }
                Ok(UserIndex::Noted)
            }
            noted => noted,
        }
    }

    /// Ends a session that was read before all sessions of `user` were revoked and indexed after that. Reads
    /// it again first and keeps it if it belongs to another user by now. A revocation still in progress ends
    /// such sessions too.
    async fn end_revoked(&self, user: &str, id: &SessionId) {
        let now_of = match self.store.load(id, false).await {
            Ok(lookup) => lookup
                .found()
                .and_then(|record| user_in(&record.contents, &self.user).ok().flatten().map(Cow::into_owned)),
            Err(_) => return,
        };
        if now_of.as_deref() == Some(user)
            && let Ok(burial) =
                self.store.write_tombstone(id, TombstoneReason::Revoked, self.absolute_timeout).await
            && let Some(cache) = &self.cache
        {
            cache.bury(id, TombstoneReason::Revoked, burial.life);
        }
    }

    fn session(
        &self,
        id: &SessionId,
        user: Option<String>,
        record: Record,
        left: Option<Duration>,
        at: Option<Timestamp>,
    ) -> Session {
        let ends_at = at.zip(left).map_or(Timestamp::NEVER, |(at, left)| at.after(left));
        let (kept_until, renew_at) = match (at, record.ttl, self.idle_timeout) {
            (Some(at), Ttl::Left(ttl), Some(idle)) => {
                let spent = ttl.saturating_sub(idle / 10 * 9);
                (at.after(ttl), at.after(spent))
            }
            (Some(at), Ttl::Left(ttl), None) => (at.after(ttl), Timestamp::NEVER),
            _ => (Timestamp::NEVER, Timestamp::NEVER),
        };
        Session {
            id: id.clone(),
            user: user.map(String::into_boxed_str),
            description: self.identity.headers(&record.contents),
            described_by: self.mark,
            ends_at,
            kept_until: AtomicU64::new(kept_until.as_micros()),
            renew_at: AtomicU64::new(renew_at.as_micros()),
            check_at: AtomicU64::new(at.map_or(Timestamp::NEVER, |at| at.after(checks::PERIOD)).as_micros()),
        }
    }
}

fn resolution(known: Known, id: impl FnOnce() -> SessionId) -> Resolution {
    match known {
        Known::Active(session) => Resolution::Active(session),
        Known::Absent(Absence::Replaced) => Resolution::Absent(AbsentReason::Replaced),
        Known::Absent(Absence::Ended) => Resolution::Ended(id()),
        Known::Absent(Absence::Unknown) => Resolution::Unknown(id()),
        Known::Unreadable(why) => Resolution::Unreadable(id(), why),
    }
}

/// Rank of an outcome when a request has several ids: the highest rank is used, among equal ones the first.
fn weight(outcome: &Resolution) -> u8 {
    match outcome {
        // The lowest rank, so that the cookie is cleared only if the sessions of all ids have ended.
        Resolution::Ended(_) => 0,
        Resolution::Unknown(_) => 1,
        Resolution::Absent(_) => 2,
        Resolution::Unreadable(..) => 3,
        Resolution::Active(_) => 4,
        Resolution::Unavailable(_) => 5,
    }
}

fn are_of_two(one: &Session, other: &Session) -> bool {
    matches!((one.user(), other.user()), (Some(one), Some(other)) if one != other)
}
