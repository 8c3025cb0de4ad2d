//! WebSocket messages come back unchanged, whatever their size and kind.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{report, scaled};
use crate::support::config::Config;
use crate::support::vestibule::Program;
use crate::support::{within, ws};

const SOCKETS: usize = 4;
const BATCH: usize = 20;
/// Around these, frames are written differently (RFC 6455 section 5.2); the last is the largest we send.
const EDGES: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 65_536];

#[tokio::test]
async fn ten_thousand_messages_come_back_unchanged() {
    let batches = scaled(200, 10_000) / SOCKETS / BATCH;
    let program = Program::start(Config::to(&[ws::echo_server().await]).workers(2)).await;
    let begun = std::time::Instant::now();
    let mut talks = JoinSet::new();
    for seed in 0..SOCKETS {
        talks.spawn(talk(program.address, batches, seed as u64));
    }
    let bytes: usize = talks.join_all().await.into_iter().sum();
    let count = batches * BATCH * SOCKETS;
    report("websockets", format!("{count} messages, {bytes} bytes in {:.2?}", begun.elapsed()));
}

/// Sends batches, each with one ping in its middle, and reads meanwhile. Returns the bytes that came back.
async fn talk(address: SocketAddr, batches: usize, seed: u64) -> usize {
    let (mut random, mut bytes) = (fastrand::Rng::with_seed(seed), 0);
    let (mut sink, mut stream) = ws::connect(address, "/echo").await.split();
    for batch in 0..batches {
        let mut messages: Vec<Message> = (0..BATCH).map(|_| message(&mut random)).collect();
        let ping = Bytes::from(format!("ping {batch}"));
        messages.insert(BATCH / 2, Message::Ping(ping.clone()));
        let sending = async {
            for message in messages.clone() {
                within("send", sink.send(message)).await.unwrap();
            }
        };
        let reading = async {
            let (mut echoes, mut pongs) = (Vec::new(), Vec::new());
            while echoes.len() < BATCH || pongs.is_empty() {
                match within("message", stream.next()).await.unwrap().unwrap() {
                    Message::Pong(data) => pongs.push(data),
                    message => echoes.push(message),
                }
            }
            (echoes, pongs)
        };
        let ((), (echoes, pongs)) = tokio::join!(sending, reading);
        assert_eq!(pongs, [ping]);
        messages.remove(BATCH / 2);
        assert!(echoes == messages, "batch {batch} of socket {seed} changed on its way");
        bytes += echoes.iter().map(Message::len).sum::<usize>();
    }
    bytes
}

fn message(random: &mut fastrand::Rng) -> Message {
    let length = match random.u8(..4) {
        0 => EDGES[random.usize(..EDGES.len())],
        1 => random.usize(..200),
        _ => random.usize(..=65_536),
    };
    if random.bool() {
        let text: String = "Grüße, 世界! ".chars().cycle().skip(random.usize(..9)).take(length / 2).collect();
        Message::text(text)
    } else {
        let mut data = vec![0; length];
        random.fill(&mut data);
        Message::binary(data)
    }
}
