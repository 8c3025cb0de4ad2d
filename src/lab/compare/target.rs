//! What is compared on: stub instances of our own, or the user's application.

use crate::config::{Application, ApplicationInstance, Mode};

/// The application behind the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Dify-style instances that are started for the purpose.
    Stubs(Stubs),
    /// The user's.
    Own(Application),
}

/// Dify-style instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stubs {
    /// At least 1.
    pub count: usize,
    /// Requests at a time of each; at least 1.
    pub slots: u32,
}

impl Target {
    pub(super) fn count(&self) -> usize {
        match self {
            Target::Stubs(stubs) => stubs.count,
            Target::Own(own) => own.instances.len(),
        }
    }

    /// Whether an instance comes only with the scale-out, when there is one: of stubs the second half.
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

    /// Slots of each instance, as the proxy counts them.
    pub(super) fn slots(&self) -> Option<u32> {
        match self {
            Target::Stubs(stubs) => Some(stubs.slots),
            Target::Own(_) => None,
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Target::Stubs(Stubs { count, slots }) => format!("{count} stub instances of {slots} slots"),
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

/// How an instance of the user's is started in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: String,
    pub(super) environment: Vec<(String, String)>,
}

impl Command {
    /// `None` when somebody else starts it.
    pub(super) fn of(own: &Application, instance: &ApplicationInstance, mode: Mode) -> Option<Command> {
        let (host, port) = (instance.address.ip().to_string(), instance.address.port().to_string());
        let mut environment = vec![("HOST".to_owned(), host), ("PORT".to_owned(), port)];
        let of_mode = own.environment.iter().filter(|(only, ..)| only.is_none_or(|only| only == mode));
        environment.extend(of_mode.map(|(_, name, value)| (name.clone(), value.clone())));
        Some(Command { line: instance.start.clone()?, environment })
    }
}
