//! Instances are found in DNS, and a DNS that fails takes none away.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tempfile::NamedTempFile;
use vestibule::config::{self, Config, Instance};
use vestibule::discovery::{Discovery, State};

use crate::proofs::Pace;
use crate::support::config::Config as ProxyConfig;
use crate::support::dns::{DnsServer, Manner};
use crate::support::service::{Service, send};
use crate::support::vestibule::Vestibule;
use crate::support::{RefusedPort, within};

const NAME: &str = "app.example.";
const SERVICE: &str = "_http._tcp.app.example.";

/// Asks often, so that tests need not wait.
const OFTEN: &str = "min_ttl = \"20ms\"\nmax_ttl = \"20ms\"\n";

struct Found {
    discovery: Discovery,
    config: Config,
}

impl Found {
    /// Looks for `app` at these resolvers.
    async fn start(resolvers: &[SocketAddr], keys: &str) -> Self {
        let resolvers: Vec<String> = resolvers.iter().map(SocketAddr::to_string).collect();
        let text = format!(
            "version = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n\
             [[upstream]]\nname = \"app\"\n[upstream.discovery]\nresolvers = {resolvers:?}\n{keys}\n"
        );
        let config = config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"));
        let mut discovery = Discovery::default();
        discovery.follow(&config.upstreams);
        within("the first look", discovery.first_looks()).await;
        Self { discovery, config }
    }

    fn instances(&self) -> Vec<Instance> {
        self.discovery.complete(&self.config).upstreams.remove(0).instances
    }

    fn addresses(&self) -> Vec<String> {
        self.instances().iter().map(|instance| instance.address.to_string()).collect()
    }

    fn state(&self) -> State {
        self.discovery.board().states().remove("app").unwrap()
    }

    async fn changed(&self) {
        within("a change", self.discovery.changed()).await;
    }

    /// Waits until the look-ups stand as `is_so` says.
    async fn wait_for(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        within(what, async {
            while !is_so(&self.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await; // the board is for asking, not for waiting
            }
        })
        .await;
    }
}

fn four(end: u8) -> IpAddr {
    [127, 0, 0, end].into()
}

fn by_address(keys: &str) -> String {
    format!("dns = \"{NAME}:5001\"\n{keys}")
}

fn by_service(keys: &str) -> String {
    format!("srv = \"{SERVICE}\"\n{keys}")
}

#[tokio::test]
async fn a_name_gives_the_addresses_of_both_families_in_order() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(2), "::1".parse().unwrap(), four(1)]);
    let found = Found::start(&[dns.address()], &by_address("")).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001", "127.0.0.2:5001", "[::1]:5001"]);
    let found = Found::start(&[dns.address()], &by_address("family = \"ipv4\"")).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001", "127.0.0.2:5001"]);
    let found = Found::start(&[dns.address()], &by_address("family = \"ipv6\"")).await;
    assert_eq!(found.addresses(), ["[::1]:5001"]);
}

#[tokio::test]
async fn an_answer_that_grows_or_shrinks_is_news_and_its_order_is_none() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(1), four(2)]);
    let found = Found::start(&[dns.address()], &by_address(OFTEN)).await;
    found.changed().await;
    dns.set_addresses(NAME, 60, &[four(2), four(1)]);
    dns.next_questions(RecordType::A, 3).await;
    assert_eq!(found.state().changes, 1);
    dns.set_addresses(NAME, 60, &[four(1), four(2), four(3)]);
    found.changed().await;
    assert_eq!(found.addresses().len(), 3);
    dns.set_addresses(NAME, 60, &[four(3)]);
    found.changed().await;
    assert_eq!(found.addresses(), ["127.0.0.3:5001"]);
    assert_eq!(found.state().failures, 0);
}

#[tokio::test]
async fn whatever_fails_the_last_good_set_is_kept() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(1), four(2)]);
    let keys = by_address(&format!("{OFTEN}timeout = \"1s\""));
    let found = Found::start(&[dns.address()], &keys).await;
    let bad = [
        Manner::Code(ResponseCode::ServFail),
        Manner::Code(ResponseCode::Refused),
        Manner::Code(ResponseCode::NXDomain),
        Manner::Code(ResponseCode::NoError),
        Manner::Silence,
        Manner::Garbage,
    ];
    for manner in bad {
        let failures = found.state().failures;
        dns.answer(manner);
        found.wait_for("failures", |state| state.failures >= failures + 2).await;
        assert!(found.state().failing, "{manner:?}");
        assert_eq!(found.addresses(), ["127.0.0.1:5001", "127.0.0.2:5001"], "{manner:?}");
        dns.answer(Manner::Good);
        found.wait_for("recovery", |state| !state.failing).await;
    }
    assert_eq!(found.state().changes, 1);
}

#[tokio::test]
async fn a_family_that_cannot_be_asked_for_is_not_taken_for_gone() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(1), "::1".parse().unwrap()]);
    let found = Found::start(&[dns.address()], &by_address(&format!("{OFTEN}timeout = \"1m\""))).await;
    dns.answer_kind(RecordType::AAAA, Manner::Code(ResponseCode::ServFail));
    found.wait_for("failures", |state| state.failures >= 2).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001", "[::1]:5001"]);
    dns.answer_kind(RecordType::AAAA, Manner::Code(ResponseCode::NXDomain));
    found.wait_for("a smaller set", |state| state.changes == 2).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001"]);
}

#[tokio::test]
async fn an_empty_answer_empties_the_set_only_where_that_is_wanted() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(1)]);
    let found = Found::start(&[dns.address()], &by_address(&format!("{OFTEN}empty = \"apply\""))).await;
    dns.answer(Manner::Code(ResponseCode::NXDomain));
    found.wait_for("failures", |state| state.failures >= 2).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001"]);
    dns.answer(Manner::Code(ResponseCode::NoError));
    found.wait_for("no instance", |state| state.changes == 2).await;
    assert_eq!(found.addresses(), Vec::<String>::new());
    assert!(!found.state().failing);
}

#[tokio::test]
async fn without_an_answer_there_is_a_start_without_instances_in_bounded_time() {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, 60, &[four(1)]);
    dns.answer(Manner::Silence);
    let found = Found::start(&[dns.address()], &by_address(&format!("{OFTEN}timeout = \"100ms\""))).await;
    assert_eq!(found.addresses(), Vec::<String>::new());
    assert!(found.state().failing);
    dns.answer(Manner::Good);
    found.changed().await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001"]);
}

#[tokio::test]
async fn services_give_ports_and_weights_and_other_priorities_are_backups() {
    let dns = DnsServer::start().await;
    dns.set_services(
        SERVICE,
        60,
        &[(1, 10, 5001, "a.example."), (1, 30, 5002, "b.example."), (2, 1, 5003, "c.example.")],
    );
    for (name, end) in [("a.example.", 1), ("b.example.", 2), ("c.example.", 3)] {
        dns.set_addresses(name, 60, &[four(end)]);
    }
    let found = Found::start(&[dns.address()], &by_service("")).await;
    let shown: Vec<_> = found
        .instances()
        .iter()
        .map(|instance| (instance.address.to_string(), instance.weight, instance.backup))
        .collect();
    let expected = [("127.0.0.1:5001", 1, false), ("127.0.0.2:5002", 3, false), ("127.0.0.3:5003", 1, true)];
    assert_eq!(shown, expected.map(|(address, weight, backup)| (address.to_owned(), weight, backup)));
}

#[tokio::test]
async fn addresses_that_come_along_with_services_are_not_asked_for() {
    let dns = DnsServer::start().await;
    dns.set_services(SERVICE, 60, &[(1, 1, 5001, "a.example."), (1, 1, 5001, "b.example.")]);
    dns.send_along("a.example.", 60, four(1));
    dns.send_along("b.example.", 60, four(2));
    let found = Found::start(&[dns.address()], &by_service("")).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001", "127.0.0.2:5001"]);
    assert_eq!(dns.questions(), 1);
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_by_connection() {
    let dns = DnsServer::start().await;
    let many: Vec<IpAddr> = (1..=200).map(four).collect();
    dns.set_addresses(NAME, 60, &many);
    dns.answer(Manner::Truncated);
    let found = Found::start(&[dns.address()], &by_address("")).await;
    assert_eq!(found.addresses().len(), 200);
}

#[tokio::test]
async fn a_resolver_that_fails_leaves_the_answer_to_the_next() {
    let (bad, good) = (DnsServer::start().await, DnsServer::start().await);
    good.set_addresses(NAME, 60, &[four(1)]);
    for manner in [Manner::Code(ResponseCode::ServFail), Manner::Silence, Manner::Garbage] {
        bad.answer(manner);
        let keys = by_address("timeout = \"6s\"");
        let found = Found::start(&[bad.address(), good.address()], &keys).await;
        assert_eq!((found.addresses().len(), found.state().failing), (1, false), "{manner:?}");
    }
    let closed = RefusedPort::new();
    let found = Found::start(&[closed.address(), good.address()], &by_address("")).await;
    assert_eq!(found.addresses(), ["127.0.0.1:5001"]);
}

/// The shortest time between two of these questions.
async fn shortest_gap(ttl: u32, keys: &str, gaps: usize) -> Duration {
    let dns = DnsServer::start().await;
    dns.set_addresses(NAME, ttl, &[four(1)]);
    let _found = Found::start(&[dns.address()], &by_address(&format!("family = \"ipv4\"\n{keys}"))).await;
    let times = dns.next_questions(RecordType::A, gaps + 1).await;
    times.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap()
}

#[tokio::test]
async fn the_next_look_is_when_the_ttl_is_over_within_its_bounds() {
    let (pace, begun) = (Pace::start(), Instant::now());
    let (by_record, by_least, by_most) = tokio::join!(
        shortest_gap(1, "min_ttl = \"1ms\"", 1),
        shortest_gap(0, "min_ttl = \"300ms\"", 2),
        shortest_gap(3600, "min_ttl = \"1ms\"\nmax_ttl = \"400ms\"", 2),
    );
    let kept = pace.kept(begun, Instant::now());
    let is_within = |gap: Duration, from, to| {
        let net = gap.saturating_sub(kept).as_millis();
        assert!(gap.as_millis() >= from && net < to, "{gap:?} is not from {from} to {to}");
    };
    is_within(by_record, 1000, 2500);
    is_within(by_least, 300, 1000);
    is_within(by_most, 400, 1000);
}

/// A file with these instances.
fn write_instances(file: &NamedTempFile, instances: &[&Service]) {
    let tables = instances.iter().map(|one| format!("[[instance]]\naddress = \"{}\"\n", one.address()));
    std::fs::write(file.path(), tables.collect::<String>()).unwrap();
}

fn found_in(file: &NamedTempFile, keys: &str) -> ProxyConfig {
    ProxyConfig::to(&[])
        .upstream(&format!("{keys}[upstream.discovery]\nfile = {:?}", file.path().to_str().unwrap()))
}

#[tokio::test]
async fn without_an_instance_the_answer_is_503_until_one_is_found() {
    let (file, instance) = (NamedTempFile::new().unwrap(), Service::telling(|_| "here".to_owned()));
    let proxy = Vestibule::start(found_in(&file, "")).await;
    assert_eq!(proxy.get("/", &[]).await.status, 503);
    assert_eq!(proxy.metric("discovery_up", "upstream=\"app\"").await, 0.0);
    write_instances(&file, &[&instance]);
    proxy.wait_for_metric("discovery_instances", "upstream=\"app\"", 1.0).await;
    within("an answer", async { while proxy.get("/", &[]).await.status != 200 {} }).await;
    assert_eq!(proxy.metric("discovery_up", "upstream=\"app\"").await, 1.0);
    assert_eq!(proxy.metric("discovery_changes_total", "").await, 1.0);
    assert!(proxy.metric("discovery_failures_total", "").await >= 1.0);
}

#[tokio::test]
async fn ties_and_instances_that_stay_outlive_a_change_of_the_set() {
    let file = NamedTempFile::new().unwrap();
    let instances: Vec<Service> =
        ["a", "b", "c"].into_iter().map(|name| Service::telling(move |_| name.to_owned())).collect();
    write_instances(&file, &[&instances[0]]);
    let sticky = "[session]\nmode = \"sticky\"\n";
    let proxy = Vestibule::start(found_in(&file, "").with(sticky)).await;
    let first = proxy.get("/", &[]).await;
    let cookie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    write_instances(&file, &[&instances[2], &instances[1], &instances[0]]);
    proxy.wait_for_metric("discovery_instances", "", 3.0).await;
    within("the others in use", async {
        let mut seen = BTreeSet::new();
        while seen.len() < 3 {
            seen.insert(proxy.get("/", &[]).await.text().to_owned());
        }
    })
    .await;
    for _ in 0..4 {
        let answer = proxy.get("/", &[("Cookie", &cookie)]).await;
        assert_eq!((answer.text(), answer.headers.get("set-cookie")), ("a", None));
    }
    let label = format!("instance=\"{}\"", instances[0].address());
    assert!(proxy.metric("upstream_requests_total", &label).await >= 6.0);
}

#[tokio::test]
async fn instances_that_are_found_are_checked_and_those_that_are_gone_are_not() {
    let file = NamedTempFile::new().unwrap();
    let good = Service::telling(|_| "good".to_owned());
    let checks = Arc::new(AtomicUsize::new(0));
    let count = checks.clone();
    let bad = Service::start(async move |_, wire| {
        count.fetch_add(1, Relaxed);
        send(wire, 500, &[], "bad").await
    });
    write_instances(&file, &[&good]);
    let health = "[upstream.health]\ninterval = \"20ms\"\n";
    let proxy = Vestibule::start(found_in(&file, health)).await;
    write_instances(&file, &[&good, &bad]);
    let label = format!("instance=\"{}\"", bad.address());
    proxy.wait_for_metric("upstream_instance_condition", &format!("{label},condition=\"down\""), 1.0).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "good");
    write_instances(&file, &[&good]);
    proxy.wait_for_metric("discovery_instances", "", 1.0).await;
    within("the checks to end", async {
        let mut before = 0;
        while checks.load(Relaxed) != before {
            before = checks.load(Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await; // of an end nobody tells
        }
    })
    .await;
}
