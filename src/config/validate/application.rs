//! The file that tells a comparison of the user's own application.

use super::http_text::target;
use super::upstream::instance_address;
use crate::config::application::{Application, ApplicationInstance};
use crate::config::fault::Fault;
use crate::config::model::Mode;
use crate::config::section::Section;
use crate::config::value::{boolean, text};

/// Reads the whole file. `None` was reported.
pub(in crate::config) fn application(s: &mut Section<'_>) -> Option<Application> {
    super::version(s);
    let health = s.optional("health", target);
    let session = s.optional("session", |node| text(node).map(str::to_owned));
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
    (!instances.is_empty()).then_some(Application { health, session, environment, instances })
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
