//! One server of an upstream: identity, standing, requests under way.

use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::deadline::{Deadline, Orders};
use super::group::Group;
use super::pinned::Pinned;
use super::proof::{Doubt, Proof};
use super::record::{Outcome, Record};
use super::seats::Seats;
use super::standing::{Cause, CheckResult, Ejection, Health, Judgement, Standing};
use super::streams::Streams;
use crate::backoff::Backoff;
use crate::clock::unix_seconds;
use crate::config::{self, InstanceState};

/// Names an instance by its address, the same in every process and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

impl InstanceId {
    pub fn of(address: SocketAddr) -> Self {
        let hash = digest(&SHA256, address.to_string().as_bytes());
        InstanceId(hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

/// What is known of an instance's ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No checks are configured, or none has ended since it was let back in for want of others.
    Unchecked,
    /// Checks succeed.
    Up,
    /// Checks fail.
    Down,
    /// Requests failed, so it is left alone for a while.
    Ejected,
    /// Nothing of that, but connecting failed; it is left alone for a moment.
    BackingOff,
    /// Nothing of that, but no check has found it good since it was away, or since we began.
    Unproven,
    /// It is treated as dead, for a rehearsal.
    Fenced,
}

impl Condition {
    /// The word used in the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Unchecked => "unchecked",
            Condition::Up => "up",
            Condition::Down => "down",
            Condition::Ejected => "ejected",
            Condition::BackingOff => "backing_off",
            Condition::Unproven => "unproven",
            Condition::Fenced => "fenced",
        }
    }

    pub fn is_able(self) -> bool {
        matches!(self, Condition::Unchecked | Condition::Up)
    }
}

const READY: u8 = 0;
const DRAIN: u8 = 1;
const TAKEN_OUT: u8 = 2;

/// Pause after a failed connect: doubles from the first to the last.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// Least share of its requests that an instance gets while it starts slowly.
const LEAST_SHARE: f32 = 0.1;

/// One server. Shared by all workers and by all configurations it is a member in; every field a request reads is
/// an atomic.
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub address: SocketAddr,
    /// `address` as text, for logs and metrics.
    pub label: String,
    pub(super) group: Arc<Group>,
    /// Written by whoever performs the operator's wishes only; these three.
    weight: AtomicU32,
    slots: AtomicUsize,
    state: AtomicU8,
    orders: Mutex<Orders>,
    judgement: Judgement,
    proof: Proof,
    record: Record,
    /// Nothing goes there, whatever else is known of it. Written by whoever performs the operator's wishes only.
    fenced: AtomicBool,
    /// Whether it is among those that new requests go to. Written by the balancer only.
    open: AtomicBool,
    /// Its place in the group's tournament. Written by the balancer only.
    place: AtomicU32,
    in_flight: AtomicUsize,
    /// Where other upstreams have an instance with this address.
    seats: ArcSwapOption<Seats>,
    requests: AtomicU64,
    streams: Streams,
    pinned: Pinned,
    connect_failures: AtomicU32,
    /// Nobody listened at its address when it was last tried.
    refused: AtomicBool,
    /// Unix seconds.
    restarted: AtomicU64,
    /// Milliseconds after `born` before which no request should connect; 0 = no pause.
    retry_at: AtomicU64,
    /// Milliseconds after `born` when it came back, and how long it starts slowly from then; 0 = not at all.
    back_at: AtomicU64,
    slow_start: AtomicU64,
    /// Unix seconds. Written with `state`.
    joined: AtomicU64,
    born: Instant,
}

impl Instance {
    /// `joined`: see [`Instance::joined`].
    pub(super) fn new(config: &config::Instance, group: &Arc<Group>, joined: u64) -> Self {
        let born = Instant::now();
        let instance = Instance {
            id: InstanceId::of(config.address),
            address: config.address,
            label: config.address.to_string(),
            group: group.clone(),
            weight: AtomicU32::new(config.weight),
            slots: AtomicUsize::new(usize::MAX),
            state: AtomicU8::new(READY),
            orders: Mutex::new(Orders { since: born, deadline: None }),
            judgement: Judgement::default(),
            proof: Proof::default(),
            record: Record::default(),
            fenced: AtomicBool::new(false),
            open: AtomicBool::new(false),
            place: AtomicU32::new(u32::MAX),
            in_flight: AtomicUsize::new(0),
            seats: ArcSwapOption::empty(),
            requests: AtomicU64::new(0),
            streams: Streams::default(),
            pinned: Pinned::new(born),
            connect_failures: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            restarted: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            back_at: AtomicU64::new(0),
            slow_start: AtomicU64::new(0),
            joined: AtomicU64::new(joined),
            born,
        };
        instance.set_slots(config.max_requests);
        instance.set_state(config.state);
        instance
    }

    /// What checks, requests and connects tell; the operator's wish is [`Instance::state`].
    pub fn condition(&self, now: Instant) -> Condition {
        match self.health() {
            _ if self.is_fenced() => Condition::Fenced,
            Health::Down => Condition::Down,
            Health::Ejected => Condition::Ejected,
            _ if self.is_backing_off(now) => Condition::BackingOff,
            _ if self.doubts().is_some() => Condition::Unproven,
            Health::Up => Condition::Up,
            Health::Unchecked => Condition::Unchecked,
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.health().is_able()
    }

    pub fn health(&self) -> Health {
        self.judgement.health()
    }

    /// Its health with the reason, and what led to it. Takes a lock: not for requests.
    pub fn standing(&self) -> Standing {
        self.judgement.standing()
    }

    /// Why it needs a good check before new requests go there; `None` without checks, and after a good one.
    pub fn doubts(&self) -> Option<Doubt> {
        self.proof.doubts()
    }

    /// Whether new requests may go there by what is known of it, if the operator wants that.
    pub fn is_fit(&self) -> bool {
        self.is_healthy() && !self.is_fenced()
    }

    /// Where there are checks, a good one that begins from now on is needed before new requests go there. The balancer
    /// must be told.
    pub fn doubt(&self, why: Doubt) {
        self.proof.doubt(why);
    }

    /// A check has found it good; only the warden calls this. True when that was in doubt, which the balancer must be
    /// told.
    pub fn prove(&self) -> bool {
        self.proof.prove()
    }

    /// Completes when a check is wanted, for the one who makes them. Cancel-safe.
    pub async fn doubted(&self) {
        self.proof.doubted().await;
    }

    pub(super) fn set_checked(&self, checked: bool, at_first: Doubt) {
        self.proof.set_checked(checked, at_first);
    }

    /// Whether connecting failed so recently that it is not tried again yet.
    pub fn is_backing_off(&self, now: Instant) -> bool {
        let retry_at = self.retry_at.load(Relaxed);
        retry_at != 0 && self.millis(now) < retry_at
    }

    /// The verdict of the upstream's warden, which alone calls this, and why. True when it begins or ceases to be fit
    /// to serve, which the balancer must be told.
    pub fn judge(&self, health: Health, reason: &str) -> bool {
        let now = Instant::now();
        let before = self.judgement.judge(health, reason, now);
        if health.is_able() && !before.is_able() {
            self.record.forget();
            self.connected();
            self.back_at.store(self.millis(now).max(1), Relaxed);
        }
        before.is_able() != health.is_able()
    }

    /// Leaves it alone for what requests met there; only the warden calls this, and only when it is fit to serve. The
    /// balancer must be told.
    pub fn eject(&self, ejection: Ejection, cause: Cause, reason: &str) {
        self.judgement.eject(ejection, cause, reason, Instant::now());
    }

    /// Counts a check; only the warden calls this.
    pub fn count_check(&self, result: CheckResult) {
        self.judgement.count(result);
    }

    /// Takes note of what a request met here.
    pub fn note(&self, outcome: Outcome) {
        if self.record.add(outcome) {
            self.group.alarm().notify_one();
        }
    }

    /// What requests met here.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What the operator wants.
    pub fn state(&self) -> InstanceState {
        match self.state.load(Relaxed) {
            READY => InstanceState::Ready,
            DRAIN => InstanceState::Drain,
            _ => InstanceState::Down,
        }
    }

    /// When it began to take sessions while others did so already, or did so again by the operator's wish (Unix
    /// seconds); 0: it was there from the beginning.
    pub fn joined(&self) -> u64 {
        self.joined.load(Relaxed)
    }

    /// Since when.
    pub fn state_since(&self) -> Instant {
        self.orders().since
    }

    /// When it goes down for good, if that is decided.
    pub fn deadline(&self) -> Option<Deadline> {
        self.orders().deadline
    }

    /// Only notes the deadline; whoever sets it sees to it.
    pub fn set_deadline(&self, deadline: Option<Deadline>) {
        self.orders().deadline = deadline;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back a deadline, too. The balancer must be told.
    pub fn set_state(&self, state: InstanceState) {
        if state == InstanceState::Ready && self.state() != InstanceState::Ready {
            self.joined.store(unix_seconds(), Relaxed);
            self.doubt(Doubt::Away);
        }
        let state = match state {
            InstanceState::Ready => READY,
            InstanceState::Drain => DRAIN,
            InstanceState::Down => TAKEN_OUT,
        };
        let mut orders = self.orders();
        orders.deadline = None;
        if self.state.swap(state, Relaxed) != state {
            orders.since = Instant::now();
        }
        drop(orders);
        if state != TAKEN_OUT {
            self.streams.reopen();
        }
    }

    /// Whether it serves those who are tied to it. Doubt does not move them, unless what it kept of them is gone.
    pub fn keeps_ties(&self) -> bool {
        let is_in = self.state.load(Relaxed) != TAKEN_OUT;
        self.is_open() || (is_in && self.is_fit() && self.doubts() != Some(Doubt::Gone))
    }

    /// Whether it takes requests that a hash leads to it. As long as nothing else is known they are not led elsewhere,
    /// as that may be a tie.
    pub fn takes_led(&self) -> bool {
        self.is_open() || (self.doubts() == Some(Doubt::Unknown) && self.is_in_use() && self.is_fit())
    }

    /// Whether it is treated as if it were dead, for a rehearsal.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Relaxed)
    }

    /// The balancer must be told. Answers that were cut meanwhile stay so; later ones go on again.
    pub fn set_fenced(&self, fenced: bool) {
        self.fenced.store(fenced, Relaxed);
        if !fenced && self.state.load(Relaxed) != TAKEN_OUT {
            self.streams.reopen();
        }
    }

    /// Whether it would get new requests if it is fit to serve.
    pub fn is_in_use(&self) -> bool {
        self.state() == InstanceState::Ready && self.weight() > 0
    }

    /// Its share of requests, 0 to 1000; 0 is as good as [`InstanceState::Drain`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// The balancer must be told.
    pub fn set_weight(&self, weight: u32) {
        if self.weight.swap(weight, Relaxed) == 0 && weight > 0 {
            self.doubt(Doubt::Away);
        }
    }

    /// Most requests at a time.
    pub fn slots(&self) -> Option<usize> {
        Some(self.slots.load(Relaxed)).filter(|slots| *slots != usize::MAX)
    }

    pub(super) fn set_slots(&self, slots: Option<usize>) {
        self.slots.store(slots.unwrap_or(usize::MAX), Relaxed);
    }

    pub(super) fn set_slow_start(&self, slow_start: Option<Duration>) {
        let millis = slow_start.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.slow_start.store(millis, Relaxed);
    }

    /// Whether new requests go to it.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Only the balancer calls this.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// The share of its usual requests that it should get now, up to 1: less while it starts slowly.
    pub fn share(&self, now: Instant) -> f32 {
        let (back_at, slow_start) = (self.back_at.load(Relaxed), self.slow_start.load(Relaxed));
        if back_at == 0 || slow_start == 0 {
            return 1.0;
        }
        let since = self.millis(now).saturating_sub(back_at);
        if since >= slow_start {
            self.back_at.store(0, Relaxed);
            return 1.0;
        }
        (since as f32 / slow_start as f32).max(LEAST_SHARE)
    }

    /// A connection was made: the instance is there.
    pub fn connected(&self) {
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
            self.retry_at.store(0, Relaxed);
        }
        if self.refused.load(Relaxed) && self.refused.swap(false, Relaxed) {
            self.restarted.store(unix_seconds(), Relaxed);
        }
    }

    /// Nobody listens at its address: whatever it kept in memory is gone.
    pub fn connect_refused(&self) {
        self.refused.store(true, Relaxed);
    }

    /// When it was first met again after nobody had listened at its address (Unix seconds); 0: that was never seen.
    pub fn restarted(&self) -> u64 {
        self.restarted.load(Relaxed)
    }

    /// Whether the last attempt to connect to it failed.
    pub fn is_unreachable(&self) -> bool {
        self.connect_failures.load(Relaxed) != 0
    }

    /// A connection could not be made: new requests leave the instance alone for a while, longer each time.
    /// Of many that fail together, one counts. True when the balancer must be told.
    pub fn connect_failed(&self, now: Instant, is_refused: bool) -> bool {
        if self.is_backing_off(now) {
            return false;
        }
        let why = if is_refused { Doubt::Gone } else { Doubt::Away };
        let is_news = self.doubts().is_none_or(|doubt| doubt < why);
        if is_news {
            self.doubt(why);
        }
        let failures = self.connect_failures.fetch_add(1, Relaxed);
        let pause = u64::try_from(CONNECT_BACKOFF.delay(failures).as_millis()).unwrap_or(u64::MAX);
        self.retry_at.store(self.millis(now).saturating_add(pause.max(1)), Relaxed);
        is_news && self.doubts().is_some()
    }

    /// Most connections to its address; more than [`Instance::slots`] where other upstreams have more.
    pub fn connections(&self) -> Option<usize> {
        let own = self.slots()?;
        let seats = self.seats.load();
        Some(seats.as_ref().and_then(|seats| seats.limit()).map_or(own, |all| all.max(own)))
    }

    /// True when that is a change.
    pub(super) fn set_seats(&self, seats: Option<Arc<Seats>>) -> bool {
        let before = self.seats.load();
        let is_same = match (&*before, &seats) {
            (Some(before), Some(after)) => before.is_of(after),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.seats.store(seats);
        }
        !is_same
    }

    /// Hands its free slots, and what they make room for in other upstreams, to those who wait for them.
    pub(super) fn offer(self: &Arc<Self>) {
        match &*self.seats.load() {
            None => self.group.queue().serve(self),
            Some(seats) => seats.serve(),
        }
    }

    /// Requests under way, streams, upgraded connections and those that were given up but are worked on included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Requests ever given to this instance.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Of these, the streams at `now`: tunnels, event streams, and answers that are under way for
    /// [`STREAM_AFTER`](super::STREAM_AFTER).
    pub fn streams(&self, now: Instant) -> usize {
        self.streams.count(now)
    }

    /// Cuts the answers and tunnels that are under way; returns how many. Those that begin later are cut as well,
    /// until [`Instance::set_state`] says something else than [`InstanceState::Down`]. A client sees a cut answer as
    /// cut, never as complete.
    pub fn close_streams(&self) -> usize {
        self.streams.close()
    }

    /// Answers and tunnels that were ever cut by [`Instance::close_streams`].
    pub fn closed_streams(&self) -> u64 {
        self.streams.closed()
    }

    /// The clients that are tied to it.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    pub(super) fn streams_book(&self) -> &Streams {
        &self.streams
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Relaxed) as usize
    }

    pub(super) fn set_place(&self, place: u32) {
        self.place.store(place, Relaxed);
    }

    /// Takes a slot for what counts as a request; false when all are taken.
    pub(super) fn enter_as_request(&self) -> bool {
        let entered = self.enter();
        self.requests.fetch_add(u64::from(entered), Relaxed);
        entered
    }

    /// Gives a slot back.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, SeqCst);
    }

    /// Takes a slot; false when all are taken.
    pub(super) fn enter(&self) -> bool {
        let slots = self.slots.load(Relaxed);
        if slots == usize::MAX {
            self.in_flight.fetch_add(1, SeqCst);
            return true;
        }
        if let Some(seats) = &*self.seats.load() {
            return seats.enter(&self.in_flight, slots);
        }
        let next = |taken| (taken < slots).then_some(taken + 1);
        self.in_flight.fetch_update(SeqCst, SeqCst, next).is_ok()
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Instance {
    /// An instance of its own, for tests of others too.
    pub(crate) fn with_slots(max_requests: Option<usize>) -> Arc<Instance> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5001));
        let config = config::Instance { max_requests, ..config::Instance::at(address) };
        Arc::new(Instance::new(&config, &Arc::default(), 0))
    }

    /// Stands for the warden.
    pub(crate) fn set_healthy(&self, healthy: bool) -> bool {
        self.judge(if healthy { Health::Up } else { Health::Down }, "")
    }
}

#[cfg(test)]
mod tests;
