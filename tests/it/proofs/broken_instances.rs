//! An instance breaks in every way there is while requests come: those that may be repeated do not feel it, and no other
//! is executed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{report, scaled};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::process::Process;
use crate::support::service::{Service, send};
use crate::support::vestibule::{Program, command};
use crate::support::wire::{Framing, Head, Headers, Wire};

const CLIENTS: usize = 8;
/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(1_000);
/// Until what was sent is read, so that a reset does not overtake it.
const PASSAGE: Duration = Duration::from_millis(5);

/// 500 is an answer of the application, which is only asked for again because the operator says so.
const UPSTREAM: &str = "[upstream.health]\npath = \"/health\"\ninterval = \"100ms\"\ntimeout = \"250ms\"\n\
     rise = 2\nfall = 2\n\
     [upstream.retry]\non = [\"broken\", \"timeout\", \"500\", \"502\", \"503\", \"504\"]\n\
     per_try_timeout = \"250ms\"\n\
     [upstream.outlier]\neject = \"500ms\"\nmax_eject = \"1s\"";

/// What happens to one of five instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
    Error,
    Slow,
    /// The length of the answer is told, and then nothing more.
    ResetAfterHead,
    ResetWithinBody,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Killed => "killed",
            Fault::Frozen => "frozen",
            Fault::Error => "answering 500",
            Fault::Slow => "slow",
            Fault::ResetAfterHead => "resetting after the head",
            Fault::ResetWithinBody => "resetting within the body",
        })
    }
}

/// A stub in a process of its own.
struct Stub {
    address: SocketAddr,
    process: Process,
    oracle: PathBuf,
}

impl Stub {
    async fn start(oracle: &Path) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), oracle).await
    }

    async fn start_at(address: SocketAddr, oracle: &Path) -> Self {
        let mut program: Command = command();
        program.args(["--log-format", "json", "stub", "--listen", &address.to_string(), "--executions"]);
        let process = Process::start(program.arg(oracle));
        let listening = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == "instance listening").then(|| line["address"].as_str()?.parse().ok())?
        };
        let address = process.wait_for_line("a listening stub", listening).await;
        Self { address, process, oracle: oracle.to_owned() }
    }

    async fn restart(&mut self) {
        *self = Self::start_at(self.address, &self.oracle).await;
    }
}

type Switch = Arc<Mutex<Option<Fault>>>;

/// An instance that has the fault that the switch says; its checks fail with it.
fn scripted(switch: Switch, oracle: &Path) -> Service {
    let oracle = OpenOptions::new().append(true).create(true).open(oracle).unwrap();
    Service::start(async move |request, wire| {
        read_body(request, wire).await?;
        let target = request.start_line.split(' ').nth(1).unwrap();
        if let Some(id) = target.strip_prefix("/__stub/executions/") {
            (&oracle).write_all(format!("{id}\n").as_bytes())?;
        }
        let fault = *switch.lock().unwrap();
        match fault {
            Some(Fault::Error) => {
                send(wire, 500, &[("content-type", "text/html")], "<h1>Internal Server Error</h1>").await
            }
            Some(Fault::Slow) => {
                wire.until(sleep(SLOW)).await?;
                send(wire, 200, &[], "late").await
            }
            Some(Fault::ResetAfterHead | Fault::ResetWithinBody) if target == "/health" => reset(wire),
            Some(Fault::ResetAfterHead) => begin_and_reset(wire, "").await,
            Some(Fault::ResetWithinBody) => begin_and_reset(wire, "o").await,
            _ => send(wire, 200, &[], "ok").await,
        }
    })
}

async fn read_body(request: &Head, wire: &mut Wire<TcpStream>) -> io::Result<()> {
    let mut framing = Framing::of(&request.headers, Framing::Length(0));
    while wire.piece(&mut framing, &mut Headers::default()).await?.is_some() {}
    Ok(())
}

async fn begin_and_reset(wire: &mut Wire<TcpStream>, body: &str) -> io::Result<()> {
    let begin = format!("HTTP/1.1 200 Told\r\ncontent-length: 2\r\n\r\n{body}");
    wire.stream.write_all(begin.as_bytes()).await?;
    wire.until(sleep(PASSAGE)).await?;
    reset(wire)
}

fn reset(wire: &mut Wire<TcpStream>) -> io::Result<()> {
    wire.stream.set_zero_linger()?;
    Err(io::ErrorKind::ConnectionReset.into())
}

/// What clients got, by method.
#[derive(Debug, Default)]
struct Got {
    good: usize,
    failed: BTreeMap<String, usize>,
}

impl Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.values().sum();
        write!(f, "{} answered, {failed} failed {:?}", self.good, self.failed)
    }
}

/// Requests that go on until the load is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    posted: Arc<AtomicUsize>,
    clients: JoinSet<Log>,
}

/// What one client did.
#[derive(Debug, Default)]
struct Log {
    gets: Got,
    posts: Got,
    /// Ids of `POST`s that were answered with 200.
    executed: Vec<String>,
}

impl Load {
    fn start(address: SocketAddr, name: &str) -> Self {
        let (stop, posted) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (stop, posted, prefix) = (stop.clone(), posted.clone(), format!("{name}-{client}"));
            clients.spawn(async move {
                let (mut log, mut client, mut number) = (Log::default(), Client::connect(address).await, 0);
                while !stop.load(SeqCst) {
                    number += 1;
                    let id = format!("{prefix}-{number}");
                    let get = format!("GET /console/api/system-features?{id} HTTP/1.1\r\nHost: h\r\n\r\n");
                    log.gets.note(ask(&mut client, address, &get).await);
                    let post = format!(
                        "POST /__stub/executions/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nonce"
                    );
                    if log.posts.note(ask(&mut client, address, &post).await) {
                        log.executed.push(id);
                    }
                    posted.fetch_add(1, SeqCst);
                    sleep(scaled(Duration::from_millis(5), Duration::from_millis(1))).await; // a constant load
                }
                log
            });
        }
        Self { stop, posted, clients }
    }

    async fn wait_for_posts(&self, count: usize) {
        while self.posted.load(SeqCst) < count {
            sleep(Duration::from_millis(5)).await; // the load goes on by itself
        }
    }

    async fn stop(self) -> Log {
        self.stop.store(true, SeqCst);
        let mut all = Log::default();
        for log in self.clients.join_all().await {
            all.gets.add(log.gets);
            all.posts.add(log.posts);
            all.executed.extend(log.executed);
        }
        all
    }
}

impl Got {
    /// True for a good answer.
    fn note(&mut self, answer: Result<u16, io::ErrorKind>) -> bool {
        match answer {
            Ok(200) => self.good += 1,
            Ok(status) => *self.failed.entry(status.to_string()).or_default() += 1,
            Err(kind) => *self.failed.entry(format!("cut: {kind}")).or_default() += 1,
        }
        answer == Ok(200)
    }

    fn add(&mut self, other: Got) {
        self.good += other.good;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
    }
}

/// One request; after a failure on a new connection from then on.
async fn ask(client: &mut Client, address: SocketAddr, request: &str) -> Result<u16, io::ErrorKind> {
    let answer = match client.try_send(request).await {
        Ok(()) => client.try_response().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => Ok(response.status),
        Err(error) => {
            *client = Client::connect(address).await;
            Err(error.kind())
        }
    }
}

struct Fleet {
    program: Program,
    stubs: Vec<Stub>,
    scripted: Service,
    switch: Switch,
    oracle: PathBuf,
    _directory: TempDir,
}

impl Fleet {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let oracle = directory.path().join("executions");
        let mut stubs = Vec::new();
        for _ in 0..4 {
            stubs.push(Stub::start(&oracle).await);
        }
        let switch = Switch::default();
        let scripted = scripted(switch.clone(), &oracle);
        let addresses: Vec<_> = stubs.iter().map(|stub| stub.address).chain([scripted.address()]).collect();
        let config = Config::to(&addresses).workers(2).upstream(UPSTREAM);
        let program = Program::start(config.with("[timeouts]\nfirst_byte = \"3s\"")).await;
        Self { program, stubs, scripted, switch, oracle, _directory: directory }
    }

    fn victim(&self, fault: Fault) -> SocketAddr {
        match fault {
            Fault::Killed | Fault::Frozen => self.stubs[0].address,
            _ => self.scripted.address(),
        }
    }

    fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.stubs[0].process.signal("KILL"),
            Fault::Frozen => self.stubs[0].process.signal("STOP"),
            _ => *self.switch.lock().unwrap() = Some(fault),
        }
    }

    async fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.stubs[0].restart().await,
            Fault::Frozen => self.stubs[0].process.signal("CONT"),
            _ => *self.switch.lock().unwrap() = None,
        }
    }

    /// How long it takes from now until the instance is in use, or is not.
    async fn until_used(&self, instance: SocketAddr, used: bool) -> Duration {
        let (begun, labels) = (Instant::now(), format!("instance=\"{instance}\",condition=\"up\""));
        let wanted = f64::from(u8::from(used));
        metrics::wait_for(self.program.admin, "upstream_instance_condition", &labels, wanted).await;
        begun.elapsed()
    }

    /// How often each id was executed.
    fn executions(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for id in std::fs::read_to_string(&self.oracle).unwrap().lines() {
            *times.entry(id.to_owned()).or_default() += 1;
        }
        times
    }
}

#[tokio::test]
async fn who_may_be_repeated_feels_no_broken_instance_and_nothing_else_is_executed_twice() {
    let posts_each = scaled(300, 16_700);
    let mut fleet = Fleet::start().await;
    let mut answered = BTreeSet::new();
    let mut posted = 0;
    let faults = [
        Fault::Killed,
        Fault::Frozen,
        Fault::Error,
        Fault::Slow,
        Fault::ResetAfterHead,
        Fault::ResetWithinBody,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let load = Load::start(fleet.program.address, &number.to_string());
        load.wait_for_posts(posts_each / 4).await;
        fleet.inject(fault);
        let ejected = fleet.until_used(fleet.victim(fault), false).await;
        load.wait_for_posts(posts_each / 2).await;
        fleet.heal(fault).await;
        let back = fleet.until_used(fleet.victim(fault), true).await;
        load.wait_for_posts(posts_each).await;
        let log = load.stop().await;
        report(&format!("{fault}: GET"), &log.gets);
        report(&format!("{fault}: POST"), &log.posts);
        report(&format!("{fault}: ejected after"), format!("{ejected:.0?}, back {back:.0?} after its end"));
        match fault {
            Fault::ResetWithinBody => {
                assert!(log.gets.failed.keys().all(|kind| kind.starts_with("cut")), "{fault}: {}", log.gets);
            }
            _ => assert_eq!(log.gets.failed, BTreeMap::new(), "{fault}"),
        }
        posted += log.posts.good + log.posts.failed.values().sum::<usize>();
        answered.extend(log.executed);
    }
    let executions = fleet.executions();
    let twice: Vec<_> = executions.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!(twice, []);
    assert!(answered.iter().all(|id| executions.contains_key(id)));
    let figures =
        format!("{} answered with 200, {} executed once, 0 twice", answered.len(), executions.len());
    report(&format!("of {posted} POSTs"), figures);
    let retries = metrics::read(fleet.program.admin, "upstream_retries_total", "").await;
    let exhausted = metrics::read(fleet.program.admin, "upstream_retry_budget_exhausted_total", "").await;
    report("retries", format!("{retries}, refused by the budget: {exhausted}"));
}
