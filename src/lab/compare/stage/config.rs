//! The proxy's configuration for a run.

use std::path::Path;

use crate::config::Application;
use crate::lab::compare::mode::SessionMode;
use crate::lab::compare::target::Target;

/// The environment variable with the proxy's admin token.
pub(super) const TOKEN: &str = "VESTIBULE_COMPARE_TOKEN";
/// Replaces the user's own text.
const NOT_SHOWN: &str = "# ... as `session` of the application's file says";
/// Short enough that session renewals are written during a run.
const IDLE_TIMEOUT: &str = "2m";

/// The text of the configuration file. `instances` is the path of the instance file.
pub(super) fn proxy(target: &Target, mode: SessionMode, store: &str, instances: &Path) -> String {
    let slots = target.slots().map_or(String::new(), |slots| format!("max_requests = {slots}\n"));
    let (health, resolved) = match target {
        Target::Stubs(_) => ("kind = \"http\"\npath = \"/health\"".to_owned(), true),
        Target::Own(own) => match &own.health {
            Some(path) => (format!("kind = \"http\"\npath = {path:?}"), own.session.is_some()),
            None => ("kind = \"tcp\"".to_owned(), own.session.is_some()),
        },
    };
    let upstream = match target {
        Target::Own(Application { upstream: Some(text), .. }) => format!("{}\n", text.trim_end()),
        _ => String::new(),
    };
    let looks = if resolved || !mode.is_shared() { "" } else { "session = false\n" };
    format!(
        "version = 1\n\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\n\
         [access_log]\noutput = \"off\"\n\n\
         {}\n\
         [[upstream]]\nname = \"app\"\nsession_control = true\n{slots}\
         # A run is short: who comes back is believed soon.\n\
         outlier = {{ eject = \"1s\" }}\n\
         {upstream}\
         [upstream.health]\n{health}\ninterval = \"250ms\"\nrise = 1\nfall = 2\n\
         [upstream.discovery]\nfile = {:?}\n\n\
         [[route]]\npath = \"/\"\nupstream = \"app\"\n{looks}\n\
         [admin]\naddress = \"127.0.0.1:0\"\ntoken = \"env:{TOKEN}\"\nready_without_store = false\n",
        session(target, mode, store),
        instances.display().to_string(),
    )
}

fn session(target: &Target, mode: SessionMode, store: &str) -> String {
    let head = format!("[session]\nmode = \"{}\"\n", mode.of_proxy().as_str());
    if !mode.is_shared() {
        return head;
    }
    let renewal = if mode == SessionMode::SharedSynchronous { "renewal = \"sync\"\n" } else { "" };
    let cache = if mode == SessionMode::SharedUncached { "[session.cache]\nenabled = false\n" } else { "" };
    match target {
        Target::Stubs(_) => format!(
            "{head}{renewal}idle_timeout = \"{IDLE_TIMEOUT}\"\n{cache}[session.store]\nurl = {store:?}\n"
        ),
        Target::Own(own) => format!("{head}{renewal}{}\n{cache}", own.session.as_deref().unwrap_or_default()),
    }
}

/// `configuration` for the report, without the user's own session settings, which may contain secrets.
pub(super) fn shown(target: &Target, configuration: &str) -> String {
    let session = match target {
        Target::Own(own) => own.session.as_deref().filter(|session| !session.is_empty()),
        Target::Stubs(_) => None,
    };
    session.map_or_else(|| configuration.to_owned(), |session| configuration.replace(session, NOT_SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::lab::compare::target::Stubs;

    fn parsed(mode: SessionMode) -> config::Config {
        let target = Target::Stubs(Stubs::default());
        let text = proxy(&target, mode, "redis://127.0.0.1:6379/0", Path::new("/tmp/instances.toml"));
        // The variable is not set here.
        let text = text.replace(&format!("token = \"env:{TOKEN}\"\n"), "");
        config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    #[test]
    fn each_mode_has_a_configuration_of_its_own() {
        for mode in SessionMode::ALL {
            let config = parsed(mode);
            assert_eq!(config.session.mode, config::Modes::One(mode.of_proxy()), "{mode:?}");
            assert!(config.upstreams[0].discovery.is_some());
        }
        assert!(parsed(SessionMode::SharedUncached).session.cache.is_none());
        assert!(parsed(SessionMode::Shared).session.cache.is_some());
        assert_ne!(
            parsed(SessionMode::Shared).session.renewal,
            parsed(SessionMode::SharedSynchronous).session.renewal
        );
    }

    #[test]
    fn own_instances_get_the_upstream_that_their_file_says() {
        let upstream = "max_requests = 7\n[upstream.queue]\ntimeout = \"40s\"\n";
        let text = format!(
            "version = 1\nupstream = '''\n{upstream}'''\n[[instance]]\naddress = \"127.0.0.1:5001\"\n"
        );
        let own = config::parse_application(&text, "test").unwrap_or_else(|problems| panic!("{problems}"));
        let text = proxy(&Target::Own(own), SessionMode::Local, "memory:", Path::new("/tmp/instances.toml"));
        assert!(text.contains("max_requests = 7\n"), "{text}");
        let text = text.replace(&format!("token = \"env:{TOKEN}\"\n"), "");
        let config = config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let upstream = &config.upstreams[0];
        assert_eq!(upstream.queue.timeout.as_secs(), 40);
        assert!(upstream.health.is_some() && upstream.discovery.is_some());
    }

    #[test]
    fn no_report_shows_what_the_user_says_of_sessions() {
        let session = "[session.store]\nurl = \"redis://:hunter2@127.0.0.1/0\"\n";
        let text =
            format!("version = 1\nsession = '''\n{session}'''\n[[instance]]\naddress = \"127.0.0.1:5001\"\n");
        let own = config::parse_application(&text, "test").unwrap_or_else(|problems| panic!("{problems}"));
        let target = Target::Own(own);
        let full = proxy(&target, SessionMode::Shared, "memory:", Path::new("/tmp/instances.toml"));
        assert!(full.contains("hunter2"));
        let shown = shown(&target, &full);
        assert!(!shown.contains("hunter2") && shown.contains(NOT_SHOWN), "{shown}");
    }
}
