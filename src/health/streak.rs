//! Hysteresis: one odd result changes nothing.

/// Counts results in a row.
#[derive(Debug)]
pub(super) struct Streak {
    rise: u32,
    fall: u32,
    /// `None` before the first result.
    healthy: Option<bool>,
    against: u32,
}

impl Streak {
    /// `rise` good results in a row make healthy, `fall` bad ones unhealthy.
    pub(super) fn new(rise: u32, fall: u32) -> Self {
        Streak { rise, fall, healthy: None, against: 0 }
    }

    /// Takes one result; returns the verdict when it changes. The very first result decides at once.
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
        let mut streak = Streak::new(rise, fall);
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
}
