//! Property test: in any interleaving of changes, invalidations, reads and requests, a request
//! receives no version older than the last invalidation received before it.
//!
//! The model has one session with numbered versions. The store changes it and sends the invalidation later;
//! requests look the session up, the store is read, results are cached; in any order. A request must never
//! receive a version older than the last invalidation received before the request came. Without the
//! `take_invalidation` in `LookupOwner::land` the test fails: a value read before a change is cached although
//! the invalidation arrived during the read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ID: &str = "s1";
const LONG: Duration = Duration::from_secs(3600);
/// Same value as in the resolver.
const ATTEMPTS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The store writes a new version of the session, or deletes it.
    Change { gone: bool },
    /// The oldest pending invalidation arrives.
    Hear,
    /// A request asks the cache, and joins a look-up on a miss.
    Request,
    /// The store executes the read of a look-up.
    Read(usize),
    /// The response to the read of a look-up arrives.
    Land(usize),
    /// The owner of a look-up is dropped.
    Abandon(usize),
    /// The store is flushed, and the flush is reported at once.
    Flush,
    /// The connection that delivers invalidations is lost.
    Lose,
    /// That connection is established again.
    Find,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8).prop_map(|choice| Step::Change { gone: choice == 0 }),
        4 => Just(Step::Hear),
        6 => Just(Step::Request),
        6 => (0..4usize).prop_map(Step::Read),
        6 => (0..4usize).prop_map(Step::Land),
        1 => (0..4usize).prop_map(Step::Abandon),
        1 => Just(Step::Flush),
        1 => Just(Step::Lose),
        1 => Just(Step::Find),
    ]
}

/// A look-up in flight.
struct Asking {
    leader: LookupOwner,
    attempt: usize,
    reading: ReadStamp,
    /// The version that the store has read.
    read: Option<usize>,
}

/// A waiting request, and the oldest version that it may receive.
struct Waiting {
    flight: Arc<InFlightLookup>,
    least: usize,
}

struct World {
    cache: Arc<SessionCache>,
    /// For each version, whether the session exists.
    versions: Vec<bool>,
    /// Versions whose invalidation has not arrived yet.
    on_the_way: Vec<usize>,
    /// The version of the last invalidation received.
    heard: usize,
    linked: bool,
    asking: Vec<Asking>,
    waiting: Vec<Waiting>,
}

impl World {
    fn new() -> Self {
        let config = config::SessionCache {
            max_entries: 16,
            max_bytes: 1 << 20,
            absent_ttl: LONG,
            max_staleness: LONG,
        };
        let mut world = World {
            cache: Arc::new(SessionCache::new(&config, None)),
            versions: vec![true],
            on_the_way: Vec::new(),
            heard: 0,
            linked: false,
            asking: Vec::new(),
            waiting: Vec::new(),
        };
        world.take(Step::Find);
        world
    }

    fn latest(&self) -> usize {
        self.versions.len() - 1
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Change { gone } => {
                self.versions.push(!gone);
                self.on_the_way.push(self.latest());
            }
            Step::Hear if self.linked && !self.on_the_way.is_empty() => {
                self.heard = self.on_the_way.remove(0);
                self.cache.invalidate(ID);
            }
            Step::Request => self.request(),
            Step::Read(index) => {
                let latest = self.latest();
                if let Some(asking) = self.asking.get_mut(index) {
                    asking.read.get_or_insert(latest);
                }
            }
            Step::Land(index) => self.land(index),
            Step::Abandon(index) if index < self.asking.len() => drop(self.asking.remove(index)),
            Step::Flush if self.linked => {
                self.versions.push(false);
                self.on_the_way.clear();
                self.heard = self.latest();
                self.cache.forget_all();
            }
            Step::Lose => {
                self.cache.freshness.lapse();
                self.linked = false;
            }
            Step::Find if !self.linked => {
                // Values read from here on include all earlier changes.
                self.on_the_way.clear();
                self.cache.freshness.begin();
                self.cache.freshness.extend(Timestamp::NEVER);
                self.linked = true;
            }
            _ => (),
        }
        self.check_answers();
    }

    fn request(&mut self) {
        match self.cache.get(ID, self.cache.freshness.now()) {
            Some(known) => self.check(&known, self.heard),
            None => {
                let (flight, leader) = self.cache.join(&SessionId::new(ID));
                self.waiting.push(Waiting { flight, least: self.heard });
                if let Some(leader) = leader {
                    let reading = leader.depart();
                    self.asking.push(Asking { leader, attempt: 1, reading, read: None });
                }
            }
        }
    }

    fn land(&mut self, index: usize) {
        let Some(asking) = self.asking.get_mut(index) else { return };
        let Some(version) = asking.read.take() else { return };
        let known = match self.versions[version] {
            true => Known::Active(Arc::new(session(version))),
            false => Known::Absent(Absence::Unknown),
        };
        if asking.leader.land(Ok(known), asking.reading, asking.attempt == ATTEMPTS) {
            self.asking.remove(index);
        } else {
            asking.attempt += 1;
            asking.reading = asking.leader.depart();
        }
    }

    fn check_answers(&mut self) {
        for Waiting { flight, least } in std::mem::take(&mut self.waiting) {
            match flight.outcome().now_or_never() {
                Some(Some(found)) => self.check(&found.unwrap(), least),
                Some(None) => (), // given up
                None => self.waiting.push(Waiting { flight, least }),
            }
        }
    }

    /// Asserts that a result returned to a request is version `least` or later.
    fn check(&self, known: &Known, least: usize) {
        match known {
            Known::Active(session) => {
                let version = session.headers().unwrap()[0].as_ref().unwrap().to_str().unwrap();
                let version: u64 = version.parse().unwrap();
                assert!(version >= least as u64, "told {version}, heard of {least}");
            }
            Known::Absent(_) | Known::Unreadable(_) => {
                assert!(self.versions[least..].contains(&false), "told that it has gone, as of {least}");
            }
        }
    }

    /// Delivers everything that is pending, then checks that the latest version is cached.
    fn settle(&mut self) {
        self.take(Step::Find);
        while !self.on_the_way.is_empty() {
            self.take(Step::Hear);
        }
        while !self.asking.is_empty() {
            self.take(Step::Read(0));
            self.take(Step::Land(0));
        }
        assert!(self.waiting.is_empty(), "somebody waits for ever");
        self.take(Step::Request);
        self.take(Step::Read(0));
        self.take(Step::Land(0));
        match self.cache.get(ID, self.cache.freshness.now()) {
            Some(known) => self.check(&known, self.latest()),
            None => panic!("what was read last is not kept"),
        }
    }
}

fn session(version: usize) -> Session {
    Session {
        id: SessionId::new(ID),
        user: None,
        description: Ok([Some(HeaderValue::from(version))].into()),
        described_by: 0,
        ends_at: Timestamp::NEVER,
        kept_until: AtomicU64::new(Timestamp::NEVER.as_micros()),
        renew_at: AtomicU64::new(Timestamp::NEVER.as_micros()),
        check_at: AtomicU64::new(Timestamp::NEVER.as_micros()),
    }
}

proptest! {
    #[test]
    fn nobody_is_told_what_is_known_to_be_out_of_date(steps in vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}
