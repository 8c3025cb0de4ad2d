//! The store, the connection and the cache at one moment.

use super::Rules;

/// In ticks.
pub(super) const LEASE: u8 = 2;
/// That there is no session.
pub(super) const ABSENT: u8 = 0;
/// What the session is at first.
pub(super) const FIRST: u8 = 1;
/// What the other database has under its key.
pub(super) const ELSEWHERE: u8 = 2;
/// What the next change makes of it.
pub(super) const CHANGED: u8 = 3;
pub(super) const CONTENTS: usize = 6;

/// An age: it is what the store has.
pub(super) const CURRENT: u8 = 255;
/// It was replaced in this turn, which nobody has been told yet.
pub(super) const UNSAID: u8 = 254;

/// How often things happen at most. Beats, look-ups and ticks are not counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// By other programs: another user, or its end.
    pub(super) changes: u8,
    pub(super) renewals: u8,
    /// Connections lost, reports lost, flushes.
    pub(super) faults: u8,
    pub(super) swaps: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Report {
    Session,
    Beat,
    Flushed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    Other,
    Listener,
    Ours,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) left: Bounds,
    /// What each database has.
    pub(super) data: [u8; 2],
    pub(super) database: usize,
    pub(super) next: u8,
    /// For each content how long ago it was replaced, saturating at a lease.
    pub(super) ages: [u8; CONTENTS],
    /// Who was the last to change the session in this turn.
    pub(super) changed_by: Option<Writer>,
    /// A beat was written in this turn.
    pub(super) has_beaten: bool,
    /// In which database the last beat is.
    pub(super) beat_in: Option<usize>,
    pub(super) renewing: bool,
    /// Reports get through.
    pub(super) heard: bool,
    pub(super) reports: Vec<Report>,
    pub(super) linked: bool,
    pub(super) lease: u8,
    pub(super) beat: Option<Beat>,
    pub(super) cached: Option<u8>,
    pub(super) look_up: Option<LookUp>,
    /// Contents that were current since the last beat was sent that has been heard; a bit each.
    pub(super) proven: u8,
}

/// A beat that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beat {
    pub(super) age: u8,
    /// Whether it found the one before it.
    pub(super) run: Option<bool>,
    pub(super) heard: bool,
    /// Contents that were current since it was sent.
    pub(super) since: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LookUp {
    pub(super) read: Option<u8>,
    pub(super) invalidated: bool,
    pub(super) is_of_this_generation: bool,
    /// It has read the data in which the last beat was.
    pub(super) is_marked: bool,
}

impl LookUp {
    pub(super) const NEW: LookUp =
        LookUp { read: None, invalidated: false, is_of_this_generation: true, is_marked: true };
}

impl State {
    pub(super) fn current(&self) -> u8 {
        self.data[self.database]
    }

    /// Contents that are current as far as anybody can know.
    pub(super) fn current_contents(&self) -> u8 {
        (0..CONTENTS)
            .filter(|content| self.ages[*content] >= UNSAID)
            .fold(0, |mask, content| mask | 1 << content)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.cached.is_some() && self.lease > 0
    }

    pub(super) fn put(&mut self, content: u8) {
        self.data[self.database] = content;
        self.note_current();
    }

    pub(super) fn note_current(&mut self) {
        let current = self.current();
        for (content, age) in self.ages.iter_mut().enumerate() {
            match (content == usize::from(current), *age) {
                (true, _) => *age = CURRENT,
                (false, CURRENT) => *age = UNSAID,
                _ => (),
            }
        }
        self.proven |= 1 << current;
        if let Some(beat) = &mut self.beat {
            beat.since |= 1 << current;
        }
    }

    pub(super) fn change_beat(&mut self, change: impl FnOnce(&mut Beat)) {
        if let Some(beat) = &mut self.beat {
            change(beat);
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        if self.linked && self.heard {
            self.reports.push(report);
        }
    }

    pub(super) fn end_turn(&mut self, rules: Rules, beats_first: bool) {
        let session = self.changed_by.take();
        let session = session.filter(|writer| rules.writes_apart || *writer != Writer::Listener);
        let beat = std::mem::take(&mut self.has_beaten);
        if beats_first && beat {
            self.report(Report::Beat);
        }
        if session.is_some() {
            self.report(Report::Session);
        }
        if !beats_first && beat {
            self.report(Report::Beat);
        }
        self.ages.iter_mut().filter(|age| **age == UNSAID).for_each(|age| *age = 0);
    }

    pub(super) fn begin_generation(&mut self) {
        self.cached = None;
        if let Some(look_up) = &mut self.look_up {
            look_up.is_of_this_generation = false;
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.begin_generation();
        if let Some(look_up) = &mut self.look_up {
            look_up.invalidated = true;
        }
    }

    pub(super) fn hear(&mut self) {
        match self.reports.remove(0) {
            Report::Session => {
                self.cached = None;
                if let Some(look_up) = &mut self.look_up {
                    look_up.invalidated = true;
                }
            }
            Report::Flushed => self.forget_all(),
            Report::Beat => {
                if let Some(beat) = &mut self.beat {
                    beat.heard = true;
                }
            }
        }
    }

    pub(super) fn extend_lease(&mut self, rules: Rules) {
        let Some(beat) = self.beat.take() else { return };
        if beat.run == Some(false) && rules.minds_missing_beats {
            self.forget_all();
        }
        let spent = if rules.counts_from_sending { beat.age } else { 0 };
        self.lease = self.lease.max(LEASE - spent);
        self.proven = beat.since;
    }

    pub(super) fn land(&mut self, rules: Rules) {
        let Some(look_up) = self.look_up.take() else { return };
        if look_up.invalidated && rules.drops_invalidated {
            self.look_up = Some(LookUp::NEW);
            return;
        }
        let is_kept = (look_up.is_of_this_generation || !rules.reads_generation_first)
            && (look_up.is_marked || !rules.reads_marks);
        self.cached = look_up.read.filter(|_| is_kept);
    }

    pub(super) fn lose_connection(&mut self) {
        (self.linked, self.heard, self.has_beaten, self.renewing) = (false, false, false, false);
        (self.lease, self.beat) = (0, None);
        self.reports.clear();
    }

    pub(super) fn connect(&mut self, rules: Rules) {
        (self.linked, self.heard, self.beat_in) = (true, true, Some(self.database));
        if rules.begins_anew {
            self.begin_generation();
        }
        self.proven = self.current_contents();
    }

    pub(super) fn tick(&mut self) {
        self.lease = self.lease.saturating_sub(1);
        self.ages.iter_mut().filter(|age| **age < LEASE).for_each(|age| *age += 1);
        if let Some(beat) = &mut self.beat {
            beat.age = (beat.age + 1).min(LEASE);
        }
    }

    /// Makes states equal that differ only in what matters no more.
    pub(super) fn tidy(&mut self, rules: Rules) {
        if let Some(look_up) = &mut self.look_up
            && look_up.invalidated
            && rules.drops_invalidated
        {
            look_up.read = look_up.read.and(Some(ABSENT));
            (look_up.is_of_this_generation, look_up.is_marked) = (true, true);
        }
        let (read, cached) = (self.look_up.and_then(|look_up| look_up.read), self.cached);
        let known =
            [Some(self.current()), read, cached].into_iter().flatten().fold(0, |mask, one| mask | 1 << one);
        for (content, age) in self.ages.iter_mut().enumerate() {
            let is_said = known & 1 << content == 0 && *age != UNSAID;
            if is_said {
                *age = LEASE;
            }
        }
        self.proven = if self.lease > 0 { self.proven & known } else { 0 };
        if let Some(beat) = &mut self.beat {
            beat.since &= known;
        }
    }
}
