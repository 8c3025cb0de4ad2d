//! The events during a load, fully automated.

use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::model::EventMark;
use super::stage::{Stage, StageError};
use super::target::Target;

/// Something that happens to the application or to its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Half of the instances are added during the load.
    ScaleOut,
    /// One instance is killed, and restarted after a while.
    InstanceKilled,
    /// The instances are drained, stopped and restarted one after the other.
    RollingRestart,
    /// The primary of the session store is killed, and Sentinel promotes a replica.
    StoreFailover,
    /// Some users act far more often than others.
    HotSpot,
}

impl Event {
    pub const ALL: [Event; 5] =
        [Event::ScaleOut, Event::InstanceKilled, Event::RollingRestart, Event::StoreFailover, Event::HotSpot];

    pub fn as_str(self) -> &'static str {
        match self {
            Event::ScaleOut => "scale-out",
            Event::InstanceKilled => "instance-killed",
            Event::RollingRestart => "rolling-restart",
            Event::StoreFailover => "store-failover",
            Event::HotSpot => "hot-spot",
        }
    }

    /// Parses the name of an event.
    pub fn parse(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// The events of these names, in their order. Unknown names are ignored.
    pub fn of_names(names: &[&str]) -> Vec<Event> {
        names.iter().filter_map(|name| Event::parse(name)).collect()
    }

    /// Why the event is impossible for this application. `None`: it is possible.
    pub(super) fn obstacle(self, target: &Target) -> Option<&'static str> {
        let mut first = (0..target.count()).filter(|index| !target.comes_later(*index));
        let possible = match self {
            Event::ScaleOut => (0..target.count()).any(|index| target.comes_later(index)),
            Event::InstanceKilled => first.any(|index| target.can_restart(index)),
            Event::RollingRestart => first.all(|index| target.can_restart(index)),
            Event::StoreFailover => matches!(target, Target::Stubs(_)),
            Event::HotSpot => true,
        };
        match self {
            _ if possible => None,
            Event::ScaleOut => Some("no instance has `later = true`"),
            Event::StoreFailover => Some("the application's store is not ours to kill"),
            _ => Some("instances have no `start` command"),
        }
    }
}

/// The parameters of a run's events.
pub(super) struct Play<'a> {
    pub(super) target: &'a Target,
    /// In the order in which they happen.
    pub(super) events: &'a [Event],
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// The seed of the round: the same in every mode.
    pub(super) seed: u64,
    /// The current event.
    pub(super) now: &'a watch::Sender<Option<String>>,
}

/// The events that have happened.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// When users begin their final session checks.
    pub(super) over: Option<Instant>,
    pub(super) marks: Vec<EventMark>,
    /// Number of instances before the scale-out.
    pub(super) instances: usize,
    pub(super) later: usize,
    /// When the scale-out began, and when the new instances were able to serve.
    pub(super) growth: Option<(f64, f64)>,
}

impl Play<'_> {
    /// Executes the events, spread evenly over the counted time. Each begins some time after the previous one
    /// is over, so that their effects do not overlap. `began` is the start of the load.
    pub(super) async fn run(&self, stage: &mut Stage, began: Instant) -> Result<Played, StageError> {
        let over = Some(began + self.warm_up + self.duration);
        let mut played = Played { over, instances: stage.names().len(), ..Played::default() };
        let mut rng = Rng::with_seed(self.seed);
        let timed: Vec<Event> =
            self.events.iter().copied().filter(|event| *event != Event::HotSpot).collect();
        let step = self.duration / (timed.len() as u32 + 1);
        let mut apart = began;
        for (place, event) in (1..).zip(timed) {
            sleep_until(apart.max(began + self.warm_up + step * place)).await;
            let at = began.elapsed().as_secs_f64();
            let (name, subject, passes) = self.happen(event, stage, &mut rng, &mut played).await?;
            let until = began.elapsed().as_secs_f64();
            let name = name.to_owned();
            played.marks.push(match passes {
                true => EventMark { name, subject, at, until: Some(until) },
                // New instances stay, so the event has no end.
                false => EventMark { name, subject, at: until, until: None },
            });
            if !passes {
                played.growth = Some((at, until));
            }
            self.now.send_replace(None);
            apart = Instant::now() + step / 2;
        }
        Ok(played)
    }

    /// Executes one event. Returns its name, its subject, and whether the previous state is restored
    /// afterwards; a scale-out is permanent.
    async fn happen(
        &self,
        event: Event,
        stage: &mut Stage,
        rng: &mut Rng,
        played: &mut Played,
    ) -> Result<(&'static str, String, bool), StageError> {
        match event {
            Event::ScaleOut => {
                self.tell("scale-out");
                let names = stage.scale_out().await?;
                played.later = names.len();
                Ok(("scale-out", names.join(", "), false))
            }
            Event::InstanceKilled => {
                let (index, name) = self.victim(stage, rng);
                self.tell(&format!("{name} killed"));
                stage.kill(index).await;
                sleep((self.duration / 6).clamp(Duration::from_millis(300), Duration::from_secs(5))).await;
                stage.bring_back(index).await?;
                Ok(("instance killed", name, true))
            }
            Event::RollingRestart => {
                let names = stage.names();
                let patience = self.duration / (8 * names.len().max(1) as u32);
                for (index, name) in names.iter().enumerate() {
                    self.tell(&format!("{name} restarts"));
                    stage
                        .replace(index, patience.clamp(Duration::from_millis(200), Duration::from_secs(5)))
                        .await?;
                }
                Ok(("rolling restart", names.join(", "), true))
            }
            Event::StoreFailover => {
                self.tell("store primary killed");
                stage.fail_store_over().await?;
                Ok(("store primary killed", "redis-1".to_owned(), true))
            }
            Event::HotSpot => Ok(("hot spot", String::new(), true)),
        }
    }

    /// A random instance that was there from the beginning.
    fn victim(&self, stage: &Stage, rng: &mut Rng) -> (usize, String) {
        let possible = |index: &usize| !self.target.comes_later(*index) && self.target.can_restart(*index);
        let candidates: Vec<usize> = (0..self.target.count()).filter(possible).collect();
        let index = rng.choice(candidates).unwrap_or_default();
        (index, stage.name(index).to_owned())
    }

    fn tell(&self, what: &str) {
        self.now.send_replace(Some(what.to_owned()));
    }
}
