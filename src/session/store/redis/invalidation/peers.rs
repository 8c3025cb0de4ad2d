//! Other vestibules that share the store, and which servers they have told of the ends that they remember.
//!
//! A server that takes the place of another may not have all ends of sessions. A vestibule that remembers them tells it; until
//! all have, a vestibule that knows nothing of them would honour what has ended. So each notes at the store which
//! servers it has told, and none believes a new server before all others have.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::{Instant, sleep};

use super::super::super::super::StoreError;
use super::super::codec::PEERS;
use super::super::reply;
use super::super::topology::{ADMISSION, RunId};
use super::links::Links;

/// That another one has told is not announced: the notes are read this often.
const PAUSE: Duration = Duration::from_millis(20);
/// A note is made again after this long: another vestibule may have removed it.
const PERIOD: Duration = Duration::from_secs(5);
/// Who has noted nothing for this long has gone.
const SILENCE: Duration = Duration::from_secs(20);
/// Of a store that does not tell its time: no vestibule is taken for silent.
const UNTOLD: Duration = Duration::from_secs(u32::MAX as u64);
/// Notes stay for so long without any vestibule.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// This vestibule as one of them.
pub(super) struct Peers {
    me: String,
}

impl Peers {
    pub(super) fn new() -> Self {
        Peers { me: format!("{:032x}", fastrand::u128(..)) }
    }

    /// When the note is to be made again that was made now.
    pub(super) fn next_note() -> Instant {
        Instant::now() + PERIOD
    }

    /// Makes the note again when it is time, and looks who has gone.
    pub(super) async fn keep_up(&self, links: &Links, next: &mut Instant) {
        if Instant::now() >= *next {
            *next = Self::next_note();
            self.note(links).await;
            self.forget_silent(links).await;
        }
    }

    /// Notes that these servers have been told, and when. A store that does not take it leaves others to wait for
    /// nothing.
    pub(super) async fn note(&self, links: &Links) {
        let now = self.ask(links, cmd("TIME")).await.ok().as_ref().and_then(reply::time).unwrap_or(UNTOLD);
        let (mut note, mut keep) = (cmd("HSET"), cmd("EXPIRE"));
        note.arg(PEERS).arg(&self.me).arg(format!("{} {}", now.as_secs(), names(links).join(" ")));
        keep.arg(PEERS).arg(KEPT.as_secs());
        self.send(links, [note, keep]).await;
    }

    /// Takes others for gone that have noted nothing for long. Not to be called right after a failover: what the new
    /// primary has of their notes may be old.
    async fn forget_silent(&self, links: &Links) {
        let Ok(now) = self.ask(links, cmd("TIME")).await else { return };
        let Some(oldest) = reply::time(&now).map(|now| now.saturating_sub(SILENCE).as_secs()) else { return };
        let is_silent = |note: &Note| note.at < oldest && note.vestibule != self.me;
        let Ok(notes) = self.notes(links).await else { return };
        let silent = notes.into_iter().filter(is_silent).map(|note| note.vestibule);
        self.forget(links, silent.collect()).await;
    }

    /// Waits until all others have told these servers, but no longer than any server is kept waiting; those that have
    /// not by then are taken for gone.
    ///
    /// # Errors
    /// The store gave no answer, so it is unknown who has told it.
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

    /// Lets others not wait for us any more.
    pub(super) async fn leave(&self, links: &Links) {
        self.forget(links, vec![self.me.clone()]).await;
    }

    /// Others that have not told all of these servers.
    async fn behind(&self, links: &Links) -> Result<Vec<String>, StoreError> {
        let names = names(links);
        let is_behind =
            |note: &Note| note.vestibule != self.me && !names.iter().all(|name| note.told.contains(&**name));
        let notes = self.notes(links).await?.into_iter();
        Ok(notes.filter(is_behind).map(|note| note.vestibule).collect())
    }

    /// What all have noted; nothing where we may not ask.
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

/// Of those that own keys: others have met no more of the rest than we have.
fn names(links: &Links) -> Vec<RunId> {
    let primaries = links.layout.primaries().iter().enumerate();
    primaries.filter(|(index, _)| links.layout.owns_keys(*index)).map(|(_, primary)| primary.name()).collect()
}

/// What a vestibule has noted: `<unix seconds> <server> …`
struct Note {
    vestibule: String,
    at: u64,
    told: BTreeSet<String>,
}

/// What is no note is left out.
fn notes(reply: &Value) -> Vec<Note> {
    let note = |(vestibule, note): (&Value, &Value)| {
        let mut words = reply::text(note)?.split(' ');
        let (vestibule, at) = (reply::text(vestibule)?.to_owned(), words.next()?.parse().ok()?);
        Some(Note { vestibule, at, told: words.map(str::to_owned).collect() })
    };
    reply.as_map_iter().into_iter().flatten().filter_map(note).collect()
}
