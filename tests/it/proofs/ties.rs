//! In sticky mode a client keeps its instance as long as it can, and nobody can choose theirs.

use std::net::SocketAddr;

use crate::support::client::{self, Client, Response};
use crate::support::config::Config;
use crate::support::service::{Service, send};
use crate::support::vestibule::Program;

const COOKIE: &str = "vestibule-affinity-app";

/// Answers `/STATUS` with this status, its name and the cookies it was sent.
fn instance(name: &'static str) -> Service {
    Service::start(async move |request, wire| {
        let status = request.start_line.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let cookies = request.headers.all("cookie").join("; ");
        send(wire, status, &[("location", "/200")], &format!("{name} {cookies}")).await
    })
}

fn instances() -> [Service; 3] {
    [instance("a"), instance("b"), instance("c")]
}

async fn start(instances: &[Service]) -> Program {
    let addresses: Vec<SocketAddr> = instances.iter().map(Service::address).collect();
    let other: String =
        addresses.iter().map(|address| format!("[[upstream.instance]]\naddress = \"{address}\"\n")).collect();
    let other = format!(
        "[[upstream]]\nname = \"other\"\n{other}[[route]]\nhost = \"other\"\npath = \"/\"\nupstream = \"other\""
    );
    let config = Config::to(&addresses).workers(2).with("[session]\nmode = \"sticky\"").with(&other);
    Program::start(config).await
}

fn name(response: &Response) -> &str {
    response.text().split(' ').next().unwrap()
}

/// The `name=value` of the tie that an answer sets.
fn tie(response: &Response) -> Option<String> {
    let cookie = response.headers.get("set-cookie")?;
    assert!(cookie.starts_with("vestibule-affinity-"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

async fn ask(program: &Program, target: &str, cookie: &str) -> Response {
    client::get_with(program.address, target, &[("Cookie", cookie)]).await
}

/// Fifty requests on one connection and fifty on their own all meet the instance called `expected`.
async fn assert_kept(program: &Program, cookie: &str, expected: &str) {
    let mut kept = Client::connect(program.address).await;
    for _ in 0..50 {
        let same = kept.request("GET", "/200", &[("Cookie", cookie)], b"").await;
        let fresh = ask(program, "/200", cookie).await;
        for response in [same, fresh] {
            assert_eq!((response.status, name(&response), tie(&response)), (200, expected, None));
        }
    }
}

#[tokio::test]
async fn a_client_keeps_its_instance_for_a_hundred_requests_and_gets_another_when_it_dies() {
    let mut instances = instances();
    let program = start(&instances).await;
    let mut answer = client::get(program.address, "/200").await;
    for _ in 1..3 {
        let (cookie, name) = (tie(&answer).unwrap(), name(&answer).to_owned());
        assert_kept(&program, &cookie, &name).await;
        let dying = ["a", "b", "c"].iter().position(|own| *own == name).unwrap();
        instances[dying].kill();
        answer = ask(&program, "/200", &cookie).await;
        assert_eq!(answer.status, 200);
        assert_ne!(self::name(&answer), name);
        assert_ne!(tie(&answer).unwrap(), cookie);
    }
    assert_kept(&program, &tie(&answer).unwrap(), name(&answer)).await;
}

#[tokio::test]
async fn cookies_that_are_not_ours_are_refused_and_replaced_whatever_the_answer() {
    let instances = instances();
    let (program, stranger) = (start(&instances).await, start(&instances).await);
    let good = tie(&client::get(program.address, "/200").await).unwrap();
    let value = good.strip_prefix(&format!("{COOKIE}=")).unwrap();
    let mut bad = vec![
        String::new(),
        instances[0].address().to_string(),
        value[..value.len() - 1].to_owned(),
        format!("{value}A"),
        [value, value].concat(),
        value_of(&client::get(stranger.address, "/200").await),
        value_of(&client::get_with(program.address, "/200", &[("Host", "other")]).await),
    ];
    for place in [0, value.len() / 2, value.len() - 1] {
        let other = if value[place..].starts_with('A') { "B" } else { "A" };
        bad.push(format!("{}{other}{}", &value[..place], &value[place + 1..]));
    }
    for status in [200, 302, 401, 404, 500, 503] {
        let target = format!("/{status}");
        let kept = ask(&program, &target, &good).await;
        assert_eq!((kept.status, tie(&kept)), (status, None));
        for value in &bad {
            let answer = ask(&program, &target, &format!("mine=1; {COOKIE}={value}")).await;
            assert_eq!(answer.status, status, "{value}");
            let new = tie(&answer).unwrap_or_else(|| panic!("{status}: {value} was not replaced"));
            assert!(!bad.contains(&new) && new != good, "{new}");
            assert!(answer.text().ends_with(" mine=1"), "the instance saw a tie: {}", answer.text());
            let next = ask(&program, &target, &new).await;
            assert_eq!((name(&next), tie(&next)), (name(&answer), None));
        }
    }
}

fn value_of(response: &Response) -> String {
    tie(response).unwrap().split_once('=').unwrap().1.to_owned()
}
