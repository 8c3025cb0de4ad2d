//! Modes compared on live traffic: every session keeps its cohort, each cohort is served as its mode serves, and what
//! the other mode would have done is counted.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::NamedTempFile;
use vestibule::config::{Mode, Modes, Percent, Shares};

use crate::support::client::{Client, Response, get_with};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, Vestibule, command, write};

const HALVES: &str = "[session]\nmode = { compare = { shared = 50, sticky = 50 } }";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn affinity() -> (NamedTempFile, String) {
    let file = write(SECRET);
    let table = format!("[affinity]\nsecret = \"file:{}\"", file.path().display());
    (file, table)
}

fn shares(shared: f64, sticky: f64) -> Modes {
    Modes::Compare(Shares::new([Percent::new(shared), Percent::new(sticky), None]).unwrap())
}

/// Instances that answer with their name and the user that they were told.
async fn instances(redis: Option<&Redis>, sessions: usize) -> [Upstream; 3] {
    for session in 0..redis.map_or(0, |_| sessions) {
        redis.unwrap().put_session(&format!("s{session}"), &[("user_id", "42")]).await;
    }
    let named = async |name: &'static str| {
        Upstream::start(move |request| {
            let user = request.headers.get("x-user-id").unwrap_or("nobody");
            Reply::text(200, &format!("{name} {user}"))
        })
        .await
    };
    [named("a").await, named("b").await, named("c").await]
}

fn config(instances: &[Upstream]) -> Config {
    Config::to(&instances.iter().map(Upstream::address).collect::<Vec<_>>())
}

/// A browser: it keeps cookies.
#[derive(Clone, Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    fn logged_in(session: &str) -> Self {
        Browser(BTreeMap::from([("session-id".to_owned(), session.to_owned())]))
    }

    async fn get(&mut self, address: SocketAddr) -> Response {
        let cookies: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = get_with(address, "/", &[("Cookie", &cookies.join("; "))]).await;
        assert_eq!(answer.status, 200);
        for cookie in answer.headers.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.0.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// The instance that answered.
    async fn meet(&mut self, address: SocketAddr) -> char {
        self.get(address).await.text().chars().next().unwrap()
    }

    /// The cohort of a client with a session, which only shared mode resolves.
    async fn cohort(&mut self, address: SocketAddr) -> Mode {
        match self.get(address).await.text().split(' ').nth(1).unwrap() {
            "42" => Mode::Shared,
            _ => Mode::Sticky,
        }
    }
}

#[tokio::test]
async fn ten_thousand_sessions_are_split_within_one_percent() {
    let instances = instances(None, 0).await;
    let (_file, affinity) = affinity();
    let proxy = Vestibule::start(config(&instances).with(HALVES).with(&affinity)).await;
    let send = async |client: usize| {
        let mut connection = Client::connect(proxy.address()).await;
        for session in (0..10_000).filter(|session| session % 8 == client) {
            let cookie = format!("session-id=session-{session}");
            assert_eq!(connection.request("GET", "/", &[("Cookie", &cookie)], b"").await.status, 200);
        }
    };
    futures_util::future::join_all((0..8).map(send)).await;
    let of = async |mode: &str| proxy.metric("http_requests_total", &format!("mode=\"{mode}\"")).await;
    let (shared, sticky) = (of("shared").await, of("sticky").await);
    assert_eq!(shared + sticky, 10_000.0);
    assert!((shared - 5_000.0).abs() <= 100.0, "{shared}");
}

#[tokio::test]
async fn nobody_changes_over_requests_shares_and_another_vestibule_with_the_secret() {
    let redis = Redis::start().await;
    let instances = instances(Some(&redis), 60).await;
    let (_file, affinity) = affinity();
    let config = config(&instances).with(&format!("{HALVES}\n[session.store]\nurl = \"{}\"", redis.url()));
    let proxy = Vestibule::start(config.clone().with(&affinity)).await;
    let other = Vestibule::start(config.with(&affinity)).await;
    let mut clients = Vec::new();
    for session in 0..60 {
        let fresh = Browser::logged_in(&format!("s{session}"));
        let mut browser = fresh.clone();
        let cohort = browser.cohort(proxy.address()).await;
        assert_eq!(
            fresh.clone().cohort(other.address()).await,
            cohort,
            "without the cookie, by the same key"
        );
        clients.push((cohort, browser));
    }
    let in_shared = clients.iter().filter(|(cohort, _)| *cohort == Mode::Shared).count();
    assert!((15..=45).contains(&in_shared), "{in_shared}");
    proxy.handle.set_mode(shares(1.0, 99.0)).await.unwrap();
    for (cohort, browser) in &mut clients {
        for address in [proxy.address(), other.address(), proxy.address()] {
            assert_eq!(browser.cohort(address).await, *cohort);
        }
    }
}

#[tokio::test]
async fn a_login_leaves_a_client_in_the_cohort_it_came_in() {
    let redis = Redis::start().await;
    let instances = instances(Some(&redis), 40).await;
    let store = format!("{HALVES}\n[session.store]\nurl = \"{}\"", redis.url());
    let proxy = Vestibule::start(config(&instances).with(&store)).await;
    let mut seen = HashSet::new();
    for session in 0..40 {
        let mut browser = Browser::default();
        let before = proxy.metric("http_requests_total", "mode=\"shared\"").await;
        browser.get(proxy.address()).await;
        let came_in = match proxy.metric("http_requests_total", "mode=\"shared\"").await > before {
            true => Mode::Shared,
            false => Mode::Sticky,
        };
        browser.0.insert("session-id".to_owned(), format!("s{session}"));
        for _ in 0..2 {
            assert_eq!(browser.cohort(proxy.address()).await, came_in);
        }
        seen.insert(came_in);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn nobody_changes_over_a_reload_and_an_upgrade() {
    let redis = Redis::start().await;
    let instances = instances(Some(&redis), 30).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let program = Program::start(config(&instances).with(&format!("{HALVES}\n{store}"))).await;
    let mut clients = Vec::new();
    for session in 0..30 {
        let mut browser = Browser::logged_in(&format!("s{session}"));
        clients.push((browser.cohort(program.address).await, browser));
    }
    let thirds = HALVES
        .replace("shared = 50", "local = 0, shared = \"12.5%\"")
        .replace("sticky = 50", "sticky = \"87.5%\"");
    program.configure(&config(&instances).with(&format!("{thirds}\n{store}")));
    program.reload("the configuration was reloaded").await;
    for (cohort, browser) in &mut clients {
        assert_eq!(browser.cohort(program.address).await, *cohort);
    }
    let _successor = program.upgrade(program.process.id(), 0).await;
    for (cohort, browser) in &mut clients {
        assert_eq!(browser.cohort(program.address).await, *cohort);
    }
    assert_eq!(clients.iter().map(|(cohort, _)| *cohort).collect::<HashSet<_>>().len(), 2);
}

/// A client in each cohort, sticky and shared, which have met one and the next of `instances`.
async fn one_of_each(proxy: &Vestibule) -> [Browser; 2] {
    let [mut sticky, mut shared] = [Browser::default(), Browser::default()];
    proxy.handle.set_mode(shares(0.0, 100.0)).await.unwrap();
    assert_eq!(sticky.meet(proxy.address()).await, 'a');
    proxy.handle.set_mode(shares(100.0, 0.0)).await.unwrap();
    assert_eq!(shared.meet(proxy.address()).await, 'b');
    [sticky, shared]
}

async fn meet(browser: &mut Browser, proxy: &Vestibule, times: usize) -> String {
    let mut met = String::new();
    for _ in 0..times {
        met.push(browser.meet(proxy.address()).await);
    }
    met
}

async fn others(proxy: &Vestibule, mode: &str) -> [f64; 4] {
    let mode = format!("mode=\"{mode}\",upstream=\"app\"");
    let of = async |other: &str| {
        proxy.metric("vestibule_cohort_other_mode_total", &format!("{mode},other=\"{other}\"")).await
    };
    let lost = proxy.metric("vestibule_cohort_ties_lost_total", &mode).await;
    [of("new").await, of("same").await, of("elsewhere").await, lost]
}

#[tokio::test]
async fn the_sticky_cohort_stays_and_the_shared_one_is_spread() {
    let instances = instances(None, 0).await;
    let proxy = Vestibule::start(config(&instances).with(HALVES)).await;
    let [mut sticky, mut shared] = one_of_each(&proxy).await;
    assert_eq!(meet(&mut sticky, &proxy, 6).await, "aaaaaa");
    assert_eq!(meet(&mut shared, &proxy, 6).await, "cabcab");
    assert_eq!(meet(&mut sticky, &proxy, 3).await, "aaa");
    for request in instances.iter().flat_map(Upstream::requests) {
        assert_eq!(request.headers.get("cookie").unwrap_or_default(), "", "our cookies are hidden");
    }
    for (labels, count) in [
        ("mode=\"sticky\",upstream=\"app\"", 10.0),
        ("mode=\"shared\",upstream=\"app\"", 7.0),
        ("mode=\"local\"", 0.0),
    ] {
        assert_eq!(proxy.metric("vestibule_cohort_requests_total", labels).await, count, "{labels}");
    }
    assert_eq!(proxy.metric("affinity_total", "").await, 10.0, "a tie that is not obeyed has no outcome");
}

#[tokio::test]
async fn what_the_other_mode_would_have_done_is_counted_exactly() {
    let mut instances = instances(None, 0).await;
    let proxy = Vestibule::start(config(&instances).with(HALVES)).await;
    let [mut sticky, mut shared] = one_of_each(&proxy).await;
    // Free choice would have taken a, b, c and a.
    assert_eq!(meet(&mut sticky, &proxy, 4).await, "aaaa");
    assert_eq!(others(&proxy, "sticky").await, [1.0, 2.0, 2.0, 0.0]);
    // Sticky mode would have taken b each time.
    assert_eq!(meet(&mut shared, &proxy, 3).await, "cab");
    assert_eq!(others(&proxy, "shared").await, [1.0, 1.0, 2.0, 0.0]);

    instances[0].stop().await;
    // The turn is c's; free choice would have taken b.
    assert_eq!(meet(&mut sticky, &proxy, 1).await, "c");
    assert_eq!(others(&proxy, "sticky").await, [1.0, 2.0, 3.0, 1.0]);
    assert_eq!(meet(&mut shared, &proxy, 1).await, "b");
    assert_eq!(others(&proxy, "shared").await, [1.0, 2.0, 2.0, 0.0]);

    instances[1].stop().await;
    // Nobody has found out yet that b is gone.
    assert_eq!(meet(&mut shared, &proxy, 1).await, "c");
    assert_eq!(others(&proxy, "shared").await, [1.0, 2.0, 3.0, 0.0]);
    // This request does, and sticky mode would have lost the session; from then on it lives on c.
    assert_eq!(meet(&mut shared, &proxy, 1).await, "c");
    assert_eq!(others(&proxy, "shared").await, [1.0, 3.0, 3.0, 1.0]);
    assert_eq!(meet(&mut shared, &proxy, 2).await, "cc");
    assert_eq!(others(&proxy, "shared").await, [1.0, 5.0, 3.0, 1.0]);
}

#[tokio::test]
async fn an_instance_that_was_restarted_has_lost_its_sessions_once() {
    let mut instances = instances(None, 0).await;
    let proxy = Vestibule::start(config(&instances).with(HALVES)).await;
    let [mut sticky, mut shared] = one_of_each(&proxy).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await; // ties count whole seconds
    for instance in &mut instances {
        instance.stop().await;
    }
    assert_eq!(get_with(proxy.address(), "/", &[]).await.status, 502, "each was tried");
    for instance in &mut instances {
        instance.restart().await;
    }
    for name in ['a', 'b', 'c'] {
        while Browser::default().meet(proxy.address()).await != name {}
    }
    assert_eq!(meet(&mut sticky, &proxy, 3).await, "aaa");
    assert_eq!(others(&proxy, "sticky").await[3], 1.0);
    meet(&mut shared, &proxy, 3).await;
    assert_eq!(others(&proxy, "shared").await[3], 1.0);
}

#[tokio::test]
async fn cookies_of_the_application_are_changed_in_the_sticky_cohort_only() {
    let login = Reply::with_headers(200, &[("Set-Cookie", "SID=own; Path=/")], "a");
    let instance = Upstream::answering(login).await;
    let stick = Config::to(&[instance.address()]).upstream("stick = { app_cookie = \"SID\" }");
    let proxy = Vestibule::start(stick.with(HALVES)).await;
    for (modes, appended) in [(shares(100.0, 0.0), false), (shares(0.0, 100.0), true)] {
        proxy.handle.set_mode(modes).await.unwrap();
        let answer = proxy.get("/", &[]).await;
        let cookies = answer.headers.all("set-cookie");
        let own = cookies.iter().find(|cookie| cookie.starts_with("SID=")).unwrap();
        assert_eq!(own.starts_with("SID=own~"), appended, "{own}");
    }
    assert_eq!(others(&proxy, "shared").await, [0.0; 4], "nothing is known of who has no tie");
    assert_eq!(others(&proxy, "sticky").await, [1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_plain_mode_knows_no_cohorts_and_they_come_and_go_with_the_configuration() {
    let instances = instances(None, 0).await;
    let proxy = Vestibule::start(config(&instances).with("[session]\nmode = \"sticky\"")).await;
    let mut browser = Browser::default();
    browser.get(proxy.address()).await;
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), ["vestibule-affinity-app"]);
    assert_eq!(proxy.metric("vestibule_info", "mode=\"sticky\"").await, 1.0);
    proxy.handle.set_mode(shares(100.0, 0.0)).await.unwrap();
    assert_eq!(proxy.metric("vestibule_info", "mode=\"compare\"").await, 1.0);
    browser.get(proxy.address()).await;
    assert!(browser.0.contains_key("vestibule-affinity_cohort"));
    assert_eq!(others(&proxy, "shared").await[0], 0.0, "the tie from before still counts");
    proxy.handle.set_mode(Mode::Local).await.unwrap();
    browser.get(proxy.address()).await;
    assert_eq!(proxy.metric("vestibule_cohort_requests_total", "").await, 1.0);
    for mode in ["sticky", "shared", "local"] {
        let labels = format!("mode=\"{mode}\"");
        assert_eq!(proxy.metric("http_requests_total", &labels).await, 1.0);
        assert_eq!(proxy.metric("http_request_duration_seconds_count", &labels).await, 1.0);
    }
}

#[tokio::test]
async fn each_line_of_the_log_tells_the_cohort_and_what_it_was_compared_with() {
    let instances = instances(None, 0).await;
    let all = HALVES.replace("shared = 50", "shared = 0").replace("sticky = 50", "sticky = 100");
    let program = Program::start(config(&instances).with(&all)).await;
    let mut browser = Browser::default();
    for _ in 0..3 {
        browser.get(program.address).await;
    }
    let mut lines = Vec::new();
    for expected in 1..=3 {
        lines = program
            .process
            .wait_for_line("access-log lines", |_| {
                let lines: Vec<serde_json::Value> = program
                    .process
                    .stdout()
                    .iter()
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .collect();
                (lines.len() >= expected).then_some(lines)
            })
            .await;
    }
    for (line, other) in lines.iter().zip(["new", "same", "elsewhere"]) {
        assert_eq!([&line["mode"], &line["cohort"]], ["sticky", "sticky"]);
        assert_eq!(
            [&line["other_mode"], &line["tie_lost"]],
            [&serde_json::json!(other), &serde_json::json!(false)]
        );
    }
    assert_eq!(program.said("modes are compared over the same instances").len(), 1);
}

#[test]
fn a_check_tells_what_a_comparison_takes() {
    // Few enough for any machine: too few open files are a caution of their own.
    let few = "[limits]\nconnections = 10\nupstream_connections = 10";
    let config = Config::to(&["127.0.0.1:5001".parse().unwrap()]).upstream("session_control = true");
    let file = write(&config.with(HALVES).with(few).toml());
    let checked = command().args(["check", "-c"]).arg(file.path()).output().unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    let cautions: Vec<_> = said.lines().filter(|line| line.starts_with("caution: ")).collect();
    assert_eq!(cautions.len(), 2, "{said}");
    assert!(cautions[0].ends_with("in their own memory lose those of shared"), "{said}");
    assert!(cautions[1].contains("\"app\" has session_control"), "{said}");
}
