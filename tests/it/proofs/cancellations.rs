//! Whenever clients leave, those who stay get their own answers, and every request leaves one line.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{report, scaled};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::redis::Redis;
use crate::support::service::{Service, begin, chunk};
use crate::support::vestibule::Program;
use crate::support::wire::{Framing, Head, Headers, Wire};

const USERS: usize = 1000;
const STAYING: usize = 16;
const LEAVING: usize = 24;

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// In order, with its whole request sent.
    Close,
    /// In order, within the body of its request.
    CloseWithinBody,
    /// By force, with its whole request sent.
    Reset,
    /// In order, before its head is whole.
    CloseWithinHead,
}

impl Exit {
    const ALL: [Exit; 4] = [Exit::Close, Exit::CloseWithinBody, Exit::Reset, Exit::CloseWithinHead];

    fn name(self) -> &'static str {
        match self {
            Exit::Close => "close",
            Exit::CloseWithinBody => "body",
            Exit::Reset => "reset",
            Exit::CloseWithinHead => "head",
        }
    }

    /// How often a request that was left like this is logged.
    fn lines(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Exit::Close | Exit::CloseWithinBody => 1..=1,
            Exit::Reset => 0..=1, // a reset takes away what was not read yet
            Exit::CloseWithinHead => 0..=0,
        }
    }
}

/// Tells the user and the path that it was told, in two pieces, after pauses of random length.
async fn echo(request: &Head, wire: &mut Wire<TcpStream>) -> io::Result<()> {
    let (mut framing, mut trailers) = (Framing::of(&request.headers, Framing::Length(0)), Headers::default());
    while wire.piece(&mut framing, &mut trailers).await?.is_some() {}
    pause(wire).await?;
    begin(wire, "text/plain").await?;
    chunk(wire, request.headers.get("x-user-id").unwrap_or("nobody").as_bytes()).await?;
    pause(wire).await?;
    let path = request.start_line.split(' ').nth(1).unwrap();
    chunk(wire, format!(" {path}").as_bytes()).await?;
    chunk(wire, b"").await
}

async fn pause(wire: &mut Wire<TcpStream>) -> io::Result<()> {
    match fastrand::u64(..4) {
        0 => Ok(()),
        milliseconds => wire.until(sleep(Duration::from_millis(milliseconds))).await,
    }
}

#[tokio::test]
async fn in_a_storm_of_cancellations_every_answer_names_its_own_user_and_every_request_has_one_line() {
    let redis = Redis::start().await;
    let script =
        "for n = 0, ARGV[1] - 1 do redis.call('HSET', 'session:id-' .. n, 'user_id', 'user-' .. n) end";
    let () = redis.command("EVAL", (script, 0, USERS)).await;
    let instances = [Service::start(echo), Service::start(echo)];
    let log = tempfile::NamedTempFile::new().unwrap();
    // A cancelled request ends at once: otherwise a storm of requests without a client would be served.
    let tables = format!(
        "[timeouts]\nhalf_closed = \"0s\"\n[access_log]\noutput = \"file:{}\"\n[session.store]\nurl = \"{}\"\n\
         response_timeout = \"1m\"\nwait_timeout = \"1m\"",
        log.path().display(),
        redis.url()
    );
    let config = Config::to(&instances.each_ref().map(Service::address)).workers(2).with(&tables);
    let mut program = Program::start(config).await;

    let until = Instant::now() + scaled(Duration::from_secs(2), Duration::from_secs(60));
    let (mut staying, mut leaving) = (JoinSet::new(), JoinSet::new());
    for number in 0..STAYING {
        staying.spawn(stay(program.address, number, until));
    }
    for number in 0..LEAVING {
        leaving.spawn(leave_often(program.address, number, until));
    }
    let answered: usize = staying.join_all().await.into_iter().sum();
    let left: Vec<(String, Exit)> = leaving.join_all().await.into_iter().flatten().collect();
    metrics::wait_for(program.admin, "client_connections", "", 0.0).await;
    metrics::wait_for(program.admin, "upstream_requests_in_flight", "", 0.0).await;
    let counted = metrics::read(program.admin, "http_requests_total", "").await as usize;
    let lost = metrics::read(program.admin, "access_log_lines_dropped_total", "").await;
    program.process.signal("TERM");
    assert_eq!(program.process.exit().await.code(), Some(0), "{:?}", program.process.stderr());

    let mut lines = lines_by_path(&std::fs::read_to_string(log.path()).unwrap());
    report("cancellations", format!("{answered} answered, {} left, {counted} counted", left.len()));
    assert_eq!((lines.values().sum::<usize>(), lost), (counted, 0.0));
    for (path, exit) in left {
        let logged = lines.remove(&path).unwrap_or_default();
        assert!(exit.lines().contains(&logged), "{path} has {logged} lines");
    }
    assert_eq!(lines.len(), answered);
    assert!(lines.iter().all(|(path, count)| path.starts_with("/stay/") && *count == 1));
}

/// How many lines there are for each path.
fn lines_by_path(log: &str) -> HashMap<String, usize> {
    let mut lines = HashMap::new();
    for line in log.lines() {
        let (_, path) = line.split_once("\"path\":\"").unwrap_or_else(|| panic!("no path in {line}"));
        *lines.entry(path.split('"').next().unwrap().to_owned()).or_default() += 1;
    }
    lines
}

/// Asks as one user after the other on one connection; returns how often.
async fn stay(address: SocketAddr, number: usize, until: Instant) -> usize {
    let (mut client, mut random) = (Client::connect(address).await, fastrand::Rng::new());
    let mut count = 0;
    while Instant::now() < until {
        let (user, path) = (random.usize(..USERS), format!("/stay/{number}/{count}"));
        let cookie = format!("session-id=id-{user}");
        let response = client.request("GET", &path, &[("Cookie", &cookie)], b"").await;
        assert_eq!((response.status, response.text()), (200, format!("user-{user} {path}").as_str()));
        count += 1;
    }
    count
}

/// Asks and leaves, again and again; returns what was asked for and how it was left.
async fn leave_often(address: SocketAddr, number: usize, until: Instant) -> Vec<(String, Exit)> {
    let (mut random, mut left) = (fastrand::Rng::new(), Vec::new());
    while Instant::now() < until {
        let exit = Exit::ALL[random.usize(..Exit::ALL.len())];
        let path = format!("/{}/{number}/{}", exit.name(), left.len());
        let head = format!("Host: h\r\nCookie: session-id=id-{}\r\n", random.usize(..USERS));
        let request = match exit {
            Exit::Close | Exit::Reset => format!("GET {path} HTTP/1.1\r\n{head}\r\n"),
            Exit::CloseWithinBody => format!("POST {path} HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\nhalf"),
            Exit::CloseWithinHead => format!("GET {path} HTTP/1.1\r\n{head}"),
        };
        leave(address, &request, exit, Duration::from_micros(random.u64(..20_000))).await;
        left.push((path, exit));
    }
    left
}

/// Sends `request`, reads for a while what comes, and leaves.
async fn leave(address: SocketAddr, request: &str, exit: Exit, after: Duration) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let reading = async {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await.unwrap() > 0 {}
    };
    let _ = tokio::time::timeout(after, reading).await; // over by either the time or the answer
    if exit == Exit::Reset {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
