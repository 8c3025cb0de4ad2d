use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::{Hash, HashKey, InstanceState};
use crate::upstream::UnprovenReason;

fn config(balance: Balance, weights: &[u32]) -> config::Upstream {
    let instances = weights.iter().zip(5001..).map(|(weight, port)| config::Instance {
        weight: *weight,
        ..config::Instance::at(([127, 0, 0, 1], port).into())
    });
    config::Upstream { balance, instances: instances.collect(), ..config::Upstream::named("app") }
}

fn balancer(weights: &[u32]) -> Balancer {
    Balancer::new(&config(Balance::RoundRobin, weights), None)
}

fn wanted(tried: &[Arc<Instance>]) -> Wanted<'_> {
    Wanted { key: None, tried, now: Instant::now() }
}

fn port(pick: &Pick) -> u16 {
    match pick {
        Pick::Taken(lease) => lease.instance().address.port(),
        other => panic!("{other:?}"),
    }
}

fn ports(balancer: &Balancer, count: usize) -> Vec<u16> {
    (0..count).map(|_| port(&balancer.pick(wanted(&[])))).collect()
}

fn counts(balancer: &Balancer, count: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    ports(balancer, count).into_iter().for_each(|port| *counts.entry(port).or_default() += 1);
    counts
}

fn instance(balancer: &Balancer, place: usize) -> &Arc<Instance> {
    &balancer.upstream().instances()[place]
}

fn set_healthy(balancer: &Balancer, place: usize, healthy: bool) {
    instance(balancer, place).set_healthy(healthy);
    balancer.refresh();
}

#[test]
fn equal_weights_take_turns() {
    assert_eq!(ports(&balancer(&[1, 1, 1, 1]), 8), [5001, 5002, 5003, 5004, 5001, 5002, 5003, 5004]);
}

#[test]
fn the_others_share_the_turns_of_one_that_is_down_evenly() {
    let balancer = balancer(&[1, 1, 1]);
    set_healthy(&balancer, 1, false);
    assert_eq!(counts(&balancer, 100), BTreeMap::from([(5001, 50), (5003, 50)]));
}

#[test]
fn an_instance_that_backs_off_is_the_last_resort_and_one_that_is_down_is_none() {
    let balancer = balancer(&[1, 1]);
    instance(&balancer, 0).connect_failed(Instant::now(), false);
    assert_eq!(ports(&balancer, 3), [5002, 5002, 5002]);
    set_healthy(&balancer, 1, false);
    assert_eq!(ports(&balancer, 1), [5001]);
    set_healthy(&balancer, 0, false);
    assert!(matches!(balancer.pick(wanted(&[])), Pick::None));
}

#[test]
fn an_instance_is_never_tried_twice() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::TwoChoices, Balance::Random] {
        let balancer = Balancer::new(&config(balance, &[1, 1, 1]), None);
        let mut tried = Vec::new();
        while let Pick::Taken(lease) = balancer.pick(wanted(&tried)) {
            tried.push(lease.instance().clone());
        }
        assert_eq!(tried.len(), 3);
        assert!(matches!(balancer.pick_tied(&tried[0], wanted(&tried)), Pick::None));
    }
}

#[test]
fn the_fewest_requests_for_the_weight_win() {
    let balancer = Balancer::new(&config(Balance::LeastRequests, &[1, 1, 2]), None);
    let leases: Vec<_> = (0..40).map(|_| balancer.pick(wanted(&[]))).collect();
    let loads: Vec<_> = balancer.upstream().instances().iter().map(|one| one.in_flight()).collect();
    assert_eq!(loads, [10, 10, 20]);
    drop(leases);
    assert_eq!(counts(&balancer, 9), BTreeMap::from([(5001, 3), (5002, 3), (5003, 3)]));
}

#[test]
fn chance_follows_the_weights() {
    fastrand::seed(7);
    let random = counts(&Balancer::new(&config(Balance::Random, &[1, 3]), None), 40_000);
    assert!(random[&5002].abs_diff(30_000) < 500, "{random:?}");
    let choices = Balancer::new(&config(Balance::TwoChoices, &[1, 3]), None);
    let held: Vec<_> = (0..4_000).map(|_| choices.pick(wanted(&[]))).collect();
    assert!(instance(&choices, 1).in_flight().abs_diff(3_000) < 60, "{}", instance(&choices, 1).in_flight());
    drop(held);
}

#[test]
fn two_choices_avoid_a_loaded_instance() {
    let balancer = Balancer::new(&config(Balance::TwoChoices, &[1; 4]), None);
    let busy: Vec<_> = (0..100).map(|_| Lease::take(instance(&balancer, 2))).collect();
    let counts = counts(&balancer, 4_000);
    // Only when both random choices are this instance.
    assert!(counts[&5003] < 400, "{counts:?}");
    drop(busy);
}

fn by_hash(bound: Option<u32>) -> config::Upstream {
    config(Balance::Hash(Hash { key: HashKey::Client, bound }), &[1; 4])
}

fn hashed(balancer: &Balancer, key: u64) -> Pick {
    balancer.pick(Wanted { key: Some(key), tried: &[], now: Instant::now() })
}

#[test]
fn a_key_keeps_its_instance_and_returns_to_it() {
    let balancer = Balancer::new(&by_hash(None), None);
    let before: Vec<_> = (0..1_000).map(|key| port(&hashed(&balancer, key))).collect();
    set_healthy(&balancer, 0, false);
    for (key, before) in (0..).zip(&before) {
        let now = port(&hashed(&balancer, key));
        assert!(if *before == 5001 { now != 5001 } else { now == *before });
    }
    set_healthy(&balancer, 0, true);
    assert!((0..).zip(before).all(|(key, before)| port(&hashed(&balancer, key)) == before));
}

#[test]
fn no_instance_carries_more_than_the_bound() {
    let balancer = Balancer::new(&by_hash(Some(125)), None);
    let held: Vec<_> = (0..400).map(|_| hashed(&balancer, 9)).collect();
    let most = balancer.upstream().instances().iter().map(|one| one.in_flight()).max().unwrap();
    assert!((100..=126).contains(&most), "{most}");
    drop(held);
}

#[test]
fn a_full_instance_makes_its_own_keys_wait_and_the_others_go_on() {
    let mut config = by_hash(None);
    config.instances.iter_mut().for_each(|instance| instance.max_requests = Some(1));
    let balancer = Balancer::new(&config, None);
    let held = hashed(&balancer, 9);
    let id = match &held {
        Pick::Taken(lease) => lease.instance().id,
        other => panic!("{other:?}"),
    };
    assert!(matches!(hashed(&balancer, 9), Pick::Full(SlotRequest::Led(wanted)) if wanted == id));
    let without_key = [balancer.pick(wanted(&[])), balancer.pick(wanted(&[])), balancer.pick(wanted(&[]))];
    assert!(without_key.iter().all(|pick| matches!(pick, Pick::Taken(_))));
    assert!(
        matches!(balancer.pick(wanted(&[])), Pick::Full(SlotRequest::Any { except }) if except.is_empty())
    );
}

#[test]
fn backups_serve_only_when_nobody_else_can() {
    let mut config = config(Balance::RoundRobin, &[1, 1, 1]);
    config.instances[2].backup = true;
    let balancer = Balancer::new(&config, None);
    assert_eq!(counts(&balancer, 10), BTreeMap::from([(5001, 5), (5002, 5)]));
    set_healthy(&balancer, 0, false);
    assert_eq!(ports(&balancer, 2), [5002, 5002]);
    instance(&balancer, 1).connect_failed(Instant::now(), false);
    assert_eq!(ports(&balancer, 2), [5003, 5003]);
    set_healthy(&balancer, 1, false);
    assert_eq!(ports(&balancer, 2), [5003, 5003]);
}

#[test]
fn one_that_drains_keeps_its_sessions_and_one_taken_out_does_not() {
    let balancer = balancer(&[1, 1]);
    let first = instance(&balancer, 0).clone();
    for (state, keeps) in
        [(InstanceState::Ready, true), (InstanceState::Drain, true), (InstanceState::Down, false)]
    {
        first.set_state(state);
        balancer.refresh();
        assert_eq!(ports(&balancer, 4).contains(&5001), state == InstanceState::Ready);
        assert_eq!(matches!(balancer.pick_tied(&first, wanted(&[])), Pick::Taken(_)), keeps, "{state:?}");
    }
}

#[test]
fn checks_are_not_believed_when_too_few_would_be_left() {
    let mut config = config(Balance::RoundRobin, &[1; 4]);
    config.panic_below = 50;
    let balancer = Balancer::new(&config, None);
    set_healthy(&balancer, 0, false);
    set_healthy(&balancer, 1, false);
    assert!(!balancer.is_panicking());
    assert_eq!(counts(&balancer, 8).len(), 2);
    set_healthy(&balancer, 2, false);
    assert!(balancer.is_panicking());
    assert_eq!(counts(&balancer, 8).len(), 4);
    set_healthy(&balancer, 0, true);
    assert!(!balancer.is_panicking());
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_back_gets_new_requests_little_by_little() {
    let mut config = config(Balance::RoundRobin, &[1, 1]);
    config.slow_start = Some(Duration::from_secs(10));
    let balancer = Balancer::new(&config, None);
    set_healthy(&balancer, 0, false);
    tokio::time::advance(Duration::from_secs(1)).await;
    set_healthy(&balancer, 0, true);
    tokio::time::advance(Duration::from_secs(2)).await;
    fastrand::seed(3);
    let early = counts(&balancer, 10_000)[&5001];
    assert!((800..1_800).contains(&early), "{early}");
    tokio::time::advance(Duration::from_secs(8)).await;
    assert_eq!(counts(&balancer, 10_000)[&5001], 5_000);
}

#[test]
fn a_successor_keeps_instances_their_state_and_the_place_in_the_rotation() {
    let before = balancer(&[1, 1, 1]);
    assert_eq!(ports(&before, 2), [5001, 5002]);
    set_healthy(&before, 0, false);
    instance(&before, 1).set_weight(3);
    let mut config = config(Balance::RoundRobin, &[1, 1, 1, 1]);
    config.instances.remove(2);
    let after = Balancer::new(&config, Some(&before));
    assert!(Arc::ptr_eq(instance(&after, 0), instance(&before, 0)));
    assert_eq!(counts(&after, 8), BTreeMap::from([(5002, 6), (5004, 2)]));
}

#[test]
fn instances_that_came_later_are_known_with_their_share() {
    let before = balancer(&[1, 1]);
    assert_eq!(before.newcomers(0).share, 0.0);
    let after = Balancer::new(&config(Balance::RoundRobin, &[1, 1, 1, 3]), Some(&before));
    let newcomers = after.newcomers(5);
    assert_eq!(newcomers.share, 4.0 / 6.0);
    let picked: Vec<_> = (0..4_000).map(|_| newcomers.pick().unwrap()).collect();
    let heavier = picked.iter().filter(|id| **id == instance(&after, 3).id).count();
    assert!(heavier.abs_diff(3_000) < 200 && picked.iter().all(|id| *id != instance(&after, 0).id));
    assert_eq!(after.newcomers(instance(&after, 3).joined()).share, 0.0);
}

#[test]
fn the_weights_of_the_file_win_again_when_the_file_changes_them() {
    let before = balancer(&[1, 1]);
    instance(&before, 0).set_weight(9);
    instance(&before, 1).set_weight(9);
    let after = Balancer::new(&config(Balance::RoundRobin, &[1, 2]), Some(&before));
    assert_eq!([instance(&after, 0).weight(), instance(&after, 1).weight()], [9, 2]);
}

/// A balancer with health checks, none of which has succeeded yet.
fn unproven(balance: Balance) -> Balancer {
    let check = config::HealthCheck {
        kind: config::CheckKind::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        unproven_after: Duration::from_secs(2),
    };
    Balancer::new(&config::Upstream { health: Some(check), ..config(balance, &[1, 1]) }, None)
}

fn prove(balancer: &Balancer, place: usize) {
    assert!(instance(balancer, place).prove());
    balancer.refresh();
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_first_who_is_found_good_and_go_nowhere_else() {
    let balancer = unproven(Balance::RoundRobin);
    assert!(
        matches!(balancer.pick(wanted(&[])), Pick::Full(SlotRequest::Any { except }) if except.is_empty())
    );
    assert!(balancer.held_until().is_some() && !balancer.is_unproven());
    prove(&balancer, 1);
    assert_eq!((ports(&balancer, 3), balancer.held_until()), (vec![5002; 3], None));
    prove(&balancer, 0);
    assert_eq!(counts(&balancer, 4), BTreeMap::from([(5001, 2), (5002, 2)]));
}

#[tokio::test(start_paused = true)]
async fn after_a_while_they_go_to_those_in_doubt_and_whoever_cannot_wait_at_once() {
    let balancer = unproven(Balance::RoundRobin);
    let taken = balancer.take_unproven(wanted(&[])).unwrap();
    assert!(balancer.take_unproven(wanted(&[taken.instance().clone()])).is_some());
    assert_eq!(balancer.held_until(), Some(Instant::now() + Duration::from_secs(2)));
    tokio::time::advance(Duration::from_secs(2)).await;
    balancer.refresh();
    assert_eq!(counts(&balancer, 4), BTreeMap::from([(5001, 2), (5002, 2)]));
    assert!(balancer.is_unproven() && balancer.take_unproven(wanted(&[])).is_none());
    // A second doubt does not start another wait before a health check has succeeded.
    instance(&balancer, 0).doubt(UnprovenReason::Away);
    balancer.refresh();
    assert_eq!(balancer.held_until(), None);
    prove(&balancer, 0);
    instance(&balancer, 0).doubt(UnprovenReason::Away);
    balancer.refresh();
    assert!(balancer.held_until().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_has_been_tried_is_not_waited_for() {
    let balancer = unproven(Balance::RoundRobin);
    let tried: Vec<_> = balancer.upstream().instances().to_vec();
    assert!(matches!(balancer.pick(wanted(&tried)), Pick::None));
}

#[tokio::test(start_paused = true)]
async fn ties_and_hashes_lead_where_they_did_unless_it_is_known_that_nothing_is_left_there() {
    let balancer = unproven(Balance::Hash(Hash { key: HashKey::Session, bound: None }));
    let by_hash = |key| balancer.pick(Wanted { key: Some(key), ..wanted(&[]) });
    prove(&balancer, 1);
    let (mine, key) = (instance(&balancer, 0), (0..).find(|key| port(&by_hash(*key)) == 5001).unwrap());
    let is_kept = || matches!(balancer.pick_tied(mine, wanted(&[])), Pick::Taken(_));
    assert!(is_kept());
    mine.doubt(UnprovenReason::Away);
    balancer.refresh();
    assert!(is_kept());
    assert_eq!(port(&by_hash(key)), 5002);
    mine.doubt(UnprovenReason::Gone);
    balancer.refresh();
    assert!(!is_kept());
    prove(&balancer, 0);
    assert!(is_kept());
    assert_eq!(port(&by_hash(key)), 5001);
}
