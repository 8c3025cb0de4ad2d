//! Who a session can have belonged to, and when, as far as a history tells.

use super::history::{Event, Moment, Name, Told, What, Whom, Write};

/// A time during which the store can have said so. `until`: since when it is certain that it no longer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) user: Option<Name>,
    pub(super) from: Moment,
    pub(super) until: Option<Moment>,
    /// Nobody asked meanwhile, so nobody may remember it.
    pub(super) is_unseen: bool,
}

/// One session.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) epochs: Vec<Epoch>,
    /// Since when it is revoked for good.
    pub(super) dead: Option<Moment>,
    /// A failover may undo that.
    is_durable: bool,
    /// There was a failover, and the store has not been read since.
    unread_since: Option<Moment>,
    /// Nothing about it is certain any more.
    is_abandoned: bool,
    last_write: Moment,
    /// The store had what nobody wrote, or lost what was written.
    pub(super) surprises: usize,
}

impl Life {
    /// The life of `session` by those of the `events` that concern it, in their order; `asked` are the requests
    /// that used it.
    pub(super) fn of(session: &Name, events: &[&Event], asked: &[&Event]) -> Self {
        let mut life = Life::default();
        let unborn = Epoch { user: None, from: Moment::ZERO, until: None, is_unseen: true };
        life.epochs.push(unborn);
        for event in events {
            life.follow(session, event, asked);
        }
        life
    }

    fn follow(&mut self, session: &Name, event: &Event, asked: &[&Event]) {
        match &event.what {
            What::Wrote { session: own, write, is_acknowledged } if own == session => {
                self.write(event, write, *is_acknowledged);
            }
            What::Flushed => self.write(event, &Write::End, true),
            What::Found { session: own, user } if own == session => self.find(event, user.as_ref()),
            What::Revoked { whom: Whom::Session(own), status } if own == session => {
                self.revoke(event, *status);
            }
            What::Revoked { whom: Whom::User(user), status } if self.is_open(Some(user)) => {
                // Of those that no vestibule has seen nothing is promised.
                let is_certain = self.open().count() == 1 && self.was_seen_as(user, event.begun, asked);
                self.revoke(event, if is_certain { *status } else { None });
            }
            What::Failover => self.fail_over(event),
            _ => {}
        }
    }

    fn write(&mut self, event: &Event, write: &Write, is_acknowledged: bool) {
        let user = match write {
            Write::Set(user) => Some(user),
            Write::Login(user) => {
                self.admit(None, event.begun);
                Some(user)
            }
            Write::End => None,
        };
        self.admit(user, event.begun);
        if is_acknowledged {
            self.unread_since = self.unread_since.filter(|since| event.begun < *since);
            self.close_all_but(user, event.ended);
        }
        self.last_write = event.ended;
    }

    fn find(&mut self, event: &Event, user: Option<&Name>) {
        if self.unread_since.is_some_and(|since| event.begun < since) {
            return;
        }
        if !self.is_open(user) {
            self.surprises += 1;
            self.admit(user, self.last_write);
        }
        self.unread_since = None;
        self.close_all_but(user, event.ended);
        self.last_write = event.ended;
    }

    fn revoke(&mut self, event: &Event, status: Option<u16>) {
        self.admit(None, event.begun);
        let is_lost = self.unread_since.is_some_and(|since| event.begun < since);
        match status {
            Some(200) => {
                self.close_all_but(None, event.ended);
                self.dead = self.dead.or(Some(event.ended));
                self.is_durable = true;
            }
            Some(202) if self.dead.is_none() && !is_lost => {
                self.close_all_but(None, event.ended);
                self.dead = Some(event.ended);
            }
            _ => self.is_abandoned |= self.dead.is_none(),
        }
    }

    /// Whatever was there before may be there again.
    fn fail_over(&mut self, event: &Event) {
        self.unread_since = self.unread_since.max(Some(event.ended));
        if self.dead.is_some() && !self.is_durable {
            self.dead = None;
            self.is_abandoned = true;
        }
        let users: Vec<_> = self.epochs.iter().map(|epoch| epoch.user.clone()).collect();
        for user in users {
            self.admit(user.as_ref(), event.begun);
        }
    }

    fn admit(&mut self, user: Option<&Name>, from: Moment) {
        if !self.is_open(user) {
            self.epochs.push(Epoch { user: user.cloned(), from, until: None, is_unseen: false });
        }
    }

    fn close_all_but(&mut self, user: Option<&Name>, until: Moment) {
        if self.is_abandoned || self.unread_since.is_some() {
            return;
        }
        for epoch in &mut self.epochs {
            if epoch.until.is_none() && epoch.user.as_ref() != user {
                epoch.until = Some(until);
            }
        }
    }

    fn open(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter().filter(|epoch| epoch.until.is_none())
    }

    fn is_open(&self, user: Option<&Name>) -> bool {
        self.open().any(|epoch| epoch.user.as_ref() == user)
    }

    fn was_seen_as(&self, user: &Name, before: Moment, asked: &[&Event]) -> bool {
        let since = self.open().find(|epoch| epoch.user.as_ref() == Some(user)).map(|epoch| epoch.from);
        asked.iter().any(|event| {
            let is_own = matches!(&event.what, What::Asked { told: Told::User(told), .. } if told == user);
            is_own && since.is_some_and(|since| event.begun >= since) && event.ended <= before
        })
    }
}
