//! Bodies of any size pass through a memory of fixed size, and every byte of them arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{report, scaled};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::service::{Service, chunk, send};
use crate::support::vestibule::Program;
use crate::support::wire::{Framing, Head, Headers, Wire};

/// The most that the program may hold at any time.
const ALLOWED: usize = 64 << 20;
const PIECE: usize = 256 << 10;
/// No multiple of any buffer's size, so that a piece that is lost or doubled shifts the pattern.
const PERIOD: usize = 1_000_003;
/// Longer than any buffer on the way takes to fill.
const PAUSE: Duration = Duration::from_millis(500);

fn size() -> usize {
    scaled(64 << 20, 2 << 30)
}

/// What stands at `position` of every body.
fn pattern(position: usize, length: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = fastrand::Rng::with_seed(7);
        let period: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect();
        [&period[..], &period[..]].concat()
    });
    &PATTERN[position % PERIOD..][..length]
}

/// How far a body has been checked.
#[derive(Default)]
struct Checked(usize);

impl Checked {
    fn next(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(PIECE) {
            assert!(part == pattern(self.0, part.len()), "other bytes after {}", self.0);
            self.0 += part.len();
        }
    }
}

async fn start(instance: SocketAddr) -> Program {
    Program::start(Config::to(&[instance]).workers(2)).await
}

fn judge(what: &str, program: &Program, begun: Instant) {
    let (most, took) = (program.process.memory("VmHWM"), begun.elapsed());
    let rate = (2 * size()) as f64 / took.as_secs_f64() / f64::from(1 << 20);
    report(what, format!("2 × {} bytes, {rate:.0} MiB/s with pauses, at most {most} bytes resident", size()));
    assert!(most <= ALLOWED, "{most} bytes resident");
}

#[tokio::test]
async fn a_download_of_gibibytes_passes_within_64_mebibytes() {
    let instance = Service::start(download);
    let program = start(instance.address()).await;
    let begun = Instant::now();
    for target in ["/counted", "/chunked"] {
        let mut client = Client::connect(program.address).await;
        client.send_request("GET", target, &[], b"").await;
        let mut response = client.start_response().await;
        tokio::time::sleep(PAUSE).await; // a reader that is slower than the writer
        let mut checked = Checked::default();
        while let Some(piece) = client.next_piece(&mut response).await.unwrap() {
            checked.next(&piece);
        }
        assert_eq!(checked.0, size(), "{target}");
    }
    judge("download", &program, begun);
}

async fn download(request: &Head, wire: &mut Wire<TcpStream>) -> io::Result<()> {
    let counted = request.start_line.contains("/counted");
    let framing = match counted {
        true => format!("content-length: {}", size()),
        false => "transfer-encoding: chunked".to_owned(),
    };
    wire.stream.write_all(format!("HTTP/1.1 200 Told\r\n{framing}\r\n\r\n").as_bytes()).await?;
    for position in (0..size()).step_by(PIECE) {
        match counted {
            true => wire.stream.write_all(pattern(position, PIECE)).await?,
            false => chunk(wire, pattern(position, PIECE)).await?,
        }
    }
    if counted { Ok(()) } else { chunk(wire, b"").await }
}

#[tokio::test]
async fn an_upload_of_gibibytes_passes_within_64_mebibytes() {
    let instance = Service::start(upload);
    let program = start(instance.address()).await;
    let begun = Instant::now();
    for framing in [format!("Content-Length: {}", size()), "Transfer-Encoding: chunked".to_owned()] {
        let chunked = framing.contains("chunked");
        let mut client = Client::connect(program.address).await;
        client.send(format!("PUT / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n")).await;
        for position in (0..size()).step_by(PIECE) {
            let piece = pattern(position, PIECE);
            match chunked {
                true => client.send([format!("{PIECE:x}\r\n").as_bytes(), piece, b"\r\n"].concat()).await,
                false => client.send(piece).await,
            }
        }
        if chunked {
            client.send("0\r\n\r\n").await;
        }
        assert_eq!(client.response().await.text(), size().to_string(), "{framing}");
    }
    judge("upload", &program, begun);
}

async fn upload(request: &Head, wire: &mut Wire<TcpStream>) -> io::Result<()> {
    let mut framing = Framing::of(&request.headers, Framing::Length(0));
    tokio::time::sleep(PAUSE).await; // a reader that is slower than the writer
    let (mut checked, mut trailers) = (Checked::default(), Headers::default());
    while let Some(piece) = wire.piece(&mut framing, &mut trailers).await? {
        checked.next(&piece);
    }
    send(wire, 200, &[], &checked.0.to_string()).await
}
