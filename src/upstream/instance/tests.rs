use super::*;
use crate::upstream::{Cause, Ejection, Health, Outcome, UnprovenReason};

#[test]
fn identity_depends_on_the_address_alone() {
    assert_eq!(Instance::with_slots(None).id, Instance::with_slots(None).id);
    assert_ne!(
        InstanceId::of("127.0.0.1:5001".parse().unwrap()),
        InstanceId::of("127.0.0.1:5002".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_pauses_for_longer_each_time_and_a_success_ends_it() {
    let instance = Instance::with_slots(None);
    let now = Instant::now();
    instance.connect_failed(now, false);
    assert_eq!(instance.condition(now), Condition::BackingOff);
    assert_eq!(instance.condition(now + Duration::from_secs(10)), Condition::Unchecked);
    let later = now + Duration::from_secs(10);
    instance.connect_failed(later, false);
    instance.connect_failed(later, false);
    assert_eq!(instance.condition(later + Duration::from_millis(240)), Condition::BackingOff);
    instance.connected();
    assert_eq!(instance.condition(later), Condition::Unchecked);
}

#[test]
fn a_standing_tells_since_when_and_why() {
    let instance = Instance::with_slots(None);
    assert_eq!(instance.standing().health, Health::Unchecked);
    assert!(!instance.judge(Health::Up, "fine"));
    let since = instance.standing().since;
    assert!(!instance.judge(Health::Up, "still fine"));
    assert_eq!((instance.standing().since, instance.standing().reason.as_str()), (since, "still fine"));
    assert!(instance.judge(Health::Down, "answered 500"));
    assert_eq!(instance.condition(Instant::now()), Condition::Down);
    assert_eq!(instance.standing().reason, "answered 500");
}

#[test]
fn an_ejection_ends_with_the_next_verdict_and_what_led_to_it_is_forgotten() {
    let instance = Instance::with_slots(None);
    instance.note(Outcome::Failed(crate::upstream::Failure::Connect));
    let ejection = Ejection { until: Some(Instant::now()), times: 1, returned: None };
    instance.eject(ejection, Cause::Latency, "slow");
    assert_eq!(instance.condition(Instant::now()), Condition::Ejected);
    assert!(instance.judge(Health::Up, ""));
    let standing = instance.standing();
    assert_eq!((standing.ejection.until, standing.ejection.times, standing.ejections), (None, 1, [0, 0, 1]));
    assert!(standing.ejection.returned.is_some());
    assert_eq!(instance.record().in_row().0, 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_comes_back_gets_its_share_little_by_little() {
    let instance = Instance::with_slots(None);
    instance.set_slow_start(Some(Duration::from_secs(10)));
    assert_eq!(instance.share(Instant::now()), 1.0);
    assert!(instance.set_healthy(false));
    assert!(!instance.set_healthy(false));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(instance.set_healthy(true));
    let back = Instant::now();
    assert_eq!(instance.share(back), LEAST_SHARE);
    assert_eq!(instance.share(back + Duration::from_secs(5)), 0.5);
    assert_eq!(instance.share(back + Duration::from_secs(10)), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_that_of_the_condition() {
    let instance = Instance::with_slots(None);
    let reason = || instance.reason(Instant::now());
    assert_eq!(reason(), "");
    instance.set_checked(true, UnprovenReason::Unknown);
    assert_eq!(reason(), "no check has ended yet");
    instance.prove();
    instance.judge(Health::Up, "checks succeed");
    assert_eq!(reason(), "checks succeed");
    instance.set_fenced(true);
    assert_eq!(reason(), "a drill treats it as dead");
    instance.set_fenced(false);
    instance.connect_failed(Instant::now(), false);
    assert_eq!(reason(), "connecting failed");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(reason(), "it was away, and no check has ended since");
    instance.judge(Health::Up, "the last check failed: no answer in time");
    assert_eq!(reason(), "the last check failed: no answer in time");
    instance.connect_refused();
    instance.connect_failed(Instant::now(), true);
    assert_eq!(reason(), "nobody listens at its address");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(reason(), "nobody listened at its address, and no check has ended since");
    instance.judge(Health::Down, "answered 500");
    instance.doubt(UnprovenReason::Away);
    assert_eq!(reason(), "answered 500");
}
