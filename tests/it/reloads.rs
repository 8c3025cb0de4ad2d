//! A running proxy takes on another configuration: whole or not at all, and without anybody's loss.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::service::{Service, begin, chunk};
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, command, write};
use crate::support::{NEVER, metrics, within, ws};

/// What the log says of a reload.
const DONE: &str = "the configuration was reloaded";
const FAILED: &str = "the configuration was not reloaded";
const SAME: &str = "the configuration says nothing new";

const TOKEN: &str = "0123456789abcdef";

fn telling(text: &'static str) -> Service {
    Service::telling(move |_| text.to_owned())
}

#[tokio::test]
async fn new_instances_serve_and_clients_notice_nothing() {
    let (old, new) = (telling("old"), telling("new"));
    let program = Program::start(Config::to(&[old.address()])).await;
    let mut client = Client::connect(program.address).await;
    assert_eq!(client.request("GET", "/", &[], b"").await.text(), "old");
    program.configure(&Config::to(&[new.address()]));
    let line = program.reload(DONE).await;
    assert_eq!(line["changes"], "upstream app: 1 instances added, 1 removed");
    assert_eq!(client.request("GET", "/", &[], b"").await.text(), "new");
    program.reload(SAME).await;
    for (result, count) in [("applied", 1.0), ("unchanged", 1.0), ("failed", 0.0)] {
        let labels = format!("result=\"{result}\"");
        assert_eq!(metrics::read(program.admin, "config_reloads_total", &labels).await, count, "{result}");
    }
}

#[tokio::test]
async fn what_is_kept_knows_what_it_knew() {
    let services = [telling("one"), telling("two"), telling("three")];
    let addresses: Vec<_> = services.iter().map(Service::address).collect();
    let health = "[upstream.health]\npath = \"/\"\ninterval = \"1h\"";
    let config = |instances: &[SocketAddr]| Config::to(instances).instance(health);
    let program = Program::start(config(&addresses[..2])).await;
    let up = "condition=\"up\"";
    metrics::wait_for(program.admin, "upstream_instance_condition", up, 2.0).await;
    for _ in 0..4 {
        client::get(program.address, "/").await;
    }
    let given = async |address: SocketAddr| {
        let labels = format!("instance=\"{address}\"");
        metrics::read(program.admin, "upstream_requests_total", &labels).await
    };
    assert_eq!((given(addresses[0]).await, given(addresses[1]).await), (2.0, 2.0));
    program.configure(&config(&addresses[1..]));
    program.reload(DONE).await;
    metrics::wait_for(program.admin, "upstream_instance_condition", up, 2.0).await;
    assert_eq!(given(addresses[1]).await, 2.0);
    let texts = [client::get(program.address, "/").await, client::get(program.address, "/").await];
    assert!(texts.iter().any(|text| text.text() == "three") && texts.iter().any(|text| text.text() == "two"));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() {
    let (old, new) = (telling("old"), telling("new"));
    let reload = ["Authorization", &format!("Bearer {TOKEN}")].map(str::to_owned);
    let program = Program::start_in(with_token(Config::to(&[old.address()])), &[("TOKEN", TOKEN)]).await;
    let bad = "[limits]\nuri_bytes = \"much\"\n[timeouts]\nconect = \"1s\"";
    program.configure(&with_token(Config::to(&[new.address()]).with(bad)));
    let mut caller = Client::connect(program.admin).await;
    let answer = caller.request("POST", "/api/v1/reload", &[(&reload[0], &reload[1])], b"").await;
    assert_eq!(answer.status, 422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    for part in ["limits.uri_bytes", "did you mean `connect`?", "2 problems in"] {
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    assert_eq!(client::get(program.address, "/").await.text(), "old");
    assert_eq!(metrics::read(program.admin, "config_last_reload_successful", "").await, 0.0);
    assert_eq!(program.said(FAILED).len(), 1);

    std::fs::remove_file(program.config_path()).unwrap();
    let answer = caller.request("POST", "/api/v1/reload", &[(&reload[0], &reload[1])], b"").await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("cannot read the configuration file"));

    program.configure(&with_token(Config::to(&[new.address()])));
    let answer = caller.request("POST", "/api/v1/reload", &[(&reload[0], &reload[1])], b"").await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &"reloaded".into()));
    assert_eq!(client::get(program.address, "/").await.text(), "new");
    assert_eq!(metrics::read(program.admin, "config_last_reload_successful", "").await, 1.0);
    let stranger = caller.request("POST", "/api/v1/reload", &[], b"").await;
    assert_eq!(stranger.status, 401);
}

fn with_token(config: Config) -> Config {
    config.admin("token = \"env:TOKEN\"")
}

#[tokio::test]
async fn a_file_that_changes_what_is_fixed_is_refused_whole() {
    let (old, new) = (telling("old"), telling("new"));
    let program = Program::start(Config::to(&[old.address()])).await;
    program.configure(&Config::to(&[new.address()]).workers(2).with("[limits]\nconnections = 7"));
    let said = program.reload(FAILED).await["error"].as_str().unwrap().to_owned();
    for part in ["workers", "limits.connections", "kill -USR2"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(client::get(program.address, "/").await.text(), "old");
    let _new = program.upgrade(program.process.id(), 0).await;
    assert_eq!(client::get(program.address, "/").await.text(), "new");
}

#[tokio::test]
async fn limits_timeouts_and_headers_take_effect() {
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-real-ip").unwrap_or("none"))).await;
    let config = Config::to(&[upstream.address()]);
    let patient = format!("[timeouts]\nkeep_alive = \"{NEVER}\"");
    let program = Program::start(config.clone().with(&patient)).await;
    let mut client = Client::connect(program.address).await;
    let target = format!("/{}", "x".repeat(200));
    assert_eq!(client.request("GET", &target, &[], b"").await.text(), "127.0.0.1");
    let tables =
        "[limits]\nuri_bytes = \"100B\"\n[forwarding]\nx_real_ip = false\n[timeouts]\nkeep_alive = \"300ms\"";
    program.configure(&config.with(tables));
    let line = program.reload(DONE).await;
    assert_eq!(line["changes"], "limits; timeouts; forwarding");
    assert_eq!(client.request("GET", &target, &[], b"").await.status, 414);
    let mut client = Client::connect(program.address).await;
    assert_eq!(client.request("GET", "/", &[], b"").await.text(), "none");
    client.assert_closed().await;
}

#[tokio::test]
async fn cached_sessions_are_told_as_the_new_identity_wants() {
    let upstream = Upstream::start(|request| {
        let header = |name| request.headers.get(name).unwrap_or("-").to_owned();
        Reply::text(200, &format!("{} {} {}", header("x-user-id"), header("x-a"), header("x-b")))
    })
    .await;
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42"), ("name", "Ada"), ("town", "Bonn")]).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let config = |identity: &str| {
        Config::to(&[upstream.address()]).workers(2).with(&store).with(&format!("[identity]\n{identity}"))
    };
    let program = Program::start(config("preset = \"x-user\"")).await;
    program.wait_for_fresh_cache().await;
    let who = async || {
        let mut texts = Vec::new();
        for _ in 0..8 {
            let answer = client::get_with(program.address, "/", &[("Cookie", "session-id=abc")]).await;
            texts.push(answer.text().to_owned());
        }
        texts.dedup();
        texts
    };
    let cached = async || metrics::read(program.admin, "session_sources_total", "source=\"cache\"").await;
    assert_eq!(who().await, ["42 - -"]);
    assert!(cached().await >= 6.0);
    let headers = |a: &str, b: &str| {
        format!("preset = \"none\"\n[identity.headers]\n\"X-A\" = \"/{a}\"\n\"X-B\" = \"/{b}\"")
    };
    for (identity, told) in [
        (headers("name", "town"), "- Ada Bonn"),
        (headers("town", "name"), "- Bonn Ada"),
        ("preset = \"x-user\"".to_owned(), "42 - -"),
    ] {
        program.configure(&config(&identity));
        program.reload(DONE).await;
        let before = cached().await;
        assert_eq!(who().await, [told]);
        assert!(cached().await >= before + 6.0, "the cache is used as before");
    }
}

#[tokio::test]
async fn sessions_are_found_where_the_new_configuration_says() {
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let config = |session: &str| {
        let tables = format!("[session]\n{session}\n[session.store]\nurl = \"{}\"", redis.url());
        Config::to(&[upstream.address()]).with(&tables)
    };
    let program = Program::start(config("mode = \"local\"")).await;
    let who = async |cookie: &str| {
        client::get_with(program.address, "/", &[("Cookie", cookie)]).await.text().to_owned()
    };
    assert_eq!(who("session-id=abc").await, "nobody");
    program.configure(&config("mode = \"shared\""));
    program.reload(DONE).await;
    assert_eq!(who("session-id=abc").await, "42");
    program.wait_for_fresh_cache().await;
    program.configure(&config("cookie = { name = \"other\" }"));
    program.reload(DONE).await;
    assert_eq!((who("session-id=abc").await, who("other=abc").await), ("nobody".into(), "42".into()));
}

/// An instance whose answers are endless streams.
fn ticking() -> Service {
    Service::start(async |_, wire| {
        begin(wire, "text/event-stream").await?;
        loop {
            chunk(wire, b"data: tick\n\n").await?;
            wire.until(tokio::time::sleep(Duration::from_millis(20))).await?;
        }
    })
}

#[tokio::test]
async fn streams_on_removed_instances_end_by_policy() {
    let other = telling("other");
    for (policy, cut) in [
        ("\"keep\"", None),
        ("{ keep_until = \"3s\" }", Some(Duration::from_secs(3))),
        ("\"close\"", Some(Duration::ZERO)),
    ] {
        let service = ticking();
        let echo = ws::echo_server().await;
        let tables = format!("[reload]\nremoved_streams = {policy}");
        let program = Program::start(Config::to(&[service.address(), echo]).with(&tables)).await;
        let mut client = Client::connect(program.address).await;
        client.send_request("GET", "/", &[], b"").await;
        let mut response = client.start_response().await;
        let mut socket = ws::connect(program.address, "/").await;
        let begun = std::time::Instant::now();
        program.configure(&Config::to(&[other.address()]).with(&tables));
        program.reload(DONE).await;
        assert_eq!(client::get(program.address, "/").await.text(), "other");
        let Some(time) = cut else {
            for _ in 0..20 {
                assert!(client.next_piece(&mut response).await.unwrap().is_some());
            }
            assert_eq!(ws::exchange(&mut socket, "here").await, Message::text("here"));
            continue;
        };
        if !time.is_zero() {
            assert_eq!(ws::exchange(&mut socket, "here").await, Message::text("here"));
        }
        let ended = async { while client.next_piece(&mut response).await.unwrap_or_default().is_some() {} };
        within("the end of the stream", ended).await;
        assert!(begun.elapsed() >= time, "{:?}", begun.elapsed());
        let end = within("the end of the WebSocket", futures_util::StreamExt::next(&mut socket)).await;
        assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
        let removed = async {
            while program.process.stdout().iter().filter(|line| line.contains("\"instance_closed\"")).count()
                < 2
            {
                tokio::time::sleep(Duration::from_millis(5)).await; // lines are for reading, not for waiting
            }
        };
        within("a line for each that says so", removed).await;
    }
}

#[tokio::test]
async fn a_watched_file_is_read_when_it_has_changed() {
    let (old, new) = (telling("old"), telling("new"));
    let watched = |instance: &Service| Config::to(&[instance.address()]).with("[reload]\nwatch = true");
    let program = Program::start(watched(&old)).await;
    program.configure(&watched(&new));
    within("the change", async {
        while client::get(program.address, "/").await.text() != "new" {
            tokio::time::sleep(Duration::from_millis(50)).await; // the program looks once a second
        }
    })
    .await;
}

#[tokio::test]
async fn the_command_tells_what_has_changed_or_what_is_wrong() {
    let (old, new) = (telling("old"), telling("new"));
    let good = |instance: &Service| with_token(Config::to(&[instance.address()]));
    let program = Program::start_in(good(&old), &[("TOKEN", TOKEN)]).await;
    let run = async |name: &'static str| {
        let mut command = calling(name, program.admin);
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    assert_eq!(run("reload").await, (Some(0), "unchanged\n".into(), String::new()));
    program.configure(&good(&new));
    let changes = "reloaded\n  upstream app: 1 instances added, 1 removed\n";
    assert_eq!(run("reload").await, (Some(0), changes.into(), String::new()));
    program.configure(&good(&old).with("[limits]\nuri_bytes = 0"));
    let (code, out, said) = run("reload").await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("limits.uri_bytes") && said.contains("1 problem in"), "{said}");
    let (code, _, said) = run("upgrade").await;
    assert_eq!(code, Some(1));
    assert!(said.contains("ended (exit status: 1)"), "{said}");
    program.configure(&good(&new));
    let (code, said, _) = run("upgrade").await;
    assert_eq!(code, Some(0));
    let process = said.strip_prefix("process ").and_then(|said| said.strip_suffix(" has taken over\n"));
    let _new = crate::support::vestibule::Successor(process.unwrap().parse().unwrap());
    assert_eq!(client::get(program.address, "/").await.text(), "new");
}

/// A file that the running vestibule does not read would be left out without a word.
#[tokio::test]
async fn another_file_is_refused_and_the_right_one_is_named() {
    let old = telling("old");
    let program = Program::start_in(with_token(Config::to(&[old.address()])), &[("TOKEN", TOKEN)]).await;
    let other = write(&with_token(Config::to(&[telling("new").address()])).toml());
    for name in ["reload", "upgrade"] {
        let run = |file: &Path| {
            let mut command = calling(name, program.admin);
            command.arg("-c").arg(file).env("TOKEN", TOKEN).output().unwrap()
        };
        let refused = run(other.path());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let reads = format!(
            "409 Conflict: this vestibule reads its configuration from {}",
            program.config_path().display()
        );
        assert!(said.contains(&reads), "{said}");
        if name == "reload" {
            assert_eq!(run(program.config_path()).status.code(), Some(0));
        }
    }
    assert_eq!(client::get(program.address, "/").await.text(), "old");
}

fn calling(name: &str, admin: SocketAddr) -> Command {
    let mut command = command();
    command.args([name, "--admin", &admin.to_string()]).env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    command
}
