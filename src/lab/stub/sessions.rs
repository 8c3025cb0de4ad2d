//! Where logins are kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::respond::Refusal;
use super::state::unix_now;
use super::users::User;
use crate::secret::{Secret, random_bytes};

/// Where an instance keeps the sessions of those who logged in.
#[derive(Debug, Clone)]
pub enum Sessions {
    /// In its own memory: other instances do not know them and a restart loses them.
    Memory,
    /// Nowhere: it believes the `X-User-Id` and `X-User-Name` that the proxy injects, and asks the proxy to
    /// create or end a session with `Vestibule-Session` in its answer.
    Header,
}

/// [`Sessions`] in use.
#[derive(Debug)]
pub(super) enum Logins {
    Records { access: Records, refresh: Records },
    Proxy,
}

impl Logins {
    pub(super) fn open(sessions: &Sessions) -> Self {
        match sessions {
            Sessions::Memory => Logins::Records { access: Records::memory(), refresh: Records::memory() },
            Sessions::Header => Logins::Proxy,
        }
    }

    /// Live sessions kept in this process.
    pub(super) fn active(&self) -> usize {
        match self {
            Logins::Records { access, .. } => access.active(),
            Logins::Proxy => 0,
        }
    }
}

/// A fresh id of `N` random bytes in hexadecimal.
pub(super) fn new_id<const N: usize>() -> Result<Secret<String>, Refusal> {
    let bytes = random_bytes::<N>().map_err(|_| Refusal::internal())?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Users by a secret id, each with an end.
#[derive(Debug)]
pub(super) enum Records {
    Memory(Mutex<Memory>),
}

impl Records {
    fn memory() -> Self {
        Records::Memory(Mutex::default())
    }

    /// The user of `id`, if it exists and has not expired.
    pub(super) async fn load(&self, id: &Secret<String>) -> Result<Option<User>, Refusal> {
        match self {
            Records::Memory(memory) => Ok(lock(memory).load(id, unix_now())),
        }
    }

    /// Keeps `user` under `id` for `life` seconds.
    pub(super) async fn create(&self, id: Secret<String>, user: User, life: u64) -> Result<(), Refusal> {
        match self {
            Records::Memory(memory) => lock(memory).create(id, user, unix_now(), life),
        }
        Ok(())
    }

    /// Forgets `id`.
    pub(super) async fn end(&self, id: &Secret<String>) -> Result<(), Refusal> {
        match self {
            Records::Memory(memory) => lock(memory).records.remove(id),
        };
        Ok(())
    }

    fn active(&self) -> usize {
        match self {
            Records::Memory(memory) => lock(memory).active(unix_now()),
        }
    }
}

/// A panic elsewhere leaves the map whole: every change to it is one call.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    records: HashMap<Secret<String>, Record>,
    /// Size at which expired records are cleared out; doubles, so that clearing stays cheap per login.
    clear_at: usize,
}

#[derive(Debug)]
struct Record {
    user: User,
    /// Seconds since 1970.
    expires: u64,
}

impl Memory {
    fn load(&self, id: &Secret<String>, now: u64) -> Option<User> {
        self.records.get(id).filter(|record| record.expires > now).map(|record| record.user.clone())
    }

    fn create(&mut self, id: Secret<String>, user: User, now: u64, life: u64) {
        if self.records.len() >= self.clear_at {
            self.records.retain(|_, record| record.expires > now);
            self.clear_at = (self.records.len() * 2).max(1024);
        }
        self.records.insert(id, Record { user, expires: now + life });
    }

    fn active(&self, now: u64) -> usize {
        self.records.values().filter(|record| record.expires > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::stub::users::authenticate;

    fn id(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn user() -> User {
        authenticate("u1@example.com", "Passw0rd1").unwrap()
    }

    #[test]
    fn a_record_ends_with_its_life() {
        let mut memory = Memory::default();
        memory.create(id("a"), user(), 100, 10);
        assert_eq!(memory.load(&id("a"), 109), Some(user()));
        assert_eq!(memory.load(&id("a"), 110), None);
        assert_eq!((memory.active(109), memory.active(110)), (1, 0));
    }

    #[test]
    fn expired_records_do_not_pile_up() {
        let mut memory = Memory::default();
        for second in 0..10_000 {
            memory.create(id(&second.to_string()), user(), second, 1);
        }
        assert!(memory.records.len() <= 1024, "{}", memory.records.len());
    }
}
