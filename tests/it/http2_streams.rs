//! What is wrong with one stream of an HTTP/2 connection ends that stream and no other.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// `END_HEADERS` and `END_STREAM`.
const WHOLE: u8 = 5;
const END_HEADERS: u8 = 4;

/// An HTTP/2 connection of bytes as the test writes them.
struct Raw(TcpStream);

impl Raw {
    async fn connect(proxy: &Vestibule) -> Self {
        let mut raw = Raw(within("connect", TcpStream::connect(proxy.address())).await.unwrap());
        within("preface", raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).await.unwrap();
        raw.send(4, 0, 0, &[]).await;
        raw
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        within("frame", self.0.write_all(&frame)).await.unwrap();
    }

    /// The payload of the next frame of this kind on `stream`; fails when the connection ends instead.
    async fn next(&mut self, kind: u8, stream: u32) -> Vec<u8> {
        within("a frame", async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.0.read_exact(&mut payload).await.unwrap();
                assert_ne!(head[3], GOAWAY, "the connection ends: {payload:?}");
                if (head[3], &head[5..]) == (kind, &stream.to_be_bytes()) {
                    return payload;
                }
            }
        })
        .await
    }
}

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: h` (RFC 7541), and more.
fn request(more: &[u8]) -> Vec<u8> {
    [b"\x82\x86\x84\x01\x01h", more].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], string(name), string(value)].concat()
}

#[tokio::test]
async fn a_malformed_request_leaves_the_other_streams_alone() {
    let signal = Signal::new();
    let mut reply = Reply::chunked(200, &[]);
    for _ in 0..10 {
        reply = reply.chunk("a").wait(&signal);
    }
    let upstream = Upstream::answering(reply.end()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, WHOLE, 1, &request(&[])).await;
    assert_eq!(client.next(DATA, 1).await, b"a");
    let malformed = [
        request(&literal("connection", "close")),
        request(&literal("transfer-encoding", "chunked")),
        request(&literal("te", "gzip")),
        // A pseudo-header twice, and one behind another field.
        request(b"\x82"),
        request(&[&literal("x-a", "b")[..], b"\x82"].concat()),
        // No method.
        b"\x86\x84\x01\x01h".to_vec(),
    ];
    for (stream, head) in (3..).step_by(2).zip(malformed) {
        client.send(HEADERS, WHOLE, stream, &head).await;
        assert_eq!(client.next(RST_STREAM, stream).await, [0, 0, 0, 1], "{stream}"); // PROTOCOL_ERROR
        signal.fire();
        assert_eq!(client.next(DATA, 1).await, b"a", "{stream}");
    }
    // A body that is shorter than it was said to be.
    client.send(HEADERS, END_HEADERS, 31, &request(&literal("content-length", "5"))).await;
    client.send(DATA, 1, 31, b"abc").await;
    assert_eq!(client.next(RST_STREAM, 31).await, [0, 0, 0, 1]);
    signal.fire();
    assert_eq!(client.next(DATA, 1).await, b"a");
}
