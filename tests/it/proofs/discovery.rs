//! Whatever becomes of the DNS that instances are found in, no client notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use super::{Spread, report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::dns::{DnsServer, Manner};
use crate::support::metrics;
use crate::support::service::{Service, begin, chunk, send};
use crate::support::vestibule::Program;
use crate::support::within;

const SERVICE: &str = "_http._tcp.app.example.";
const HOST: &str = "host.example.";
const CLIENTS: usize = 20;
const TICK: Duration = Duration::from_millis(20);

/// An instance that tells its name, or ticks until it is told to come to an end.
struct Instance {
    service: Service,
    asked: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Instance {
    fn start(name: usize) -> Self {
        let (asked, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (asked.clone(), ending.clone());
        let service = Service::start(async move |request, wire| {
            count.fetch_add(1, Relaxed);
            if !request.start_line.contains("/stream") {
                return send(wire, 200, &[], &name.to_string()).await;
            }
            begin(wire, "text/event-stream").await?;
            while !end.load(Relaxed) {
                chunk(wire, format!("{name}.").as_bytes()).await?;
                wire.until(sleep(TICK)).await?;
            }
            chunk(wire, b"end").await?;
            chunk(wire, b"").await
        });
        Self { service, asked, ending }
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

/// The program, what it finds, and the instances that can be found.
struct Scene {
    dns: DnsServer,
    instances: Vec<Instance>,
    program: Program,
}

impl Scene {
    async fn start(count: usize, found: &[usize]) -> Self {
        let dns = DnsServer::start().await;
        dns.set_addresses(HOST, 0, &[[127, 0, 0, 1].into()]);
        let instances: Vec<Instance> = (0..count).map(Instance::start).collect();
        let discovery = format!(
            "[upstream.discovery]\nsrv = \"{SERVICE}\"\nresolvers = [\"{}\"]\nmin_ttl = \"50ms\"\n\
             timeout = \"2s\"",
            dns.address()
        );
        set(&dns, &instances, found);
        let program = Program::start(Config::to(&[]).workers(2).upstream(&discovery)).await;
        Self { dns, instances, program }
    }

    /// From now on these instances are found.
    fn set(&self, found: &[usize]) {
        set(&self.dns, &self.instances, found);
    }

    async fn wait_for(&self, metric: &str, value: f64) {
        metrics::wait_for(self.program.admin, metric, "", value).await;
    }

    async fn metric(&self, name: &str) -> f64 {
        metrics::read(self.program.admin, name, "").await
    }

    /// Waits until so many more look-ups have failed.
    async fn failures(&self, count: f64) {
        let enough = self.metric("discovery_failures_total").await + count;
        within("failures", async {
            while self.metric("discovery_failures_total").await < enough {
                sleep(TICK).await;
            }
        })
        .await;
    }

    /// Waits until each of these was asked once more.
    async fn asked_again(&self, names: &[usize]) {
        let asked = || -> Vec<usize> { names.iter().map(|name| self.instances[*name].asked()).collect() };
        let before = asked();
        within("requests", async {
            while asked().iter().zip(&before).any(|(now, before)| now == before) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// The messages of the log so far.
    fn messages(&self, message: &str) -> usize {
        let lines = self.program.process.stderr();
        lines.iter().filter(|line| line.contains(message)).count()
    }
}

fn set(dns: &DnsServer, instances: &[Instance], found: &[usize]) {
    let ports = found.iter().map(|name| instances[*name].service.address().port());
    let services: Vec<_> = ports.map(|port| (1, 1, port, HOST)).collect();
    dns.set_services(SERVICE, 0, &services);
}

/// Clients that ask all the time; one answer other than 200 is the end of the test.
struct Load {
    going: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(program: &Program) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let client = |_| tokio::spawn(ask(program.address, going.clone()));
        Self { clients: (0..CLIENTS).map(client).collect(), going }
    }

    /// How many requests there were.
    async fn stop(self) -> usize {
        self.going.store(false, Relaxed);
        let mut total = 0;
        for client in self.clients {
            total += client.await.unwrap();
        }
        total
    }
}

async fn ask(address: std::net::SocketAddr, going: Arc<AtomicBool>) -> usize {
    let mut client = Client::connect(address).await;
    let (mut count, mut pace) = (0, interval(Duration::from_millis(50)));
    while going.load(Relaxed) {
        pace.tick().await;
        let response = client.request("GET", "/", &[], b"").await;
        assert_eq!(response.status, 200, "{}", response.text());
        count += 1;
    }
    count
}

/// A stream whose first tick has come, and which instance it comes from.
async fn stream(program: &Program) -> (usize, Client, Response) {
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/stream", &[], b"").await;
    let mut response = client.start_response().await;
    let tick = client.next_piece(&mut response).await.unwrap().unwrap();
    let name = std::str::from_utf8(&tick).unwrap().split('.').next().unwrap().parse().unwrap();
    (name, client, response)
}

#[tokio::test]
async fn no_request_fails_whatever_dns_answers() {
    let scene = Scene::start(6, &[0, 1]).await;
    let load = Load::start(&scene.program);
    scene.asked_again(&[0, 1]).await;
    grow_and_shrink(&scene).await;
    fail(&scene).await;
    roll(&scene).await;
    let requests = load.stop().await;
    report("requests while DNS changed and failed", format!("{requests}, 0 failed"));
}

async fn grow_and_shrink(scene: &Scene) {
    let changed = Instant::now();
    scene.set(&[0, 1, 2, 3, 4, 5]);
    scene.asked_again(&[2, 3, 4, 5]).await;
    report("four more instances in use after", format!("{:.0?}", changed.elapsed()));

    let mut streams = Vec::new();
    for _ in 0..12 {
        streams.push(stream(&scene.program).await);
    }
    let removed = streams.iter().filter(|(name, ..)| *name != 0).count();
    assert!(removed >= 5, "{removed} streams on instances that will be gone");
    let changed = Instant::now();
    scene.set(&[0]);
    scene.wait_for("discovery_instances", 1.0).await;
    report("five of six instances gone after", format!("{:.0?}", changed.elapsed()));
    // Requests that had chosen one of them before have arrived when others have been answered since.
    sleep(Duration::from_millis(200)).await;
    let asked = |scene: &Scene| scene.instances.iter().map(Instance::asked).collect::<Vec<_>>();
    let before = asked(scene);
    for _ in 0..5 {
        scene.asked_again(&[0]).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asked(scene)[1..], before[1..]);
    scene.instances.iter().for_each(|instance| instance.ending.store(true, Relaxed));
    for (name, mut client, mut response) in streams {
        client.finish(&mut response).await.unwrap();
        let text = response.text();
        let pieces = text.strip_suffix("end").unwrap().matches(&format!("{name}.")).count();
        assert!(pieces >= 3, "{text}");
    }
    report("streams on instances that were gone", format!("{removed}, 0 cut"));
}

async fn fail(scene: &Scene) {
    scene.set(&[0, 1]);
    scene.wait_for("discovery_instances", 2.0).await;
    let bad = [
        ("SERVFAIL", Manner::Code(ResponseCode::ServFail)),
        ("REFUSED", Manner::Code(ResponseCode::Refused)),
        ("NXDOMAIN", Manner::Code(ResponseCode::NXDomain)),
        ("no records", Manner::Code(ResponseCode::NoError)),
        ("silence", Manner::Silence),
        ("garbage", Manner::Garbage),
    ];
    let (failing, good) = ("discovery fails; the last good set is kept", "discovery is good again");
    for (times, (name, manner)) in (1..).zip(bad) {
        scene.dns.answer(manner);
        scene.wait_for("discovery_up", 0.0).await;
        scene.failures(scaled(3.0, 20.0)).await;
        scene.asked_again(&[0, 1]).await;
        assert_eq!(scene.metric("discovery_instances").await, 2.0, "{name}");
        assert_eq!(scene.messages(failing), times, "{name}");
        scene.dns.answer(Manner::Good);
        scene.wait_for("discovery_up", 1.0).await;
        within("the log", async {
            while scene.messages(good) < times {
                sleep(TICK).await;
            }
        })
        .await;
    }
    // What a machine lacks says nothing of names.
    let warnings = scene.messages("\"level\":\"WARN\"") - scene.messages("fewer files can be open");
    assert_eq!(warnings, bad.len(), "{:?}", scene.program.process.stderr());
    report("ways to fail", bad.map(|(name, _)| name).join(", "));
}

/// Every instance is replaced again and again, as in rolling restarts.
async fn roll(scene: &Scene) {
    let mut times = Vec::new();
    for round in 0..scaled(12, 200) {
        let (first, second) = (round % 6, (round + 1) % 6);
        let changed = Instant::now();
        scene.set(&[first, second]);
        scene.asked_again(&[second]).await;
        times.push(changed.elapsed());
    }
    report("the next instance in use", Spread::of(times));
}
