//! `session.mode`: how sessions are handled, for all clients or per cohort.

use super::canary::Percent;

/// How sessions are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Any instance serves any request; the proxy resolves the session from the store.
    Shared,
    /// Affinity: a client stays with its instance, which keeps the session.
    Sticky,
    /// Neither: plain round robin.
    Local,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Shared, Mode::Sticky, Mode::Local];

    /// The name in the configuration, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Shared => "shared",
            Mode::Sticky => "sticky",
            Mode::Local => "local",
        }
    }
}

/// The mode of all requests, or the modes that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    One(Mode),
    /// Each client belongs to a cohort, and each cohort is served in its own mode.
    Compare(Shares),
}

impl Modes {
    /// The mode of every request. `None` while modes are compared.
    pub fn one(self) -> Option<Mode> {
        match self {
            Modes::One(mode) => Some(mode),
            Modes::Compare(_) => None,
        }
    }

    /// Whether some requests may be served in `mode`.
    pub fn include(self, mode: Mode) -> bool {
        match self {
            Modes::One(only) => only == mode,
            Modes::Compare(shares) => shares.of(mode).is_some(),
        }
    }

    /// The name in logs, metrics and problems.
    pub fn as_str(self) -> &'static str {
        self.one().map_or("compare", Mode::as_str)
    }
}

impl From<Mode> for Modes {
    fn from(mode: Mode) -> Self {
        Modes::One(mode)
    }
}

/// Shares of new clients by mode. They sum to 100%. At least two modes have a share, which may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares([Option<Percent>; 3]);

impl Shares {
    /// `shares` is in the order of [`Mode::ALL`], with `None` for a mode that is not compared. Returns `None`
    /// when the shares do not sum to 100% or fewer than two modes are compared.
    pub fn new(shares: [Option<Percent>; 3]) -> Option<Self> {
        let compared = shares.iter().flatten().count();
        let sum: u32 = shares.iter().flatten().map(|share| u32::from(share.hundredths())).sum();
        (compared >= 2 && sum == u32::from(Percent::ALL.hundredths())).then_some(Shares(shares))
    }

    /// `None`: this mode is not compared.
    pub fn of(self, mode: Mode) -> Option<Percent> {
        self.0.get(mode as usize).copied().flatten()
    }

    /// The mode for a hash value of 0 to 9999. Shared occupies the low end, sticky the high end, and local
    /// the middle. So moving the boundary between two modes moves only clients between those two.
    pub fn mode_at(self, place: u16) -> Mode {
        let share = |mode| self.of(mode).map_or(0, Percent::hundredths);
        match place {
            _ if place < share(Mode::Shared) => Mode::Shared,
            _ if place >= Percent::ALL.hundredths().saturating_sub(share(Mode::Sticky)) => Mode::Sticky,
            _ => Mode::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(shared: Option<f64>, sticky: Option<f64>, local: Option<f64>) -> Option<Shares> {
        Shares::new([shared, sticky, local].map(|share| share.and_then(Percent::new)))
    }

    #[test]
    fn shares_make_up_all_of_two_modes_or_three() {
        assert!(shares(Some(50.0), Some(50.0), None).is_some());
        assert!(shares(Some(100.0), Some(0.0), None).is_some());
        assert!(shares(Some(33.3), Some(33.3), Some(33.4)).is_some());
        assert!(shares(Some(50.0), Some(49.99), None).is_none());
        assert!(shares(None, Some(100.0), None).is_none());
    }

    #[test]
    fn every_place_has_its_mode_and_a_share_its_places() {
        let all = shares(Some(20.0), Some(30.0), Some(50.0)).unwrap();
        let count = |mode| (0..10_000).filter(|place| all.mode_at(*place) == mode).count();
        assert_eq!(Mode::ALL.map(count), [2_000, 3_000, 5_000]);
    }

    #[test]
    fn another_border_moves_only_the_places_in_between() {
        let (one, other) = (shares(Some(50.0), Some(50.0), None), shares(Some(35.0), Some(65.0), None));
        let (one, other) = (one.unwrap(), other.unwrap());
        let moved = (0..10_000).filter(|place| one.mode_at(*place) != other.mode_at(*place)).count();
        assert_eq!(moved, 1_500);
    }
}
