//! Hysteresis of health checks: a single deviating result changes nothing.

/// Counts consecutive results against the present verdict.
#[derive(Debug)]
pub(super) struct RiseFallCounter {
    rise: u32,
    fall: u32,
    /// The present verdict; `None` before the first result.
    healthy: Option<bool>,
    against: u32,
}

impl RiseFallCounter {
    /// `rise` good results in a row make the verdict healthy, `fall` bad ones unhealthy. `healthy` is the
    /// verdict to start from.
    pub(super) fn new(rise: u32, fall: u32, healthy: Option<bool>) -> Self {
        RiseFallCounter { rise, fall, healthy, against: 0 }
    }

    /// Records one result. Returns the new verdict if it changes. The first result decides at once if there
    /// was no verdict.
    pub(super) fn record(&mut self, good: bool) -> Option<bool> {
        let needed = match self.healthy {
            Some(healthy) if healthy == good => {
                self.against = 0;
                return None;
            }
            Some(_) if good => self.rise,
            Some(_) => self.fall,
            None => 1,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.healthy = Some(good);
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(rise: u32, fall: u32, results: &str) -> Vec<Option<bool>> {
        verdicts_after(None, rise, fall, results)
    }

    fn verdicts_after(healthy: Option<bool>, rise: u32, fall: u32, results: &str) -> Vec<Option<bool>> {
        let mut streak = RiseFallCounter::new(rise, fall, healthy);
        results.chars().map(|result| streak.record(result == '+')).collect()
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(verdicts(2, 3, "+"), [Some(true)]);
        assert_eq!(verdicts(2, 3, "-"), [Some(false)]);
    }

    #[test]
    fn only_a_whole_streak_turns_the_verdict() {
        assert_eq!(verdicts(2, 3, "+--+---")[1..], [None, None, None, None, None, Some(false)]);
        assert_eq!(verdicts(2, 3, "-+-++")[1..], [None, None, None, Some(true)]);
    }
    #[test]
    fn what_is_known_already_needs_a_whole_streak_to_turn() {
        assert_eq!(verdicts_after(Some(true), 2, 3, "---"), [None, None, Some(false)]);
        assert_eq!(verdicts_after(Some(false), 2, 3, "++"), [None, Some(true)]);
    }
}
