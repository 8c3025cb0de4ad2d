//! The queue of requests that wait for a slot, over all workers.
//!
//! A freed slot goes to the first waiting request that can use the instance, before any new request can take
//! it. Requests of the worker on which the slot became free go first, because that worker's connection pool
//! has the idle connection. A request is overtaken in this way at most [`MAX_BYPASS`] times. The lock of the
//! queue is taken only while requests wait, and is never held across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use tokio::sync::oneshot;

use super::instance::{Instance, InstanceId};
use super::lease::Lease;
use super::shared::UpstreamShared;

/// Arrival counter of all queues, so that waiting times are comparable across upstreams.
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

/// Upper limit of how many later requests can be served before an earlier one.
const MAX_BYPASS: u64 = 16;

/// Which instances a waiting request can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotRequest {
    /// Any instance that is open for new requests, except these.
    Any { except: Vec<InstanceId> },
    /// The instance that keeps the client's session.
    Only(InstanceId),
    /// The instance that the hash of the request currently maps to.
    Led(InstanceId),
}

impl SlotRequest {
    fn suits(&self, instance: &Instance) -> bool {
        match self {
            SlotRequest::Any { except } => instance.is_open() && !except.contains(&instance.id),
            SlotRequest::Only(id) => *id == instance.id && instance.keeps_ties(),
            SlotRequest::Led(id) => *id == instance.id && instance.takes_led(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Number of waiters in `line`. Read without the lock.
    waiting: AtomicUsize,
    line: Mutex<WaitQueue>,
}

/// Ordered by ticket number.
#[derive(Debug, Default)]
struct WaitQueue {
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    wish: SlotRequest,
    arrived: u64,
    worker: ThreadId,
    /// `None` after the waiter was notified to choose again. It keeps its position in the queue meanwhile.
    slot: Option<oneshot::Sender<Lease>>,
}

impl WaitQueue {
    /// The ticket number of the waiter that is next for a slot of `instance` when the slot becomes free on
    /// this worker.
    fn next_for(&self, instance: &Instance) -> Option<u64> {
        let here = thread::current().id();
        let is_next = |waiter: &Waiter| waiter.slot.is_some() && waiter.wish.suits(instance);
        let mut suited = self.waiters.iter().filter(|(_, waiter)| is_next(waiter));
        let (first, waiter) = suited.next()?;
        if waiter.worker == here {
            return Some(*first);
        }
        let mut soon = suited.take_while(|(number, _)| **number <= first + MAX_BYPASS);
        Some(*soon.find(|(_, waiter)| waiter.worker == here).map_or(first, |(number, _)| number))
    }
}

impl Queue {
    /// Number of waiting requests. Takes no lock.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// See [`UpstreamShared::join`].
    pub(super) fn join(group: &Arc<UpstreamShared>, wish: SlotRequest, length: usize) -> Option<QueueTicket> {
        let queue = group.queue();
        let (sender, slot) = oneshot::channel();
        let mut line = queue.line();
        if line.waiters.len() >= length {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.waiters.insert(
            number,
            Waiter {
                wish,
                arrived: ARRIVALS.fetch_add(1, Relaxed),
                worker: thread::current().id(),
                slot: Some(sender),
            },
        );
        queue.waiting.store(line.waiters.len(), SeqCst);
        Some(QueueTicket { number, group: group.clone(), slot })
    }

    /// Hands the free slots of `instance` to waiting requests.
    pub(super) fn serve(&self, instance: &Arc<Instance>) {
        while self.len() > 0 && self.serve_one(instance) {}
    }

    /// Hands out one slot. Returns false if no slot is free or no waiter can use it.
    pub(super) fn serve_one(&self, instance: &Arc<Instance>) -> bool {
        let Some((waiter, lease)) = self.grant(instance) else { return false };
        // If the receiver is gone, the lease is dropped here. The drop returns the slot, so this must run
        // without the lock.
        let _ = waiter.slot.map(|slot| slot.send(lease));
        true
    }

    /// Arrival number of the waiter that is next for a slot of `instance`. A smaller number is an earlier
    /// arrival, over all queues.
    pub(super) fn arrival_of_next(&self, instance: &Instance) -> Option<u64> {
        if self.len() == 0 {
            return None;
        }
        let line = self.line();
        Some(line.waiters.get(&line.next_for(instance)?)?.arrived)
    }

    /// Removes and returns the next waiter for `instance`, with a slot.
    fn grant(&self, instance: &Arc<Instance>) -> Option<(Waiter, Lease)> {
        let mut line = self.line();
        let number = line.next_for(instance)?;
        let lease = Lease::take(instance)?;
        let waiter = line.waiters.remove(&number);
        self.waiting.store(line.waiters.len(), SeqCst);
        // Always `Some`: the number was found under the same lock.
        waiter.map(|waiter| (waiter, lease))
    }

    /// Notifies waiters that must choose again: those whose request no instance in `instances` can serve any
    /// more, and all [`SlotRequest::Led`] waiters, whose hash may map to another instance now. They keep
    /// their positions.
    pub(super) fn rematch(&self, instances: &[Arc<Instance>]) {
        let mut line = self.line();
        for waiter in line.waiters.values_mut() {
            let is_led = matches!(waiter.wish, SlotRequest::Led(_));
            if is_led || !instances.iter().any(|instance| waiter.wish.suits(instance)) {
                waiter.slot = None;
            }
        }
    }

    fn leave(&self, number: u64) {
        let mut line = self.line();
        line.waiters.remove(&number);
        self.waiting.store(line.waiters.len(), SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, WaitQueue> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct QueueTicket {
    number: u64,
    group: Arc<UpstreamShared>,
    slot: oneshot::Receiver<Lease>,
}

/// Result of [`QueueTicket::wish`].
#[derive(Debug)]
pub enum QueuePosition {
    /// The ticket already waits for this.
    Before,
    /// The ticket waits for this from now on. A slot that became free just before is not handed out, so the
    /// caller must try to take a slot once more before it waits.
    Anew,
    /// A slot has already been handed to this ticket.
    Granted(Lease),
}

impl QueueTicket {
    /// Waits for the slot. Returns `None` if the request cannot be granted any more and the caller must
    /// choose again. Cancel-safe.
    pub async fn slot(&mut self) -> Option<Lease> {
        (&mut self.slot).await.ok()
    }

    /// Changes what the ticket waits for. The position in the queue stays the same.
    pub fn wish(&mut self, wish: SlotRequest) -> QueuePosition {
        let group = self.group.clone();
        let mut line = group.queue().line();
        let Some(waiter) = line.waiters.get_mut(&self.number) else {
            drop(line);
            // A ticket that is no longer queued has been granted a slot. The grant removes the waiter before
            // it sends the lease, so the lease may not have arrived yet.
            return self.slot.try_recv().map_or(QueuePosition::Before, QueuePosition::Granted);
        };
        if waiter.slot.is_some() && waiter.wish == wish {
            return QueuePosition::Before;
        }
        let (sender, slot) = oneshot::channel();
        (waiter.wish, waiter.slot) = (wish, Some(sender));
        drop(line);
        self.slot = slot;
        QueuePosition::Anew
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        self.group.queue().leave(self.number);
    }
}

#[cfg(test)]
mod interleavings;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config;
    use crate::upstream::Upstream;

    fn upstream(slots: usize, instances: u16) -> Upstream {
        let instances = (0..instances).map(|number| config::Instance {
            max_requests: Some(slots),
            ..config::Instance::at(([127, 0, 0, 1], 5001 + number).into())
        });
        let config = config::Upstream { instances: instances.collect(), ..config::Upstream::named("app") };
        let upstream = Upstream::new(&config, None);
        upstream.instances().iter().for_each(|instance| instance.set_open(true));
        upstream
    }

    fn any() -> SlotRequest {
        SlotRequest::Any { except: Vec::new() }
    }

    fn port(lease: &Lease) -> u16 {
        lease.instance().address.port()
    }

    #[test]
    fn who_came_first_gets_the_slot() {
        let upstream = upstream(1, 1);
        let group = upstream.group();
        let taken = Lease::take(&upstream.instances()[0]).unwrap();
        let mut tickets: Vec<_> = (0..3).map(|_| group.join(any(), 3).unwrap()).collect();
        assert!(group.join(any(), 3).is_none());
        drop(taken);
        for left in [2, 1, 0] {
            let lease = tickets.remove(0).slot().now_or_never().unwrap().unwrap();
            assert_eq!(group.waiting(), left);
            assert!(tickets.first_mut().is_none_or(|next| next.slot().now_or_never().is_none()));
            drop(lease);
        }
        assert_eq!(upstream.instances()[0].in_flight(), 0);
    }

    #[test]
    fn a_slot_goes_to_the_first_who_can_use_it() {
        let upstream = upstream(1, 2);
        let (group, instances) = (upstream.group(), upstream.instances());
        let taken: Vec<_> = instances.iter().map(|instance| Lease::take(instance).unwrap()).collect();
        let mut tied = group.join(SlotRequest::Only(instances[0].id), 9).unwrap();
        let mut picky = group.join(SlotRequest::Any { except: vec![instances[1].id] }, 9).unwrap();
        let mut free = group.join(any(), 9).unwrap();
        let [first, second] = <[Lease; 2]>::try_from(taken).unwrap();
        drop(second);
        let got = free.slot().now_or_never().unwrap().unwrap();
        assert_eq!(port(&got), 5002);
        assert!(tied.slot().now_or_never().is_none());
        drop(first);
        assert_eq!(port(&tied.slot().now_or_never().unwrap().unwrap()), 5001);
        assert_eq!(port(&picky.slot().now_or_never().unwrap().unwrap()), 5001);
    }

    #[test]
    fn who_leaves_loses_nothing_for_the_others() {
        let upstream = upstream(1, 1);
        let group = upstream.group();
        let taken = Lease::take(&upstream.instances()[0]).unwrap();
        let (first, mut second) = (group.join(any(), 9).unwrap(), group.join(any(), 9).unwrap());
        drop(taken);
        // The slot has been handed to the first ticket, which is dropped without receiving it.
        drop(first);
        assert!(second.slot().now_or_never().unwrap().is_some());
        assert_eq!((group.waiting(), group.load()), (0, 0));
    }

    #[test]
    fn who_waits_in_vain_is_told_so() {
        let upstream = upstream(1, 2);
        let (group, instances) = (upstream.group(), upstream.instances());
        let _taken: Vec<_> = instances.iter().map(|instance| Lease::take(instance).unwrap()).collect();
        let mut tied = group.join(SlotRequest::Only(instances[0].id), 9).unwrap();
        let mut free = group.join(any(), 9).unwrap();
        instances[0].set_healthy(false);
        instances[0].set_open(false);
        group.rematch_waiters(instances);
        assert!(tied.slot().now_or_never().unwrap().is_none());
        assert!(free.slot().now_or_never().is_none());
        instances[1].set_open(false);
        group.rematch_waiters(instances);
        assert!(free.slot().now_or_never().unwrap().is_none());
    }

    #[test]
    fn no_slot_is_lost_or_given_twice_whoever_comes_and_goes() {
        let upstream = upstream(3, 2);
        thread::scope(|scope| {
            for worker in 0..4 {
                let clients = (0..16).map(|client| client_of(&upstream, worker * 16 + client));
                let clients = futures_util::future::join_all(clients.collect::<Vec<_>>());
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                scope.spawn(move || runtime.block_on(clients));
            }
        });
        assert_eq!((upstream.group().waiting(), upstream.group().load()), (0, 0));
    }

    async fn client_of(upstream: &Upstream, seed: u64) {
        let mut chance = fastrand::Rng::with_seed(seed);
        for _ in 0..300 {
            let lease = one_request(upstream, &mut chance).await;
            assert!(upstream.instances().iter().all(|instance| instance.in_flight() <= 3));
            tokio::task::yield_now().await;
            drop(lease);
        }
    }

    #[test]
    fn those_of_the_same_worker_go_first_for_a_while() {
        let upstream = upstream(1, 1);
        let group = upstream.group();
        let taken = Lease::take(&upstream.instances()[0]).unwrap();
        let mut stranger =
            thread::scope(|scope| scope.spawn(|| group.join(any(), 99).unwrap()).join().unwrap());
        let mut own: Vec<_> = (0..=MAX_BYPASS).map(|_| group.join(any(), 99).unwrap()).collect();
        drop(taken);
        for ticket in own.iter_mut().take(16) {
            assert!(stranger.slot().now_or_never().is_none());
            drop(ticket.slot().now_or_never().unwrap().unwrap());
        }
        assert!(stranger.slot().now_or_never().unwrap().is_some());
    }

    async fn one_request(upstream: &Upstream, chance: &mut fastrand::Rng) -> Option<Lease> {
        let free = || upstream.instances().iter().find_map(Lease::take);
        if let Some(lease) = free() {
            return Some(lease);
        }
        let mut ticket = upstream.group().join(any(), 64).unwrap();
        if let Some(lease) = free() {
            return Some(lease);
        }
        // One in ten requests leaves before it is granted a slot.
        if chance.u8(..10) == 0 {
            return ticket.slot().now_or_never().flatten();
        }
        Some(ticket.slot().await.unwrap())
    }
}
