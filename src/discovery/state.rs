//! The discovery state of one upstream.

use std::sync::Arc;

use super::failure::Failure;
use crate::config::Instance;

/// The state of the look-ups of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The last good set, sorted by address; `None` before the first one.
    pub instances: Option<Arc<[Instance]>>,
    /// Whether a look-up has finished, with success or failure.
    pub looked: bool,
    /// Whether the last look-up failed.
    pub failing: bool,
    /// Number of sets that differed from the one before.
    pub changes: u64,
    /// Number of failed look-ups.
    pub failures: u64,
}

impl State {
    /// The initial state of another source for the same upstream. It keeps the last good set.
    pub(super) fn after(&self) -> Self {
        State { looked: false, failing: false, ..self.clone() }
    }

    /// Records the result of a look-up. Returns whether the set has changed.
    pub(super) fn record(&mut self, found: Result<Vec<Instance>, &Failure>) -> bool {
        self.looked = true;
        self.failing = found.is_err();
        match found {
            Ok(set) if self.instances.as_deref() != Some(&set) => {
                self.instances = Some(set.into());
                self.changes += 1;
                true
            }
            Ok(_) => false,
            Err(_) => {
                self.failures += 1;
                false
            }
        }
    }

    /// Number of instances in the last good set.
    pub fn count(&self) -> usize {
        self.instances.as_ref().map_or(0, |set| set.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: &[u16]) -> Vec<Instance> {
        let instance = |port: &u16| Instance::at(([127, 0, 0, 1], *port).into());
        ports.iter().map(instance).collect()
    }

    #[test]
    fn only_another_set_is_a_change() {
        let mut state = State::default();
        let heavier = vec![Instance { weight: 2, ..set(&[1]).remove(0) }];
        let sets = [set(&[]), set(&[1, 2]), set(&[1, 2]), set(&[1]), heavier.clone(), heavier, set(&[])];
        let changed: Vec<bool> = sets.into_iter().map(|set| state.record(Ok(set))).collect();
        assert_eq!(changed, [true, true, false, true, true, false, true]);
        assert_eq!((state.changes, state.count()), (5, 0));
    }

    #[test]
    fn a_failure_keeps_the_last_good_set_until_the_next_good_answer() {
        let mut state = State::default();
        let failure = Failure::Unknown("app".into());
        assert!(!state.record(Err(&failure)));
        assert_eq!((state.instances.clone(), state.looked, state.failing), (None, true, true));
        assert!(state.record(Ok(set(&[1]))));
        assert!(!state.record(Err(&failure)));
        assert_eq!((state.count(), state.failing, state.failures), (1, true, 2));
        assert!(!state.record(Ok(set(&[1]))));
        assert_eq!((state.count(), state.failing, state.failures), (1, false, 2));
    }
}
