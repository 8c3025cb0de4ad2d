//! Where logins are kept.

use std::time::Duration;

use serde_json::json;

use super::respond::Refusal;
use super::state::unix_now;
use super::users::User;
use crate::config::{self, Credentials, OnOutage, RedisUrl, StoreFormat, StoreKind};
use crate::secret::{Secret, random_bytes};
use crate::session::{Content, Contents, Fields, MemoryStore, SessionId, StartError, Store, StoreError};

/// Where an instance keeps the sessions of those who logged in.
#[derive(Debug, Clone)]
pub enum Sessions {
    /// In its own memory: other instances do not know them and a restart loses them.
    Memory,
    /// In a Redis that instances share: hashes `session:<id>` with `user_id`, `name`, `email` and `expires`.
    Redis {
        /// `redis://` or `rediss://`
        url: Secret<String>,
    },
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
    /// Must be called in the runtime that serves. Gives a store up to a second to be reached; one that is down
    /// is no error yet.
    pub(super) async fn open(sessions: &Sessions) -> Result<Self, StartError> {
        Ok(match sessions {
            Sessions::Memory => Logins::Records { access: Records::memory(), refresh: Records::memory() },
            Sessions::Redis { url } => Logins::Records {
                access: Records::redis(url, "session:").await?,
                refresh: Records::redis(url, "refresh_token:").await?,
            },
            Sessions::Header => Logins::Proxy,
        })
    }

    /// Sessions kept in this process.
    pub(super) fn active(&self) -> usize {
        match self {
            Logins::Records { access: Records(Store::Memory(memory)), .. } => memory.len(),
            Logins::Records { .. } | Logins::Proxy => 0,
        }
    }
}

/// Users by a secret id, each with an end.
#[derive(Debug)]
pub(super) struct Records(Store);

impl Records {
    const CONNECT: Duration = Duration::from_secs(1);

    fn memory() -> Self {
        Records(Store::Memory(MemoryStore::new()))
    }

    async fn redis(url: &Secret<String>, key_prefix: &str) -> Result<Self, StartError> {
        let config = config::Store {
            kind: StoreKind::Redis(RedisUrl::parse(url.expose()).map_err(|_| StartError::Url)?),
            key_prefix: key_prefix.to_owned(),
            key_suffix: String::new(),
            format: StoreFormat::Hash,
            on_outage: OnOutage::Deny,
            connect_timeout: Self::CONNECT,
            response_timeout: Duration::from_millis(250),
            min_idle: 1,
            max_idle: 1,
            max_connections: 4,
            max_lifetime: None,
            in_flight: 256,
            wait_timeout: Duration::from_millis(100),
            ca: None,
            certificate: None,
            sentinel: Credentials::default(),
        };
        let store = Store::start(&config, &MemoryStore::new())?;
        // Without it the first request would find no connection; later ones are answered either way.
        let _ = tokio::time::timeout(Self::CONNECT, store.connected()).await;
        Ok(Records(store))
    }

    /// The user of `id`, if it exists and has not expired.
    pub(super) async fn load(&self, id: &SessionId) -> Result<Option<User>, Refusal> {
        let record = self.0.load(id, false).await?.found();
        Ok(record.and_then(|record| user(&record.contents)))
    }

    /// Keeps `user` under `id` for `life` seconds.
    pub(super) async fn create(&self, id: &SessionId, user: &User, life: u64) -> Result<(), Refusal> {
        let fields = fields(user, unix_now() + life);
        Ok(self.0.create(id, fields, Duration::from_secs(life)).await?)
    }

    /// Forgets `id`.
    pub(super) async fn end(&self, id: &SessionId) -> Result<(), Refusal> {
        self.0.end(id).await?;
        Ok(())
    }
}

/// A store that does not answer is this instance's fault: a 500, not a logout.
impl From<StoreError> for Refusal {
    fn from(_: StoreError) -> Self {
        Refusal::internal()
    }
}

/// A fresh refresh token: 128 hexadecimal digits.
pub(super) fn new_refresh_token() -> Result<SessionId, Refusal> {
    let bytes = random_bytes::<64>().map_err(|_| Refusal::internal())?;
    Ok(SessionId::new(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

fn fields(user: &User, expires: u64) -> Fields {
    let User { id, name, email } = user;
    let named =
        [("user_id", json!(id)), ("name", json!(name)), ("email", json!(email)), ("expires", json!(expires))];
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn user(contents: &Contents) -> Option<User> {
    let text = |pointer| match contents.find(pointer)? {
        Content::Text(text) => Some(text.into_owned()),
        _ => None,
    };
    Some(User { id: text("/user_id")?, name: text("/name")?, email: text("/email")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::stub::users::authenticate;

    #[test]
    fn a_user_survives_being_written_down() {
        let written = authenticate("u1@example.com", "Passw0rd1").unwrap();
        let fields = fields(&written, 100);
        assert_eq!(fields["expires"], 100);
        assert_eq!(user(&fields.into()), Some(written));
    }

    #[test]
    fn refresh_tokens_have_difys_shape_and_differ() {
        let (a, b) = (new_refresh_token().unwrap(), new_refresh_token().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 128);
        assert!(a.expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
