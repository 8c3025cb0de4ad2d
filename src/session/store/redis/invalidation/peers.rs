//! The other vestibule processes that share the store, and the servers that each has written its tombstones
//! to.
//!
//! A newly promoted server may lack recent tombstones. Each process that remembers them writes them again.
//! Until all have done so, a process without them would accept sessions that have been revoked. Therefore
//! each process notes in the store which servers it has written to, and none admits a new primary before all
//! others have noted it.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::{Instant, sleep};

use super::super::super::super::StoreError;
use super::super::codec::PEERS;
use super::super::reply;
use super::super::topology::{ADMISSION, RunId};
use super::links::Links;

/// Interval at which the notes are read while waiting. Changes to them cause no notification.
const PAUSE: Duration = Duration::from_millis(20);
/// Interval at which the note is rewritten, because another process may have removed it.
const PERIOD: Duration = Duration::from_secs(5);
/// A process whose note is older than this is considered gone.
const SILENCE: Duration = Duration::from_secs(20);
/// The time in a note when the store does not report its time. It never counts as too old.
const UNTOLD: Duration = Duration::from_secs(u32::MAX as u64);
/// TTL of the notes after the last process has exited.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// The identity of this process among its peers.
pub(super) struct Peers {
    me: String,
}

impl Peers {
    pub(super) fn new() -> Self {
        Peers { me: format!("{:032x}", fastrand::u128(..)) }
    }

    /// The time of the next note, counted from now.
    pub(super) fn next_note() -> Instant {
        Instant::now() + PERIOD
    }

    /// Rewrites the note when it is due, and removes the notes of processes that are gone.
    pub(super) async fn keep_up(&self, links: &Links, next: &mut Instant) {
        if Instant::now() >= *next {
            *next = Self::next_note();
            self.note(links).await;
            self.forget_silent(links).await;
        }
    }

    /// Notes that this process has written its tombstones to these servers, and when. A failure is only
    /// logged; without a note, other processes do not wait for this one.
    pub(super) async fn note(&self, links: &Links) {
        let now = self.ask(links, cmd("TIME")).await.ok().as_ref().and_then(reply::time).unwrap_or(UNTOLD);
        let (mut note, mut keep) = (cmd("HSET"), cmd("EXPIRE"));
        note.arg(PEERS).arg(&self.me).arg(format!("{} {}", now.as_secs(), names(links).join(" ")));
        keep.arg(PEERS).arg(KEPT.as_secs());
        self.send(links, [note, keep]).await;
    }

    /// Removes the notes of processes that have not rewritten them for [`SILENCE`]. Must not be called right
    /// after a failover: the notes on the new primary may be outdated.
    async fn forget_silent(&self, links: &Links) {
        let Ok(now) = self.ask(links, cmd("TIME")).await else { return };
        let Some(oldest) = reply::time(&now).map(|now| now.saturating_sub(SILENCE).as_secs()) else { return };
        let is_silent = |note: &Note| note.at < oldest && note.vestibule != self.me;
        let Ok(notes) = self.notes(links).await else { return };
        let silent = notes.into_iter().filter(is_silent).map(|note| note.vestibule);
        self.forget(links, silent.collect()).await;
    }

    /// Waits until all other processes have noted these servers, for at most [`ADMISSION`]. Removes the notes
    /// of those that have not by then.
    ///
    /// # Errors
    /// The store did not reply, so the notes are unknown.
    pub(super) async fn wait_for_others(&self, links: &Links) -> Result<(), StoreError> {
        let deadline = Instant::now() + ADMISSION;
        loop {
            let behind = self.behind(links).await?;
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::info!(
                    vestibules = behind.len(),
                    "other vestibules have not told the session store's new primary what they remember: taking them for gone"
                );
                self.forget(links, behind).await;
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// Removes the note of this process, so that others do not wait for it.
    pub(super) async fn leave(&self, links: &Links) {
        self.forget(links, vec![self.me.clone()]).await;
    }

    /// Other processes that have not noted all of these servers.
    async fn behind(&self, links: &Links) -> Result<Vec<String>, StoreError> {
        let names = names(links);
        let is_behind =
            |note: &Note| note.vestibule != self.me && !names.iter().all(|name| note.told.contains(&**name));
        let notes = self.notes(links).await?.into_iter();
        Ok(notes.filter(is_behind).map(|note| note.vestibule).collect())
    }

    /// The notes of all processes; empty if the ACL forbids reading them.
    async fn notes(&self, links: &Links) -> Result<Vec<Note>, StoreError> {
        let mut all = cmd("HGETALL");
        all.arg(PEERS);
        match self.ask(links, all).await {
            Err(error) if error.is_refusal() => Ok(Vec::new()),
            all => Ok(notes(&all?)),
        }
    }

    async fn forget(&self, links: &Links, vestibules: Vec<String>) {
        if !vestibules.is_empty() {
            let mut forget = cmd("HDEL");
            forget.arg(PEERS).arg(vestibules);
            self.send(links, [forget]).await;
        }
    }

    async fn ask(&self, links: &Links, command: Cmd) -> Result<Value, StoreError> {
        let errands = links.errands(std::iter::once((command, ())));
        let errand = errands.first().ok_or(StoreError::PrimaryDown)?;
        let mut answers = errand.send().await.map_err(reply::kind_of)?;
        reply::checked(Ok(answers.pop().unwrap_or(Value::Nil)))
    }

    async fn send<const N: usize>(&self, links: &Links, commands: [Cmd; N]) {
        for command in commands {
            if let Err(error) = self.ask(links, command).await {
                tracing::debug!(reason = error.kind(), "nothing could be noted for other vestibules");
            }
        }
    }
}

/// The names of the primaries that own slots. Those without slots are left out: each process adds them on its
/// own when it is redirected to them, so processes need not agree on them.
fn names(links: &Links) -> Vec<RunId> {
    let primaries = links.layout.primaries().iter().enumerate();
    primaries.filter(|(index, _)| links.layout.owns_keys(*index)).map(|(_, primary)| primary.name()).collect()
}

/// The note of a process, stored as `<unix seconds> <server> …`.
struct Note {
    vestibule: String,
    at: u64,
    told: BTreeSet<String>,
}

/// Decodes the notes. Malformed ones are skipped.
fn notes(reply: &Value) -> Vec<Note> {
    let note = |(vestibule, note): (&Value, &Value)| {
        let mut words = reply::text(note)?.split(' ');
        let (vestibule, at) = (reply::text(vestibule)?.to_owned(), words.next()?.parse().ok()?);
        Some(Note { vestibule, at, told: words.map(str::to_owned).collect() })
    };
    reply.as_map_iter().into_iter().flatten().filter_map(note).collect()
}
