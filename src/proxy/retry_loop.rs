//! The attempts of one request: sequential retries, and at most one hedged attempt in parallel.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, select};
use http::Request;
use tokio::time::{Instant, timeout, timeout_at};

use crate::balance::Pick;
use crate::body::RequestBody;
use crate::transport::SlotShare;
use crate::upstream::{Instance, Lease};

use super::attempt::{Attempt, AttemptResult};
use super::context::RequestContext;
use super::error::ProxyError;
use super::forward::UpstreamSelection;
use super::metrics::{RetryCounts, RetryReason};
use super::outlier_report;
use super::replayable::ReplayableRequest;
use super::retry_policy::{self, RetryState};

/// Drives one request through its attempts.
pub(super) struct RetryLoop<'a> {
    exchange: &'a mut RequestContext,
    to: &'a UpstreamSelection<'a>,
    /// `None` once an instance may have received the request.
    request: Option<Box<Request<RequestBody>>>,
    /// The replayable copy. Present only for a request that may be sent twice.
    duplicate: Option<Arc<ReplayableRequest<'a>>>,
    /// Remaining retries. `None` when the request must not or cannot be sent to a second instance.
    repeat: Option<RetryState<'a>>,
    /// Instances already tried. They are not selected again.
    tried: Vec<Arc<Instance>>,
}

/// An attempt was abandoned. Holds the lease for the next attempt, on another instance.
struct Abandoned(Lease);

impl<'a> RetryLoop<'a> {
    pub(super) fn new(
        exchange: &'a mut RequestContext,
        to: &'a UpstreamSelection<'a>,
        mut request: Box<Request<RequestBody>>,
    ) -> Self {
        let (upstream, relay) = (to.balancer.upstream(), to.relay.as_ref());
        let duplicate = ReplayableRequest::of_repeatable(&upstream.config.retry, &request, relay);
        let repeat = duplicate.as_ref().and_then(|_| RetryState::of(upstream, &request));
        if let Some(relay) = relay {
            relay.attach(&mut request);
        }
        RetryLoop { exchange, to, request: Some(request), duplicate, repeat, tried: Vec::new() }
    }

    /// Attempts instances until one returns a response that is not retried, or no retry or instance is left.
    /// Afterwards `exchange.lease` belongs to the instance that the response or the error came from.
    pub(super) async fn run(mut self) -> AttemptResult {
        let mut now = Instant::now();
        let upstream = self.to.balancer.upstream();
        if upstream.config.retry.attempts > 1 {
            upstream.group().budget().earn(upstream.config.retry.budget, now);
        }
        let mut next = self.choose(&mut now).await?;
        while let Some(lease) = next {
            let instance = self.enter(lease);
            let outcome = self.attempt(&instance, now).await;
            next = match outcome {
                Err(Abandoned(lease)) => Some(lease),
                Ok(Ok(answer)) => {
                    let reason = RetryReason::Status(answer.status().as_u16());
                    let Some(lease) = self.next_instance(&instance, reason) else { return Ok(answer) };
                    answer.into_body().discard();
                    Some(lease)
                }
                Ok(Err(error)) => Some(self.after_failure(error, &instance).await?),
            };
            now = Instant::now();
            self.request =
                self.request.take().or_else(|| self.duplicate.as_ref().map(|duplicate| duplicate.request()));
        }
        Err(ProxyError::NoInstance)
    }

    /// Runs one attempt, with hedging and the per-try timeout where another instance can still be tried.
    async fn attempt(&mut self, instance: &Arc<Instance>, now: Instant) -> Result<AttemptResult, Abandoned> {
        if self.has_deadline(instance) {
            // Optional feature. Boxing keeps its state out of every request's future.
            return Box::pin(self.attempt_with_deadline(instance, now)).await;
        }
        let claim = self.share_slot();
        let attempt = Attempt {
            service: &self.exchange.service,
            balancer: self.to.balancer,
            upload: self.exchange.upload.as_ref(),
            connections: self.to.connections,
            until_begun: self.repeat.is_some(),
            duplicate: self.duplicate.as_deref(),
            claim: claim.as_ref(),
        };
        Ok(attempt.run(instance, &mut self.request, now).await)
    }

    /// A share of the slot that the request's lease holds.
    fn share_slot(&mut self) -> Option<SlotShare> {
        self.exchange.lease.as_mut().and_then(Lease::share)
    }

    /// Whether the attempt on `instance` may be hedged or time out in favour of another instance.
    fn has_deadline(&self, instance: &Instance) -> bool {
        self.repeat.as_ref().is_some_and(|repeat| {
            let is_timed = repeat.policy.per_try_timeout.is_some() || repeat.hedge_after.is_some();
            is_timed && repeat.left > 0 && !self.to.is_tied_to(instance)
        })
    }

    /// Runs an attempt that is hedged, or abandoned for another instance, when it takes too long.
    async fn attempt_with_deadline(
        &mut self,
        instance: &Arc<Instance>,
        now: Instant,
    ) -> Result<AttemptResult, Abandoned> {
        let (service, duplicate, claim) =
            (self.exchange.service.clone(), self.duplicate.clone(), self.share_slot());
        let attempt = Attempt {
            service: &service,
            balancer: self.to.balancer,
            upload: None,
            connections: self.to.connections,
            until_begun: true,
            duplicate: duplicate.as_deref(),
            claim: claim.as_ref(),
        };
        let mut request = self.request.take();
        let outcome = {
            let mut first = pin!(attempt.run(instance, &mut request, now));
            if let Some(answered) = self.hedge(attempt, first.as_mut(), instance).await {
                Ok(answered)
            } else if let Some(outcome) = self.replace(first.as_mut(), instance, now).await {
                outcome
            } else {
                Ok(first.await)
            }
        };
        self.request = request;
        outcome
    }

    /// Returns the result of `first` if it completes within the hedging delay, otherwise the better result of
    /// it and a second attempt. Returns `None` when hedging is off or no second attempt is possible; `first`
    /// is then still pending.
    async fn hedge(
        &mut self,
        attempt: Attempt<'_>,
        mut first: Pin<&mut impl Future<Output = AttemptResult>>,
        instance: &Arc<Instance>,
    ) -> Option<AttemptResult> {
        let after = self.repeat.as_mut().and_then(|repeat| repeat.hedge_after.take())?;
        if let Ok(answered) = timeout(after, first.as_mut()).await {
            return Some(answered);
        }
        let lease = self.free(instance, |counts| counts.hedges += 1)?;
        Some(self.race(attempt, first, lease).await)
    }

    /// Runs a second attempt on the instance of `lease` in parallel. The losing attempt is dropped with its
    /// connection, and `exchange.lease` is the lease of the winner.
    async fn race(
        &mut self,
        attempt: Attempt<'_>,
        first: Pin<&mut impl Future<Output = AttemptResult>>,
        mut lease: Lease,
    ) -> AttemptResult {
        let other = lease.instance().clone();
        self.leave(&other);
        self.exchange.attempts += 1;
        let mut request = attempt.duplicate.map(ReplayableRequest::request);
        let claim = lease.share();
        let attempt = Attempt { claim: claim.as_ref(), ..attempt };
        let second = pin!(attempt.run(&other, &mut request, Instant::now()));
        let (answered, is_second) = prefer(first, second).await;
        if is_second {
            self.hold(lease);
        }
        answered
    }

    /// Applies the per-try timeout. Returns `None` when there is no timeout or no other instance is
    /// available; the caller then keeps waiting for `first`.
    async fn replace(
        &mut self,
        mut first: Pin<&mut impl Future<Output = AttemptResult>>,
        instance: &Arc<Instance>,
        now: Instant,
    ) -> Option<Result<AttemptResult, Abandoned>> {
        let limit = self.repeat.as_ref().and_then(|repeat| repeat.policy.per_try_timeout)?;
        if let Ok(answered) = timeout_at(now + limit, first.as_mut()).await {
            return Some(Ok(answered));
        }
        let lease = self.next_instance(instance, RetryReason::Timeout)?;
        outlier_report::abandoned(instance);
        Some(Err(Abandoned(lease)))
    }

    /// Returns the lease for the next attempt after a failure on `instance`, or the error when there is no
    /// retry. A request that was not sent goes to another instance without spending a retry, because no
    /// instance has received it.
    async fn after_failure(
        &mut self,
        error: ProxyError,
        instance: &Arc<Instance>,
    ) -> Result<Lease, ProxyError> {
        let (unsent, mut now) = (self.request.is_some(), Instant::now());
        let Some(reason) = retry_policy::reason(&error) else { return Err(error) };
        let may_go_on = unsent || (self.is_worth_it(reason, instance) && self.is_allowed(now));
        if !may_go_on {
            return Err(error);
        }
        self.leave(instance);
        match self.choose(&mut now).await? {
            Some(lease) => {
                self.count(|counts| *counts.reasons.entry(reason).or_default() += 1);
                Ok(lease)
            }
            None => {
                if unsent {
                    self.exchange.lease = None;
                }
                Err(error)
            }
        }
    }

    /// Takes a slot of another instance without waiting, if `reason` is retryable and the retry budget allows
    /// it. There is no queueing here: the result that `instance` gave or may still give is preferred to a
    /// wait.
    fn next_instance(&mut self, instance: &Arc<Instance>, reason: RetryReason) -> Option<Lease> {
        if !self.is_worth_it(reason, instance) {
            return None;
        }
        self.free(instance, |counts| *counts.reasons.entry(reason).or_default() += 1)
    }

    /// Takes a free slot of an instance that was not tried, if the budget allows, and counts the retry.
    fn free(&mut self, instance: &Arc<Instance>, count: impl FnOnce(&mut RetryCounts)) -> Option<Lease> {
        let now = Instant::now();
        if !self.is_allowed(now) {
            return None;
        }
        self.leave(instance);
        let Pick::Taken(lease) = self.to.select(&self.tried, now) else { return None };
        self.count(count);
        Some(lease)
    }

    /// Whether the retry policy covers `reason`.
    fn is_worth_it(&self, reason: RetryReason, instance: &Instance) -> bool {
        let tied = self.to.is_tied_to(instance);
        self.repeat.as_ref().is_some_and(|repeat| retry_policy::is_retryable(&repeat.policy.on, reason, tied))
    }

    /// Spends one retry from the attempt count and the budget. Call it exactly once per additional attempt.
    fn is_allowed(&mut self, now: Instant) -> bool {
        let Some(repeat) = self.repeat.as_mut().filter(|repeat| repeat.left > 0) else { return false };
        let budget = self.to.balancer.upstream().group().budget();
        let allowed = budget.spend(repeat.policy.budget, now);
        if allowed {
            repeat.left -= 1;
        } else {
            self.count(|counts| counts.exhausted += 1);
        }
        allowed
    }

    /// Takes a slot of an instance that was not tried, queueing if necessary. A wait updates `now`. Returns
    /// `None` when there is no such instance.
    async fn choose(&mut self, now: &mut Instant) -> Result<Option<Lease>, ProxyError> {
        match self.to.select(&self.tried, *now) {
            Pick::Taken(lease) => Ok(Some(lease)),
            Pick::Full(wish) => {
                let lease = Box::pin(self.to.wait_for_slot(self.exchange, wish, &self.tried)).await?;
                *now = Instant::now();
                Ok(lease)
            }
            Pick::None => Ok(None),
        }
    }

    /// Starts an attempt with `lease`.
    fn enter(&mut self, lease: Lease) -> Arc<Instance> {
        let instance = lease.instance().clone();
        self.exchange.attempts += 1;
        self.hold(lease);
        instance
    }

    /// Makes `lease` the lease of the request. This releases the previous one.
    fn hold(&mut self, lease: Lease) {
        self.exchange.affinity = self.to.tie.map(|tie| tie.outcome(lease.instance().id));
        self.exchange.lease = Some(lease);
    }

    /// Excludes `instance` from the following selections.
    fn leave(&mut self, instance: &Arc<Instance>) {
        if !self.tried.iter().any(|other| Arc::ptr_eq(other, instance)) {
            self.tried.push(instance.clone());
        }
    }

    fn count(&self, count: impl FnOnce(&mut RetryCounts)) {
        let upstream = self.to.balancer.upstream().name();
        self.exchange.service.worker().counts.update(|counts| count(counts.retries(upstream)));
    }
}

/// Returns the first good result of two attempts and whether it is the second's. When neither is good, a
/// response is preferred to an error, and the first attempt to the second.
async fn prefer(
    first: Pin<&mut impl Future<Output = AttemptResult>>,
    second: Pin<&mut impl Future<Output = AttemptResult>>,
) -> (AttemptResult, bool) {
    let (first, second) = match select(first, second).await {
        Either::Left((first, _)) if is_good(&first) => return (first, false),
        Either::Right((second, _)) if is_good(&second) => return (second, true),
        Either::Left((first, second)) => (first, second.await),
        Either::Right((second, first)) => (first.await, second),
    };
    match !is_good(&first) && (is_good(&second) || (first.is_err() && second.is_ok())) {
        true => (second, true),
        false => (first, false),
    }
}

/// Whether the result is a response with a status below 500.
fn is_good(answered: &AttemptResult) -> bool {
    answered.as_ref().is_ok_and(|answer| !answer.status().is_server_error())
}
