//! Assigns the actions of an open model to users: to the designated user, otherwise to the next free one.
//! While no user is free, actions queue in the order of their due times.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::shared::Times;

/// A due action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due<A> {
    pub(super) at: Instant,
    /// The index of the designated user.
    pub(super) place: usize,
    pub(super) action: A,
}

/// The users of one thread and their action queue. Each user has an index, and `free` holds the user at its
/// index while it is idle.
#[derive(Debug)]
pub(super) struct House<U, A> {
    free: Vec<Option<U>>,
    count: usize,
    /// Tasks of arriving and acting users. Each returns the user's index, and the user unless it has left for
    /// good.
    busy: JoinSet<(usize, Option<U>)>,
    waiting: VecDeque<Due<A>>,
}

impl<U: Send + 'static, A> House<U, A> {
    /// Starts with arriving users, indexed in order.
    pub(super) fn new<F>(coming: impl Iterator<Item = F>) -> Self
    where
        F: Future<Output = Option<U>> + Send + 'static,
    {
        let mut busy = JoinSet::new();
        for (place, comes) in coming.enumerate() {
            busy.spawn(async move { (place, comes.await) });
        }
        House { free: (0..busy.len()).map(|_| None).collect(), count: 0, busy, waiting: VecDeque::new() }
    }

    /// Runs `act` for all due actions until `times` ends the load. Returns the remaining users, and the
    /// actions that were never begun. `until` waits for a moment, or for ever without one.
    pub(super) async fn serve<F>(
        mut self,
        mut due: impl Iterator<Item = Due<A>>,
        act: impl Fn(U, Due<A>) -> F,
        until: impl AsyncFn(Option<Instant>),
        times: &Times,
    ) -> (Vec<U>, VecDeque<Due<A>>)
    where
        F: Future<Output = Option<U>> + Send + 'static,
    {
        let mut next = due.next();
        loop {
            self.queue_due(&mut next, &mut due);
            self.begin(&act);
            if next.is_none() && self.busy.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = times.cut.cancelled() => break,
                () = times.closing.cancelled(), if next.is_some() => {
                    // On a busy machine the end may be noticed before the actions that were due just before
                    // it.
                    self.queue_due(&mut next, &mut due);
                    next = None;
                }
                Some(ended) = self.busy.join_next(), if !self.busy.is_empty() => self.come_home(ended.ok()),
                () = until(next.as_ref().map(|next| next.at)), if next.is_some() => {}
            }
        }
        while let Some(ended) = self.busy.join_next().await {
            self.come_home(ended.ok());
        }
        (self.free.into_iter().flatten().collect(), self.waiting)
    }

    /// Queues the actions that are due by now.
    fn queue_due(&mut self, next: &mut Option<Due<A>>, rest: &mut impl Iterator<Item = Due<A>>) {
        let now = Instant::now();
        while let Some(action) = next.take_if(|next| next.at <= now) {
            self.waiting.push_back(action);
            *next = rest.next();
        }
    }

    /// Assigns queued actions to free users.
    fn begin<F>(&mut self, act: &impl Fn(U, Due<A>) -> F)
    where
        F: Future<Output = Option<U>> + Send + 'static,
    {
        while self.count > 0
            && let Some(due) = self.waiting.pop_front()
        {
            let Some((place, user)) = self.take(due.place) else { return };
            let acts = act(user, due);
            self.busy.spawn(async move { (place, acts.await) });
        }
    }

    /// The user at `place`, or at the next index with a free user.
    fn take(&mut self, place: usize) -> Option<(usize, U)> {
        let places = (place..self.free.len()).chain(0..place);
        for place in places {
            if let Some(user) = self.free.get_mut(place).and_then(Option::take) {
                self.count -= 1;
                return Some((place, user));
            }
        }
        None
    }

    fn come_home(&mut self, ended: Option<(usize, Option<U>)>) {
        if let Some((place, Some(user))) = ended
            && let Some(home) = self.free.get_mut(place)
        {
            *home = Some(user);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::time::{sleep, sleep_until};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn times() -> Times {
        Times { began: Instant::now(), closing: CancellationToken::new(), cut: CancellationToken::new() }
    }

    async fn until(moment: Option<Instant>) {
        sleep_until(moment.unwrap()).await;
    }

    /// Log of actions: user, number, milliseconds of delay.
    type Log = Arc<Mutex<Vec<(char, u64, u64)>>>;

    /// Runs one action every 10 ms. Those before 100 ms take `slow`, the others 1 ms.
    async fn serve(users: &'static str, actions: u64, slow: u64, times: &Times) -> (Log, usize) {
        let (log, began): (Log, _) = (Log::default(), times.began);
        let house = House::new(users.chars().map(|user| async move { Some(user) }));
        let due = (0..actions).map(|number| {
            let place = usize::try_from(number).unwrap() % users.len();
            Due { at: began + Duration::from_millis(10 * number), place, action: number }
        });
        let act = |user, due: Due<u64>| {
            let late = (Instant::now() - due.at).as_millis();
            log.lock().unwrap().push((user, due.action, u64::try_from(late).unwrap()));
            let takes = if began.elapsed() < Duration::from_millis(100) { slow } else { 1 };
            async move {
                sleep(Duration::from_millis(takes)).await;
                Some(user)
            }
        };
        let (_, waiting) = house.serve(due, act, until, times).await;
        (log.clone(), waiting.len())
    }

    #[tokio::test(start_paused = true)]
    async fn actions_begin_when_they_are_due_and_users_take_turns() {
        let (log, waiting) = serve("ab", 6, 1, &times()).await;
        let expected = [('a', 0, 0), ('b', 1, 0), ('a', 2, 0), ('b', 3, 0), ('a', 4, 0), ('b', 5, 0)];
        assert_eq!((log.lock().unwrap().as_slice(), waiting), (expected.as_slice(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whose_turn_it_is_but_who_is_busy_is_replaced() {
        let (log, _) = serve("abc", 4, 25, &times()).await;
        let expected = [('a', 0, 0), ('b', 1, 0), ('c', 2, 0), ('a', 3, 0)];
        assert_eq!(log.lock().unwrap().as_slice(), expected);
        let (log, _) = serve("ab", 3, 1000, &times()).await;
        assert_eq!(log.lock().unwrap()[2], ('a', 2, 980));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stall_delays_is_late_by_what_is_left_of_it() {
        // All users stall for one second, at 100 actions per second.
        let (log, waiting) = serve("a", 150, 1000, &times()).await;
        let log = log.lock().unwrap();
        assert_eq!((log.len(), waiting), (150, 0));
        let late = |from, to| log.iter().filter(|(_, _, late)| (from..to).contains(late)).count();
        // Action number n is due at 10 n ms and begins at 999 + n ms.
        assert_eq!(late(1, 2000), 110);
        assert_eq!(late(500, 2000), 55);
        assert_eq!(log[1], ('a', 1, 990));
    }

    #[tokio::test(start_paused = true)]
    async fn no_action_begins_after_the_end_unless_it_was_due_before() {
        let times = times();
        let closing = times.closing.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(35)).await;
            closing.cancel();
        });
        let (log, waiting) = serve("a", 100, 1000, &times).await;
        assert_eq!((log.lock().unwrap().len(), waiting), (4, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_due_before_the_end_is_done_although_the_end_is_noticed_first() {
        let times = times();
        let house = House::new([async { Some('a') }].into_iter());
        let due = (1..4_u64).map(|number| Due {
            at: times.began + Duration::from_millis(10 * number),
            place: 0,
            action: number,
        });
        // After the user's arrival the loop runs again only when everything is due and the end has come.
        let calls = Mutex::new(0);
        let late = async |_: Option<Instant>| {
            let call = {
                let mut calls = calls.lock().unwrap();
                *calls += 1;
                *calls
            };
            if call == 2 {
                tokio::time::advance(Duration::from_millis(35)).await;
                times.closing.cancel();
            }
            std::future::pending::<()>().await;
        };
        let done = Mutex::new(0);
        let act = |user, _: Due<u64>| {
            *done.lock().unwrap() += 1;
            async move { Some(user) }
        };
        let (_, waiting) = house.serve(due, act, late, &times).await;
        assert_eq!((*done.lock().unwrap(), waiting.len()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_could_begin_is_told() {
        let times = times();
        let cut = times.cut.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(55)).await;
            cut.cancel();
        });
        let (log, waiting) = serve("a", 100, 1000, &times).await;
        assert_eq!((log.lock().unwrap().len(), waiting), (1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn without_anybody_left_actions_wait_in_vain() {
        let times = times();
        let due = (0..3_u64).map(|number| Due { at: times.began, place: 0, action: number });
        let house: House<char, u64> = House::new([async { Some('a') }].into_iter());
        let leave = |_, _: Due<u64>| async { None };
        let (left, waiting) = house.serve(due, leave, until, &times).await;
        assert_eq!((left.len(), waiting.len()), (0, 2));
    }
}
