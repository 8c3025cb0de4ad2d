//! The target of a comparison: stub instances, or the user's application.

use std::time::Duration;

use crate::config::staging::StubStaging;
use crate::config::{Application, ApplicationInstance, Mode};

/// The application behind the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Dify-style stub instances that the comparison starts.
    Stubs(Stubs),
    /// The user's application.
    Own(Application),
}

/// Stub instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stubs {
    /// At least 1.
    pub count: usize,
    /// Concurrent requests per instance; at least 1.
    pub slots: u32,
    /// Median response time of a profile request; other times scale with it. `None`: as in Dify.
    pub answer: Option<Duration>,
    /// Median response time of a login. `None`: scales with `answer`.
    pub login: Option<Duration>,
}

/// Four instances with the concurrency and response times of a Dify worker.
impl Default for Stubs {
    fn default() -> Self {
        Stubs { count: 4, slots: 10, answer: None, login: None }
    }
}

impl Stubs {
    /// With the scenario's settings applied.
    pub fn staged(self, wishes: &StubStaging) -> Self {
        Stubs {
            count: wishes.instances.unwrap_or(self.count),
            slots: wishes.slots.unwrap_or(self.slots),
            answer: wishes.answer.or(self.answer),
            login: wishes.login.or(self.login),
        }
    }

    fn words(&self) -> String {
        let Stubs { count, slots, answer, login } = self;
        let mut words = format!("{count} stub instances of {slots} slots");
        for (what, time) in [("a profile", answer), ("a login", login)] {
            if let Some(time) = time {
                words.push_str(&format!(", {what} takes {} ms", time.as_millis()));
            }
        }
        words
    }
}

impl Target {
    pub(super) fn count(&self) -> usize {
        match self {
            Target::Stubs(stubs) => stubs.count,
            Target::Own(own) => own.instances.len(),
        }
    }

    /// Whether an instance is added only by the scale-out, if there is one. For stubs that is the second
    /// half.
    pub(super) fn comes_later(&self, index: usize) -> bool {
        match self {
            Target::Stubs(stubs) => index >= stubs.count.div_ceil(2),
            Target::Own(own) => own.instances.get(index).is_some_and(|instance| instance.later),
        }
    }

    /// Whether this instance can be stopped and started.
    pub(super) fn can_restart(&self, index: usize) -> bool {
        match self {
            Target::Stubs(_) => true,
            Target::Own(own) => own.instances.get(index).is_some_and(|instance| instance.start.is_some()),
        }
    }

    /// Slots of each instance in the proxy's configuration.
    pub(super) fn slots(&self) -> Option<u32> {
        match self {
            Target::Stubs(stubs) => Some(stubs.slots),
            Target::Own(_) => None,
        }
    }

    /// Longest time until an instance serves.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Target::Stubs(_) => Application::DEFAULT_START_TIMEOUT,
            Target::Own(own) => own.start_timeout,
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Target::Stubs(stubs) => stubs.words(),
            Target::Own(own) => {
                let told = own.instances.iter().map(|instance| {
                    match instance.name == instance.address.to_string() {
                        true => instance.name.clone(),
                        false => format!("{} ({})", instance.name, instance.address),
                    }
                });
                told.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// The start command of a user's instance in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: String,
    pub(super) environment: Vec<(String, String)>,
}

impl Command {
    /// `None` when the instance is started externally.
    pub(super) fn of(own: &Application, instance: &ApplicationInstance, mode: Mode) -> Option<Command> {
        let (host, port) = (instance.address.ip().to_string(), instance.address.port().to_string());
        let mut environment = vec![("HOST".to_owned(), host), ("PORT".to_owned(), port)];
        let of_mode = own.environment.iter().filter(|(only, ..)| only.is_none_or(|only| only == mode));
        environment.extend(of_mode.map(|(_, name, value)| (name.clone(), value.clone())));
        Some(Command { line: instance.start.clone()?, environment })
    }
}
