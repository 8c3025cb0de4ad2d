//! What happens in a run, drawn from a seed or written as text, such as
//! `one deny idle=20 users seed=7: silence@0 900+2000, script@all 1500+2000`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;

use super::world::VESTIBULES;

/// The servers of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    /// One address, behind which there is a server with a replica.
    One,
    /// Two addresses, one of a primary.
    Hosts,
    Sentinel,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Silence,
    NoRequests,
    NoReplies,
    Delays,
    LateLookUps,
    LateChanges,
    Cut,
    LostPushes,
    NoTracking,
    Frozen,
    Restarted,
    KilledClients,
    KilledFollowers,
    Script,
    Overflow,
    Storm,
    Swapped,
    Flushed,
    /// All sessions end, nobody asks for a while, and the store is out.
    FlushedBeforeSilence,
    /// Sessions end while the wire is cut for a moment, nobody asks for a while, and the store is out.
    EndedInGapBeforeSilence,
    Demoted,
    /// New connections lead to the new primary; those on which changes are heard of end, or all others do.
    FollowersLedElsewhere,
    ClientsLedElsewhere,
    Switched,
    FailedOver,
    PrimaryKilled,
    PrimaryFrozen,
    /// Only a server that cannot be chosen follows the primary, which dies, and so does who remembers.
    BackupOnly,
    Stopped,
    Replaced,
}

impl Kind {
    pub(super) const ALL: [(Kind, &str); 31] = [
        (Kind::Nothing, "nothing"),
        (Kind::Silence, "silence"),
        (Kind::NoRequests, "no-requests"),
        (Kind::NoReplies, "no-replies"),
        (Kind::Delays, "delays"),
        (Kind::LateLookUps, "late-look-ups"),
        (Kind::LateChanges, "late-changes"),
        (Kind::Cut, "cut"),
        (Kind::LostPushes, "lost-pushes"),
        (Kind::NoTracking, "no-tracking"),
        (Kind::Frozen, "frozen"),
        (Kind::Restarted, "restarted"),
        (Kind::KilledClients, "killed-clients"),
        (Kind::KilledFollowers, "killed-followers"),
        (Kind::Script, "script"),
        (Kind::Overflow, "overflow"),
        (Kind::Storm, "storm"),
        (Kind::Swapped, "swapped"),
        (Kind::Flushed, "flushed"),
        (Kind::FlushedBeforeSilence, "flushed-before-silence"),
        (Kind::EndedInGapBeforeSilence, "ended-in-gap-before-silence"),
        (Kind::Demoted, "demoted"),
        (Kind::FollowersLedElsewhere, "followers-led-elsewhere"),
        (Kind::ClientsLedElsewhere, "clients-led-elsewhere"),
        (Kind::Switched, "switched"),
        (Kind::FailedOver, "failed-over"),
        (Kind::PrimaryKilled, "primary-killed"),
        (Kind::PrimaryFrozen, "primary-frozen"),
        (Kind::BackupOnly, "backup-only"),
        (Kind::Stopped, "stopped"),
        (Kind::Replaced, "replaced"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).unwrap().1
    }

    /// Whether there can be such a thing.
    pub(super) fn is_for(self, topology: Topology) -> bool {
        use Kind::*;
        match self {
            Nothing | KilledClients | KilledFollowers | Script | Overflow | Storm | Swapped | Flushed
            | Stopped | Replaced => true,
            Silence
            | NoRequests
            | NoReplies
            | Delays
            | LateLookUps
            | LateChanges
            | Cut
            | LostPushes
            | NoTracking
            | Frozen
            | Restarted
            | FlushedBeforeSilence
            | EndedInGapBeforeSilence => topology != Topology::Sentinel,
            Demoted | FollowersLedElsewhere | ClientsLedElsewhere => topology == Topology::One,
            Switched => topology == Topology::Hosts,
            FailedOver | PrimaryKilled | PrimaryFrozen | BackupOnly => topology == Topology::Sentinel,
        }
    }
}

/// One fault and the time after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) kind: Kind,
    /// The only vestibule that is concerned, where that is possible.
    pub(super) on: Option<usize>,
    pub(super) lasts: Duration,
    pub(super) pause: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) topology: Topology,
    /// What was known goes on in an outage.
    pub(super) goes_on: bool,
    /// How long sessions last without use, in seconds; `None`: as long as they are said to.
    pub(super) idle: Option<u64>,
    /// All sessions of a user are revoked as well as single ones.
    pub(super) locks_out: bool,
    pub(super) seed: u64,
    pub(super) phases: Vec<Phase>,
}

impl Plan {
    /// Such a plan with other phases: so many, of any of these kinds, none twice as often as another.
    pub(super) fn draw(self, kinds: &[Kind], count: usize) -> Self {
        let mut rng = Rng::with_seed(self.seed);
        let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.is_for(self.topology)).collect();
        let mut drawn = Vec::new();
        while drawn.len() < count {
            let mut all = kinds.clone();
            rng.shuffle(&mut all);
            drawn.extend(all);
        }
        let phases = drawn.into_iter().take(count).map(|kind| Phase {
            kind,
            on: rng.bool().then(|| rng.usize(..VESTIBULES)),
            lasts: Duration::from_millis(rng.u64(200..2_000)),
            pause: Duration::from_millis(rng.u64(300..2_500)),
        });
        Self { phases: phases.collect(), ..self }
    }

    /// The plans with one phase less.
    pub(super) fn smaller(&self) -> Vec<Plan> {
        let without = |left_out| {
            let mut plan = self.clone();
            plan.phases.remove(left_out);
            plan
        };
        (0..self.phases.len()).map(without).collect()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.on.map_or("all".to_owned(), |on| on.to_string());
        let (name, lasts, pause) = (self.kind.name(), self.lasts.as_millis(), self.pause.as_millis());
        write!(f, "{name}@{on} {lasts}+{pause}")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = match self.topology {
            Topology::One => "one",
            Topology::Hosts => "hosts",
            Topology::Sentinel => "sentinel",
        };
        let policy = if self.goes_on { "stale" } else { "deny" };
        let idle = self.idle.map_or("off".to_owned(), |idle| idle.to_string());
        let whom = if self.locks_out { "users" } else { "ids" };
        let phases: Vec<String> = self.phases.iter().map(Phase::to_string).collect();
        write!(f, "{topology} {policy} idle={idle} {whom} seed={}: {}", self.seed, phases.join(", "))
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (what, times) = text.trim().split_once(' ')?;
            let (name, on) = what.split_once('@')?;
            let (lasts, pause) = times.split_once('+')?;
            let millis = |text: &str| text.trim().parse().ok().map(Duration::from_millis);
            Some(Phase {
                kind: Kind::ALL.iter().find(|(_, own)| *own == name)?.0,
                on: if on == "all" { None } else { Some(on.parse().ok().filter(|on| *on < VESTIBULES)?) },
                lasts: millis(lasts)?,
                pause: millis(pause)?,
            })
        };
        parse().ok_or_else(|| format!("no phase: {text:?}"))
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (head, phases) = text.split_once(':')?;
            let words: Vec<&str> = head.split_whitespace().collect();
            let [topology, policy, idle, whom, seed] = words[..] else { return None };
            let topology = match topology {
                "one" => Topology::One,
                "hosts" => Topology::Hosts,
                "sentinel" => Topology::Sentinel,
                _ => return None,
            };
            let seed = seed.strip_prefix("seed=")?.parse().ok()?;
            let is = |word, yes, no| [no, yes].iter().position(|own| *own == word).map(|is| is == 1);
            let (goes_on, locks_out) = (is(policy, "stale", "deny")?, is(whom, "users", "ids")?);
            let idle = match idle.strip_prefix("idle=")? {
                "off" => None,
                idle => Some(idle.parse().ok()?),
            };
            Some((Plan { topology, goes_on, idle, locks_out, seed, phases: Vec::new() }, phases))
        };
        let (mut plan, phases) = parse().ok_or_else(|| format!("no plan: {text:?}"))?;
        let phases = phases.split(',').filter(|phase| !phase.trim().is_empty());
        let phases = phases.map(Phase::from_str).collect::<Result<Vec<_>, _>>()?;
        if let Some(phase) = phases.iter().find(|phase| !phase.kind.is_for(plan.topology)) {
            return Err(format!("not with this topology: {phase}"));
        }
        plan.phases = phases;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_from_its_seed_and_from_its_text() {
        let kinds = Kind::ALL.map(|(kind, _)| kind);
        for topology in ["one", "hosts", "sentinel"] {
            let draw = |seed: u64| {
                let empty: Plan = format!("{topology} deny idle=off users seed={seed}:").parse().unwrap();
                empty.draw(&kinds, 50)
            };
            assert_eq!(draw(7), draw(7));
            assert_ne!(draw(7).phases, draw(8).phases);
            assert_eq!(draw(7).to_string().parse(), Ok(draw(7)));
        }
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "",
            "one deny idle=20 users seed=7",
            "two deny idle=20 users seed=7: cut@0 1+1",
            "one deny idle=20 users seed=7: cut@9 1+1",
            "one deny idle=20 users seed=7: hum@0 1+1",
            "sentinel deny idle=20 users seed=7: cut@0 1+1",
        ] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }

    #[test]
    fn smaller_plans_lack_one_phase_each() {
        let plan: Plan = "one deny idle=off ids seed=7: cut@0 1+2, script@all 3+4".parse().unwrap();
        let smaller: Vec<String> = plan.smaller().iter().map(Plan::to_string).collect();
        assert_eq!(
            smaller,
            ["one deny idle=off ids seed=7: script@all 3+4", "one deny idle=off ids seed=7: cut@0 1+2"]
        );
    }
}
