use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::config::{self, CheckKind, HealthCheck};
use crate::health::probe::ProbeError;
use crate::upstream::{Failure, Outcome, UnprovenReason};

const SECOND: Duration = Duration::from_secs(1);
const BAD: Outcome = Outcome::Failed(Failure::Status(502));

fn upstream(instances: u16, outlier: Outlier, health: Option<HealthCheck>) -> Arc<Upstream> {
    let instances = (0..instances).map(|number| config::Instance::at(([127, 0, 0, 1], 5001 + number).into()));
    let config = config::Upstream {
        instances: instances.collect(),
        outlier,
        health,
        ..config::Upstream::named("app")
    };
    Arc::new(Upstream::new(&config, None))
}

fn checks() -> Option<HealthCheck> {
    Some(HealthCheck {
        kind: CheckKind::Tcp,
        interval: SECOND,
        timeout: SECOND,
        rise: 2,
        fall: 3,
        unproven_after: SECOND,
    })
}

fn manager(instances: u16, outlier: Outlier, health: Option<HealthCheck>) -> HealthManager<fn()> {
    HealthManager::new(upstream(instances, outlier, health), || {})
}

impl<C: Fn()> HealthManager<C> {
    fn instance(&self, place: usize) -> &Arc<Instance> {
        &self.wards[place].instance
    }

    fn health(&self) -> Vec<Health> {
        self.wards.iter().map(|ward| ward.instance.health()).collect()
    }

    fn ejected(&self) -> usize {
        self.health().iter().filter(|health| **health == Health::Ejected).count()
    }

    fn fail(&self, place: usize, times: usize) {
        (0..times).for_each(|_| self.instance(place).note(BAD));
    }

    fn answer(&self, place: usize, times: usize, took: Duration) {
        (0..times).for_each(|_| self.instance(place).note(Outcome::Answered(Instant::now() - took)));
    }

    fn find(&mut self, place: usize, finding: Finding) -> bool {
        self.on_check_result(place, &finding, Instant::now())
    }

    fn eject_now(&mut self, place: usize) {
        self.fail(place, 5);
        assert!(self.check_ejections(Instant::now()));
    }

    /// Seconds until the instance is able to serve again, found in steps of one second.
    async fn time_until_back(&mut self, place: usize) -> u64 {
        for seconds in 0..10_000 {
            if self.instance(place).is_healthy() {
                return seconds;
            }
            advance(SECOND).await;
            self.tick(Instant::now());
        }
        panic!("it never came back");
    }
}

fn bad() -> Finding {
    Finding::Bad(ProbeError::Body)
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_at_once() {
    let (before, upstream) = (Instant::now(), upstream(2, Outlier::DEFAULT, None));
    let (told, telling) = (mpsc::unbounded_channel(), upstream.clone());
    let (changed, mut has_changed) = told;
    let manager = HealthManager::new(upstream, move || changed.send(()).unwrap());
    let (_sender, findings) = mpsc::channel(1);
    let running = tokio::spawn(manager.run(findings));
    tokio::task::yield_now().await;
    let instance = &telling.instances()[0];
    (0..5).for_each(|_| instance.note(BAD));
    has_changed.recv().await.unwrap();
    assert_eq!((instance.health(), before.elapsed()), (Health::Ejected, Duration::ZERO));
    let standing = instance.standing();
    assert_eq!(standing.reason, "5 failures in a row, the last: status 502");
    assert_eq!((standing.ejections, standing.ejection.until), ([1, 0, 0], Some(before + 30 * SECOND)));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_in_between_forgives() {
    let mut manager = manager(2, Outlier::DEFAULT, None);
    for _ in 0..10 {
        manager.fail(0, 4);
        manager.answer(0, 1, SECOND);
        assert!(!manager.check_ejections(Instant::now()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_ejects_though_none_are_in_a_row() {
    let mut manager = manager(2, Outlier { error_rate: Some(40), ..Outlier::DEFAULT }, None);
    for _ in 0..9 {
        for _ in 0..2 {
            manager.fail(0, 1);
            manager.answer(0, 1, SECOND);
        }
        advance(SECOND).await;
        let is_enough = manager.tick(Instant::now());
        if is_enough {
            break;
        }
    }
    assert_eq!(manager.health(), [Health::Ejected, Health::Unchecked]);
    assert_eq!(manager.instance(0).standing().reason, "10 failures of 20 requests within 10s");
    assert_eq!(manager.instance(0).standing().ejections, [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_answers_much_later_than_the_others_is_ejected() {
    let mut manager = manager(4, Outlier { latency: Some(3), ..Outlier::DEFAULT }, None);
    for (place, millis) in [20, 25, 100, 30].into_iter().enumerate() {
        manager.answer(place, 20, Duration::from_millis(millis));
    }
    assert!(manager.tick(Instant::now()));
    assert_eq!(manager.ejected(), 1);
    let standing = manager.instance(2).standing();
    assert_eq!(standing.ejections, [0, 0, 1]);
    assert!(
        standing.reason.ends_with("to the head of an answer, others 25.0 ms, within 10s"),
        "{}",
        standing.reason
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_stated_share_is_out() {
    for (instances, max_ejected, most) in
        [(1, 100, 0), (2, 10, 1), (3, 50, 1), (4, 50, 2), (10, 30, 3), (4, 100, 3)]
    {
        let mut manager = manager(instances, Outlier { max_ejected, ..Outlier::DEFAULT }, None);
        (0..instances).for_each(|place| manager.fail(place.into(), 9));
        manager.check_ejections(Instant::now());
        assert_eq!(manager.ejected(), most, "{max_ejected} % of {instances}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_time_it_stays_out_twice_as_long_up_to_the_longest() {
    let outlier = Outlier { eject: 10 * SECOND, max_eject: 35 * SECOND, ..Outlier::DEFAULT };
    let mut manager = manager(2, outlier, None);
    for seconds in [10, 20, 35, 35] {
        manager.eject_now(0);
        assert_eq!(manager.time_until_back(0).await, seconds);
        advance(34 * SECOND).await;
    }
    advance(SECOND).await;
    manager.eject_now(0);
    assert_eq!(manager.time_until_back(0).await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_happened_before_it_came_back_is_forgotten() {
    let mut manager = manager(2, Outlier { error_rate: Some(10), ..Outlier::DEFAULT }, None);
    manager.eject_now(0);
    manager.fail(0, 100);
    manager.time_until_back(0).await;
    manager.fail(0, 4);
    assert!(!manager.tick(Instant::now()));
    assert_eq!(manager.ejected(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_checks_it_comes_back_with_a_good_one_after_its_time() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    manager.find(0, Finding::Good);
    manager.find(1, Finding::Good);
    manager.eject_now(0);
    advance(29 * SECOND).await;
    assert!(!manager.find(0, Finding::Good));
    advance(SECOND).await;
    assert!(!manager.tick(Instant::now()));
    assert!(!manager.find(0, bad()));
    assert!(!manager.find(0, Finding::Busy("full")));
    assert_eq!(manager.instance(0).health(), Health::Ejected);
    assert!(manager.find(0, Finding::Good));
    assert_eq!(manager.instance(0).health(), Health::Up);
}

#[tokio::test(start_paused = true)]
async fn failing_checks_keep_an_ejected_instance_out_after_its_time() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    manager.find(0, Finding::Good);
    manager.find(1, Finding::Good);
    manager.eject_now(0);
    assert!(!(0..3).any(|_| manager.find(0, bad())), "it was out already");
    assert_eq!(manager.instance(0).health(), Health::Down);
    advance(60 * SECOND).await;
    assert!(!manager.find(0, Finding::Good));
    assert!(manager.find(0, Finding::Good));
}

#[tokio::test(start_paused = true)]
async fn only_a_good_check_ends_a_doubt() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    assert!(manager.find(0, Finding::Good));
    assert_eq!(
        (manager.instance(0).doubts(), manager.instance(1).doubts()),
        (None, Some(UnprovenReason::Unknown))
    );
    manager.instance(0).doubt(UnprovenReason::Away);
    assert!(!manager.find(0, bad()) && !manager.find(0, Finding::Busy("full")));
    assert_eq!(manager.instance(0).doubts(), Some(UnprovenReason::Away));
    assert!(manager.find(0, Finding::Good));
    assert_eq!((manager.instance(0).doubts(), manager.instance(0).health()), (None, Health::Up));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_ejected_in_favour_of_one_in_doubt() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    manager.find(0, Finding::Good);
    manager.fail(0, 5);
    assert!(!manager.check_ejections(Instant::now()));
    manager.find(1, Finding::Good);
    assert!(manager.check_ejections(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_busy_instance_is_as_it_was() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    manager.find(0, Finding::Good);
    for _ in 0..2 {
        manager.find(0, bad());
        manager.find(0, Finding::Busy("all slots are taken"));
    }
    let standing = manager.instance(0).standing();
    assert_eq!((standing.health, standing.checks), (Health::Up, [1, 2, 2]));
    assert_eq!(standing.reason, "not checked: all slots are taken");
    assert!(manager.find(0, bad()));
    assert_eq!(manager.instance(0).standing().reason, "the answer does not hold the expected text");
    manager.find(0, Finding::Busy("all slots are taken"));
    assert_eq!(manager.instance(0).health(), Health::Down);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_else_is_left_the_ejected_come_back() {
    let mut manager = manager(2, Outlier::DEFAULT, checks());
    for place in 0..2 {
        manager.find(place, Finding::Good);
    }
    manager.eject_now(0);
    for _ in 0..3 {
        manager.find(1, bad());
    }
    assert_eq!(manager.health(), [Health::Unchecked, Health::Down]);
    assert!(!manager.find(0, Finding::Good));
    assert_eq!(manager.instance(0).health(), Health::Up);
}

#[tokio::test(start_paused = true)]
async fn a_successor_goes_on_from_what_is_known() {
    let mut first = manager(4, Outlier::DEFAULT, checks());
    for place in 0..3 {
        first.find(place, Finding::Good);
    }
    for _ in 0..3 {
        first.find(1, bad());
    }
    first.eject_now(2);
    let upstream = |change: fn(&mut config::Upstream)| {
        let mut config = first.upstream.config.clone();
        change(&mut config);
        Arc::new(Upstream::new(&config, Some(&first.upstream)))
    };
    let told = Rc::new(Cell::new(0));
    let tell = || {
        let told = told.clone();
        move || told.set(told.get() + 1)
    };
    let mut second = HealthManager::new(upstream(|config| config.slow_start = Some(SECOND)), tell());
    assert_eq!(second.health(), [Health::Up, Health::Down, Health::Ejected, Health::Unchecked]);
    assert_eq!(told.get(), 0);
    assert!(!second.find(0, bad()) && !second.find(1, Finding::Good), "a streak is needed to turn a verdict");

    let third = HealthManager::new(
        upstream(|config| (config.health, config.outlier.consecutive) = (None, None)),
        tell(),
    );
    assert_eq!(third.health(), [Health::Unchecked; 4]);
    assert_eq!(told.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn fewer_instances_let_fewer_be_out() {
    let mut first = manager(8, Outlier::DEFAULT, None);
    (0..4).for_each(|place| first.eject_now(place));
    let mut config = first.upstream.config.clone();
    config.instances.truncate(6);
    let second = HealthManager::new(Arc::new(Upstream::new(&config, Some(&first.upstream))), || {});
    assert_eq!(second.ejected(), 3);
}

#[derive(Debug, Clone)]
enum Event {
    Fail(usize, usize),
    Answer(usize, u64),
    Check(usize, u8),
    Pass(u64),
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    let place = 0..7_usize;
    prop_oneof![
        (place.clone(), 1..30_usize).prop_map(|(place, times)| Event::Fail(place, times)),
        (place.clone(), 1..500_u64).prop_map(|(place, millis)| Event::Answer(place, millis)),
        (place, 0..4_u8).prop_map(|(place, finding)| Event::Check(place, finding)),
        (1..90_u64).prop_map(Event::Pass),
        Just(Event::Look),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_more_are_out_than_may_be_and_never_the_last(
        events in prop::collection::vec(event(), 1..120),
        max_ejected in 1..=100_u8,
        is_checked in any::<bool>(),
    ) {
        let outlier = Outlier {
            error_rate: Some(30),
            latency: Some(2),
            max_ejected,
            ..Outlier::DEFAULT
        };
        let most = outlier.most_ejected(7);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let result: Result<(), TestCaseError> = runtime.block_on(async {
            let mut manager = manager(7, outlier, checks().filter(|_| is_checked));
            for event in events {
                match event {
                    Event::Fail(place, times) => manager.fail(place, times),
                    Event::Answer(place, millis) => manager.answer(place, 20, Duration::from_millis(millis)),
                    Event::Check(place, 0) => {
                        manager.find(place, Finding::Busy("full"));
                    }
                    Event::Check(place, 1) => {
                        manager.find(place, Finding::Good);
                    }
                    Event::Check(place, _) => {
                        manager.find(place, bad());
                    }
                    Event::Pass(seconds) => {
                        advance(Duration::from_secs(seconds)).await;
                        manager.tick(Instant::now());
                    }
                    Event::Look => {
                        manager.check_ejections(Instant::now());
                    }
                }
                prop_assert!(manager.ejected() <= most, "{} are out", manager.ejected());
                let is_served = manager.health().iter().any(|health| health.is_able());
                prop_assert!(is_served || manager.ejected() == 0, "{:?}", manager.health());
            }
            Ok(())
        });
        result?;
    }
}
