//! The open model: actions are due whether or not a user is free, and latency includes the wait. So a slow
//! target does not reduce the number of actions (no coordinated omission).

use std::sync::Arc;

use tokio::task::JoinSet;

use super::arrival::Arrivals;
use super::decision::Decision;
use super::failure::Failure;
use super::house::{Due, House};
use super::pacer::Pacer;
use super::shared::{Part, Shared};
use super::user::User;
use crate::config::scenario::Spacing;

/// Runs due actions until the load is over and every session has been checked.
pub(super) async fn run(shared: &Arc<Shared>, part: Part, rate: f64, spacing: Spacing, pacer: &Pacer) {
    let house = House::new(part.users().map(|number| come(User::new(number, shared.clone()))));
    let act = |mut user: User, due: Due<Decision>| async move {
        user.act(due.action, due.at).await;
        (!user.gone).then_some(user)
    };
    let until = async |moment| pacer.until(moment).await;
    let (left, not_begun) = house.serve(due(shared, part, rate, spacing), act, until, &shared.times).await;
    for due in not_begun {
        shared.ended(due.action, due.at, Some(Failure::NotBegun));
    }
    shared.times.closing.cancelled().await;
    let mut checks = JoinSet::new();
    for mut user in left {
        checks.spawn(async move { user.check().await });
    }
    while checks.join_next().await.is_some() {}
}

async fn come(mut user: User) -> Option<User> {
    if user.shared.pause(user.shared.arrival(user.number)).await {
        user.come().await;
    }
    Some(user)
}

/// The actions of this thread's users. Every thread generates the same sequence and keeps its own part.
fn due(shared: &Shared, part: Part, rate: f64, spacing: Spacing) -> impl Iterator<Item = Due<Decision>> {
    let Shared { scenario, decisions, times, .. } = shared;
    let chance = decisions.rng(u64::MAX, 0);
    let moments = Arrivals::new(rate, spacing, scenario.warm_up, scenario.duration, chance);
    moments.zip(0..).filter_map(move |(moment, number)| {
        let action = decisions.of_arrival(number);
        Some(Due { at: times.began + moment, place: part.place(action.user)?, action })
    })
}
