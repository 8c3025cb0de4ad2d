//! The closed model: each user acts after its think time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::shared::{Part, Shared};
use super::user::User;

/// Runs the users of this thread until the load is over and every session has been checked.
pub(super) async fn run(shared: &Arc<Shared>, part: Part) {
    let mut living: JoinSet<()> =
        part.users().map(|number| live(User::new(number, shared.clone()))).collect();
    while living.join_next().await.is_some() {}
}

async fn live(mut user: User) {
    let shared = user.shared.clone();
    if shared.pause(shared.arrival(user.number)).await {
        user.come().await;
    }
    for number in 0.. {
        let decision = shared.decisions.of_user(user.number, number);
        let goes_on = match decision.think {
            Duration::ZERO => !shared.times.closing.is_cancelled(),
            think => shared.pause(Instant::now() + think).await,
        };
        let now = Instant::now();
        if user.gone || !goes_on || now >= shared.end() {
            break;
        }
        user.act(decision, now).await;
    }
    shared.times.closing.cancelled().await;
    user.check().await;
}
