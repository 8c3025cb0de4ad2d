//! An answer that an instance gives before it closes on an upload reaches the client (RFC 9112 section 9.5).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

/// More than all socket buffers on the way hold.
const LARGE: usize = 16 << 20;
const CHUNK: usize = 64 << 10;

/// Uploads [`LARGE`] and reads meanwhile until the connection ends; what came, as text.
async fn upload(proxy: &Vestibule, chunked: bool) -> String {
    let (mut reading, mut writing) = TcpStream::connect(proxy.address()).await.unwrap().into_split();
    let framing =
        if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {LARGE}") };
    let writer = tokio::spawn(async move {
        writing.write_all(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n").as_bytes()).await?;
        for _ in 0..LARGE / CHUNK {
            if chunked {
                writing.write_all(format!("{CHUNK:x}\r\n").as_bytes()).await?;
            }
            writing.write_all(&[b'a'; CHUNK]).await?;
            if chunked {
                writing.write_all(b"\r\n").await?;
            }
        }
        Ok::<_, std::io::Error>(writing)
    });
    let mut answer = Vec::new();
    // Whether the end is orderly is of no interest here, only what came before it.
    let _ = within("the answer", reading.read_to_end(&mut answer)).await;
    writer.abort();
    String::from_utf8(answer).unwrap()
}

fn too_large() -> Reply {
    let headers = [("Content-Length", "9"), ("Connection", "close")];
    Reply::early().head(413, &headers).raw("too large")
}

#[tokio::test]
async fn a_413_with_the_upload_unread_reaches_every_client() {
    let upstream = Upstream::answering(too_large().close()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for turn in 0..20 {
        let answer = upload(&proxy, turn % 2 == 0).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too large"), "{turn}: {answer}");
    }
    proxy.wait_for_metric("http_requests_total", "status=\"413\"", 20.0).await;
}

#[tokio::test]
async fn an_instance_that_resets_an_upload_without_an_answer_is_a_bad_gateway() {
    let upstream = Upstream::answering(Reply::early().reset()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for chunked in [false, true] {
        let answer = upload(&proxy, chunked).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_of_unknown_length_that_a_reset_ends_is_never_taken_for_whole() {
    let upstream = Upstream::answering(Reply::early().head(413, &[]).raw("too large").reset()).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    for chunked in [false, true] {
        let answer = upload(&proxy, chunked).await;
        let is_cut = answer.starts_with("HTTP/1.1 413 ") && !answer.ends_with("0\r\n\r\n");
        assert!(is_cut || answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}
