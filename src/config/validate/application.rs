//! The application file of a comparison.

use super::http_text::target;
use super::upstream::instance_address;
use crate::config::application::{Application, ApplicationInstance};
use crate::config::fault::Fault;
use crate::config::mode::Mode;
use crate::config::section::Section;
use crate::config::value::{boolean, duration, text};

/// Reads the whole file. `None` has been reported.
pub(in crate::config) fn application(s: &mut Section<'_>) -> Option<Application> {
    super::version(s);
    let health = s.optional("health", target);
    let session = s.optional("session", |node| text(node).map(str::to_owned));
    let upstream = s.optional("upstream", |node| text(node).map(str::to_owned));
    let start_timeout = s.value("start_timeout", duration, Application::DEFAULT_START_TIMEOUT);
    let environment = s.table("env", environment);
    let mut instances: Vec<ApplicationInstance> = Vec::new();
    let read = |s: &mut Section<'_>| (s.own_spot(), instance(s));
    for (spot, instance) in s.tables("instance", "there would be nothing to compare on", read) {
        let Some(instance) = instance else { continue };
        if instances.iter().any(|other| other.address == instance.address || other.name == instance.name) {
            let why = "figures and events could not tell them apart";
            s.fault(
                spot,
                Fault::new("there is such an instance already", why, "give each its own name and address"),
            );
        } else {
            instances.push(instance);
        }
    }
    if instances.iter().any(|instance| instance.later && instance.start.is_none()) {
        let help = "give it a `start` command, or leave `later` out";
        let what = "an instance that comes later cannot be started";
        s.fault(s.spot("instance"), Fault::new(what, "the scale-out needs nobody's help", help));
    }
    (!instances.is_empty()).then_some(Application {
        health,
        session,
        upstream,
        start_timeout,
        environment,
        instances,
    })
}

fn environment(s: &mut Section<'_>) -> Vec<(Option<Mode>, String, String)> {
    let tables = [
        ("all", None),
        ("local", Some(Mode::Local)),
        ("sticky", Some(Mode::Sticky)),
        ("shared", Some(Mode::Shared)),
    ];
    let mut all = Vec::new();
    for (key, mode) in tables {
        let entries = s.entries(key, |name, node| Ok((name.to_owned(), text(node)?.to_owned())));
        all.extend(entries.into_iter().map(|(_, (name, value))| (mode, name, value)));
    }
    all
}

fn instance(s: &mut Section<'_>) -> Option<ApplicationInstance> {
    let start = s.optional("start", |node| text(node).map(str::to_owned));
    let later = s.value("later", boolean, false);
    let name = s.optional("name", |node| text(node).map(str::to_owned));
    let why = "it is where requests are sent";
    let address = s.required("address", why, "\"127.0.0.1:5001\"", instance_address)?;
    Some(ApplicationInstance { name: name.unwrap_or_else(|| address.to_string()), address, start, later })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{Mode, parse_application};

    #[test]
    fn the_example_has_every_key_and_is_sound() {
        let text = include_str!("../../../config/applications/own.toml");
        let own = parse_application(text, "own.toml").unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(own.health.as_deref(), Some("/health"));
        assert_eq!(own.start_timeout, Duration::from_secs(90));
        assert_eq!(own.instances.iter().map(|instance| instance.later).collect::<Vec<_>>(), [false, true]);
        assert_eq!(own.instances[1].name, "127.0.0.1:5002");
        let of = |mode| own.environment.iter().filter(|(only, ..)| *only == mode).count();
        assert_eq!([None, Some(Mode::Local), Some(Mode::Sticky), Some(Mode::Shared)].map(of), [1; 4]);
        for key in ["health", "session", "upstream", "start_timeout", "name", "address", "start", "later"] {
            assert!(text.contains(&format!("{key} = ")), "{key}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "version = 1\n[env]\nshred = {}\n[[instance]]\naddress = '127.0.0.1:1'\nlater = true\n\
                    [[instance]]\naddress = '127.0.0.1:1'\n";
        let problems = parse_application(text, "own.toml").unwrap_err();
        let places: Vec<_> =
            problems.iter().map(|problem| (problem.place.line, problem.what.as_str())).collect();
        assert_eq!(
            places,
            [
                (3, "unknown key \"shred\""),
                (4, "an instance that comes later cannot be started"),
                (7, "there is such an instance already"),
            ]
        );
    }
}
