//! Every configuration file that is shipped can be run; every mistake is told in full.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vestibule::config::{self, Config, ForwardedFor, LoadError, Mode, Modes, StoreKind};

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    files.sort();
    files
}

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

fn shipped(name: &str) -> Config {
    config::parse(&text(name), name).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_shipped_file_is_valid() {
    let files = files("config", "toml");
    for file in &files {
        config::load(file).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(files.len(), 6, "{files:?}");
}

#[test]
fn the_mode_is_the_only_line_to_change() {
    let (shared, sticky, local) = (text("shared.toml"), text("sticky.toml"), text("local.toml"));
    for other in [&sticky, &local] {
        assert_eq!(shared.lines().count(), other.lines().count());
        let differing: Vec<_> = shared.lines().zip(other.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(differing.len(), 1);
        assert!(differing[0].0.starts_with("mode = "), "{differing:?}");
    }
    let modes = ["shared.toml", "sticky.toml", "local.toml"].map(|name| shipped(name).session.mode);
    assert_eq!(modes, [Mode::Shared, Mode::Sticky, Mode::Local].map(Modes::One));
}

#[test]
fn the_three_modes_share_four_instances_and_one_store() {
    let config = shipped("sticky.toml");
    let ports: Vec<_> =
        config.upstreams[0].instances.iter().map(|instance| instance.address.port()).collect();
    assert_eq!(ports, [5001, 5002, 5003, 5004]);
    assert!(matches!(config.session.store.kind, StoreKind::Redis(_)));
    assert!(config.upstreams[0].session_control, "`vestibule stub --session-store none` could log nobody in");
}

#[test]
fn dify_is_served_without_looking_into_its_sessions() {
    let config = shipped("dify.toml");
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| (route.path.as_str(), config.upstreams[route.upstream].name.as_str()))
        .collect();
    assert_eq!(
        routes,
        [
            ("/console/api", "api"),
            ("/api", "api"),
            ("/v1", "api"),
            ("/files", "api"),
            ("/mcp", "api"),
            ("/triggers", "api"),
            ("/openapi", "api"),
            ("/socket.io", "api_websocket"),
            ("/e", "plugin_daemon"),
            ("/", "web"),
        ]
    );
    assert!(config.routes.iter().all(|route| !route.session));
    assert_eq!(config.forwarding.x_forwarded_for, ForwardedFor::Replace);
    assert_eq!(config.timeouts.first_byte.as_secs(), 1260);
    assert_eq!(config.timeouts.upstream_keep_alive.as_secs(), 1);
    assert_eq!(config.limits.body_bytes, Some(100 << 20));
}

#[test]
fn dify_is_given_no_more_than_its_workers_take_and_streams_have_time_to_end() {
    let config = shipped("dify.toml");
    let api = &config.upstreams[0];
    assert!(api.instances.iter().all(|instance| instance.max_requests == Some(10)));
    assert_eq!((api.queue.length, api.queue.timeout.as_secs()), (256, 30));
    assert_eq!(api.retry.per_try_timeout, Some(Duration::from_secs(5)));
    assert!(config.admin.is_some());
}

#[test]
fn every_invalid_file_is_told_all_its_problems() {
    let files = files("tests/it/invalid", "toml");
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let problems = config::parse(&fs::read_to_string(file).unwrap(), name).unwrap_err();
        let expected = fs::read_to_string(file.with_extension("txt")).unwrap();
        assert_eq!(format!("{problems}\n"), expected, "{name}");
    }
    assert_eq!(files.len(), 19, "{files:?}");
}

#[test]
fn every_shipped_scenario_is_valid() {
    let files = files("config/scenarios", "toml");
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let scenario = config::parse_scenario(&fs::read_to_string(file).unwrap(), name);
        assert_eq!(scenario.unwrap_or_else(|problems| panic!("{problems}")).name, name);
    }
    assert_eq!(files.len(), 5, "{files:?}");
}

#[test]
fn every_invalid_scenario_is_told_all_its_problems() {
    let files = files("tests/it/invalid/scenarios", "toml");
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let problems = config::parse_scenario(&fs::read_to_string(file).unwrap(), name).unwrap_err();
        let expected = fs::read_to_string(file.with_extension("txt")).unwrap();
        assert_eq!(format!("{problems}\n"), expected, "{name}");
    }
    assert_eq!(files.len(), 5, "{files:?}");
}

#[test]
fn problems_keep_their_text_on_the_way_out_of_load() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/invalid/empty.toml");
    let error = config::load(&file).unwrap_err();
    assert!(matches!(&error, LoadError::Invalid(problems) if problems.to_string() == error.to_string()));
}
