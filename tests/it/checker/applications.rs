//! Applications that create, change and end sessions at the store, and have them revoked.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis::Pipeline;
use tokio::time::sleep;

use super::clients::revoke;
use super::history::{Moment, Name, What, Whom, Write};
use super::world::{LANES, VESTIBULES, World};
use super::writer::{SHORT_LIFE, Writer};

/// Live sessions of each application, about.
const LIVE: usize = 10;
/// How long an ended session is still used.
const AFTERLIFE: Duration = Duration::from_millis(1_800);
/// Revoked sessions that are still used.
const REMEMBERED: usize = 16;

/// A session that is there, as far as its application knows.
struct Session {
    id: Name,
    user: Name,
    /// When something is to be done with it, and what.
    due: Instant,
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Change,
    Login,
    Delete,
    Expire,
    LiveShortly,
    Revoke,
    RevokeUser,
}

impl Act {
    /// Of 20.
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..20) {
            0..=8 => Act::Change,
            9..=11 => Act::Login,
            12..=13 => Act::Delete,
            14 => Act::Expire,
            15 => Act::LiveShortly,
            16..=17 => Act::Revoke,
            _ => Act::RevokeUser,
        }
    }
}

struct Application {
    world: Arc<World>,
    lane: usize,
    rng: Rng,
    writer: Writer,
    edition: usize,
    sessions: Vec<Session>,
    ended: Vec<(Instant, Name)>,
    names: usize,
}

/// A thread with all applications, until the world is over.
pub(super) fn start(world: &Arc<World>, seed: u64) -> JoinHandle<()> {
    let world = world.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let applications = (0..LANES).map(async |lane| Application::new(&world, lane, seed).run().await);
        runtime.block_on(futures_util::future::join_all(applications));
    })
}

impl Application {
    fn new(world: &Arc<World>, lane: usize, seed: u64) -> Self {
        let rng = Rng::with_seed(seed.wrapping_mul(31).wrapping_add(lane as u64));
        let (sessions, ended, writer) = Default::default();
        let edition = world.truth().edition;
        Self { world: world.clone(), lane, rng, writer, edition, sessions, ended, names: 0 }
    }

    async fn run(&mut self) {
        while !self.world.is_over() {
            self.forget();
            let edition = self.world.truth().edition;
            if self.world.is_hushed() {
                sleep(Duration::from_millis(5)).await; // until something is to be done
            } else if edition != self.edition {
                self.edition = edition;
                self.read_all().await;
            } else if self.sessions.len() < LIVE {
                self.create().await;
            } else if let Some(due) = self.sessions.iter().position(|session| session.due <= Instant::now()) {
                self.act(due).await;
            } else {
                sleep(Duration::from_millis(5)).await; // until something is to be done
            }
        }
    }

    /// One session, or several of one user who is to be locked out soon.
    async fn create(&mut self) {
        let is_group = self.world.locks_out && self.rng.u8(..4) == 0;
        let user = self.user();
        // Its first use lengthens its life: what changes then may be overlooked.
        let is_soon_changed = self.rng.u8(..5) < 3;
        let due = if is_group || is_soon_changed { self.soon(250) } else { self.due() };
        for _ in 0..if is_group { 3 } else { 1 } {
            let id: Name = format!("a{}x{:016x}", self.lane, fastrand::u64(..)).into();
            let user = user.clone();
            let act = match (is_group, is_soon_changed) {
                (true, _) => Act::RevokeUser,
                (false, true) => Act::Change,
                (false, false) => Act::any(&mut self.rng),
            };
            let mut commands = Pipeline::new();
            self.put(&mut commands, &id, &user);
            self.sessions.push(Session { id: id.clone(), user: user.clone(), due, act });
            self.write(&id, &commands, Write::Set(user)).await;
            if self.sessions.iter().any(|session| session.id == id) {
                self.show(&id);
            }
        }
    }

    async fn act(&mut self, index: usize) {
        let Session { id, user, act, .. } = &self.sessions[index];
        let (id, user, act, key) = (id.clone(), user.clone(), *act, format!("session:{id}"));
        self.attend(&id);
        let (due, next) = (self.due(), Act::any(&mut self.rng));
        (self.sessions[index].due, self.sessions[index].act) = (due, next);
        let mut commands = Pipeline::new();
        if self.rng.bool() {
            commands.atomic();
        }
        match act {
            Act::Change => {
                let user = self.user();
                commands.hset(key, "user_id", &*user);
                self.write(&id, &commands, Write::Set(user)).await;
            }
            Act::Login => {
                let user = self.user();
                commands.del(&key);
                self.put(&mut commands, &id, &user);
                self.write(&id, &commands, Write::Login(user)).await;
            }
            Act::Delete => {
                self.write(&id, commands.del(key), Write::End).await;
            }
            Act::Expire => {
                self.write(&id, commands.expire(key, 0), Write::End).await;
            }
            Act::LiveShortly if self.world.renews => {} // whether its use or its end comes first is open
            Act::LiveShortly => {
                self.write(&id, commands.pexpire(key, SHORT_LIFE.as_millis() as i64), Write::End).await;
            }
            Act::RevokeUser if self.world.locks_out => self.revoke(Whom::User(user)).await,
            Act::Revoke | Act::RevokeUser => self.revoke(Whom::Session(id)).await,
        }
    }

    /// Lets these commands, which amount to this write, happen; when nobody knows whether they did, looks.
    async fn write(&mut self, id: &Name, commands: &Pipeline, write: Write) {
        let world = self.world.clone();
        let pass = world.gate.read().await;
        let begun = world.log.now();
        let is_acknowledged = self.writer.send(world.truth().address, commands).await;
        let is_expiring = format!("{commands:?}").contains("PEXPIRE") && write == Write::End;
        let ended = world.log.now() + if is_expiring { SHORT_LIFE } else { Duration::ZERO };
        let event = What::Wrote { session: id.clone(), write: write.clone(), is_acknowledged };
        world.log.add_until(begun, ended, event);
        drop(pass);
        match write {
            _ if !is_acknowledged => self.read(id).await,
            Write::Set(user) | Write::Login(user) => self.know(id, Some(user)),
            Write::End => self.know(id, None),
        }
    }

    async fn revoke(&mut self, whom: Whom) {
        let world = self.world.clone();
        let pass = world.gate.read().await;
        let admin = world.seat(self.rng.usize(..VESTIBULES)).admin;
        let begun = world.log.now();
        let status = revoke(admin, &whom).await;
        world.log.add(begun, What::Revoked { whom: whom.clone(), status });
        drop(pass);
        let is_meant = |session: &Session| match &whom {
            Whom::Session(id) => session.id == *id,
            Whom::User(user) => session.user == *user,
        };
        let over: Vec<Name> = self
            .sessions
            .iter()
            .filter(|session| is_meant(session))
            .map(|session| session.id.clone())
            .collect();
        for id in over {
            self.know(&id, None);
            let mut sessions = world.lanes[self.lane].lock().unwrap();
            sessions.revoked.push(id);
            let surplus = sessions.revoked.len().saturating_sub(REMEMBERED);
            sessions.revoked.drain(..surplus);
        }
    }

    async fn read_all(&mut self) {
        let ids: Vec<Name> = self.sessions.iter().map(|session| session.id.clone()).collect();
        let ended: Vec<Name> = self.ended.iter().map(|(_, id)| id.clone()).collect();
        for id in ids.iter().chain(&ended) {
            self.read(id).await;
        }
    }

    /// Asks the store until it answers who a session belongs to.
    async fn read(&mut self, id: &Name) {
        let world = self.world.clone();
        while !world.is_over() {
            let pass = world.gate.read().await;
            let begun = world.log.now();
            let found = self.writer.read(world.truth().address, id).await;
            if let Some(user) = found {
                world.log.add(begun, What::Found { session: id.clone(), user: user.clone() });
                return self.know(id, user);
            }
            drop(pass);
            sleep(Duration::from_millis(20)).await; // the store is out
        }
    }

    /// Takes note of the user of a session.
    fn know(&mut self, id: &Name, user: Option<Name>) {
        let Some(index) = self.sessions.iter().position(|session| session.id == *id) else { return };
        match user {
            Some(user) => self.sessions[index].user = user,
            None => {
                self.sessions.swap_remove(index);
                self.ended.push((Instant::now() + AFTERLIFE, id.clone()));
                let mut sessions = self.world.lanes[self.lane].lock().unwrap();
                sessions.live.retain(|live| live != id);
                sessions.ended.push(id.clone());
            }
        }
    }

    /// Lets the sessions rest that ended long ago.
    fn forget(&mut self) {
        let over: Vec<Name> =
            self.ended.extract_if(.., |(end, _)| *end <= Instant::now()).map(|(_, id)| id).collect();
        if !over.is_empty() {
            let mut sessions = self.world.lanes[self.lane].lock().unwrap();
            sessions.ended.retain(|id| !over.contains(id));
        }
    }

    /// Lets clients use a session.
    fn show(&self, id: &Name) {
        self.world.lanes[self.lane].lock().unwrap().live.push(id.clone());
        self.attend(id);
    }

    /// Lets clients use a session more than others.
    fn attend(&self, id: &Name) {
        let mut sessions = self.world.lanes[self.lane].lock().unwrap();
        sessions.changing.retain(|other| other != id);
        sessions.changing.push(id.clone());
        let surplus = sessions.changing.len().saturating_sub(3);
        sessions.changing.drain(..surplus);
    }

    fn user(&mut self) -> Name {
        self.names += 1;
        format!("u{}-{}", self.lane, self.names).into()
    }

    /// Often so late that a change that is never heard of comes out before.
    fn due(&mut self) -> Instant {
        match self.rng.u8(..5) {
            0 => self.soon(300),
            _ => self.soon(900) + Duration::from_millis(1_300),
        }
    }

    fn soon(&mut self, millis: u64) -> Instant {
        Instant::now() + Moment::from_millis(self.rng.u64(..millis))
    }

    fn put(&self, commands: &mut Pipeline, id: &str, user: &str) {
        let (key, life) = (format!("session:{id}"), self.world.life.as_millis() as i64);
        commands.hset(&key, "user_id", user).pexpire(&key, life);
    }
}
