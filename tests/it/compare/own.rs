//! The user's own instances, by a file that tells where they are and how they are started.

use super::{Compared, lost, write};
use crate::support::RefusedPort;
use crate::support::stub::Stub;
use crate::support::vestibule::command;

/// A port that nobody listens on.
fn free() -> u16 {
    RefusedPort::new().address().port()
}

/// Two instances of an application that keeps sessions in its memory or in a store, as it is told.
fn application(start: &str, ports: [u16; 2], session: &str) -> String {
    let instances = ports.map(|port| format!("[[instance]]\naddress = \"127.0.0.1:{port}\"\n{start}"));
    format!(
        "version = 1\nhealth = \"/health\"\n{session}\n[env.local]\nSESSION_STORE = \"memory\"\n\
         [env.sticky]\nSESSION_STORE = \"memory\"\n[env.shared]\nSESSION_STORE = \"none\"\n{}",
        instances.concat()
    )
}

#[tokio::test]
async fn instances_are_started_by_their_command_in_each_modes_environment() {
    let program = command().get_program().to_str().unwrap().to_owned();
    let start = format!("start = 'exec {program} stub --listen $HOST:$PORT'\n");
    let session = "session = '''\n[session.store]\nurl = \"memory:\"\n'''";
    let file = write(&application(&start, [free(), free()], session));
    let path = file.path().to_str().unwrap();
    let compared =
        Compared::of(&["--config", path, "--rounds", "1", "--events", "scale-out,instance-killed"]).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let lost_of = |mode: &str| lost(&compared.runs(mode)[0]);
    assert!(lost_of("local") > 0 && lost_of("sticky") > 0);
    assert_eq!(lost_of("shared"), 0);
    assert!(compared.runs("sticky")[0]["oracle"].is_null());
    assert!(compared.stdout.contains("scale-out was left out"), "{}", compared.stdout);
}

#[tokio::test]
async fn events_keep_apart_however_long_an_instance_takes_to_come() {
    let program = command().get_program().to_str().unwrap().to_owned();
    let start = format!("start = 'sleep 2; exec {program} stub --listen $HOST:$PORT'\n");
    let file = write(&application(&start, [free(), free()], "").replacen(
        "[[instance]]",
        "[[instance]]\nlater = true",
        1,
    ));
    let path = file.path().to_str().unwrap();
    let arguments = ["--rounds", "1", "--modes", "local", "--events", "scale-out,instance-killed"];
    let compared = Compared::of(&[&["--config", path], &arguments[..]].concat()).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let events = &compared.runs("local")[0]["events"];
    let at = |event: usize| events[event]["at"].as_f64().unwrap();
    // Half of the second between two events of three seconds; moments are told to the millisecond or better.
    assert!(at(1) - at(0) > 0.499, "{events}");
    let created = compared.json()["created"].clone();
    assert!(
        created.as_str().is_some_and(|created| created.len() == "2026-11-27T22:23:20Z".len()),
        "{created}"
    );
}

#[tokio::test]
async fn instances_that_run_already_are_neither_started_nor_stopped() {
    let (one, other) = (Stub::start(&[]).await, Stub::start(&[]).await);
    let file = write(&application("", [one.address.port(), other.address.port()], ""));
    let path = file.path().to_str().unwrap();
    let compared =
        Compared::of(&["--config", path, "--rounds", "1", "--modes", "sticky", "--duration", "1s"]).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    assert_eq!(lost(&compared.runs("sticky")[0]), 0);
    assert_eq!(compared.runs("sticky")[0]["events"], serde_json::json!([]));
    assert!(one.stats().await["logins"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let file = write("version = 1\nhelth = \"/\"\n[[instance]]\naddress = \"127.0.0.1:1\"\nlater = true\n");
    let compared = Compared::of(&["--config", file.path().to_str().unwrap()]).await;
    assert_eq!(compared.code, Some(1));
    assert!(compared.stderr.contains(":2:1 helth") && compared.stderr.contains("did you mean `health`?"));
    assert!(
        compared.stderr.contains("an instance that comes later cannot be started"),
        "{}",
        compared.stderr
    );
}
