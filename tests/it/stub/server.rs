//! Connections, uploads, counters.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn every_answer_carries_the_same_marks() {
    let stub = start(Options { instance: "api-1".to_owned(), ..Options::default() }).await;
    for path in ["/health", "/console/api/system-features", "/nowhere", "/console/api/account/profile"] {
        let response = get(stub.address, path, &[]).await;
        for (name, value) in [
            ("server", "gunicorn"),
            ("x-version", "1.14.0"),
            ("x-env", "PRODUCTION"),
            ("vary", "Cookie"),
            ("connection", "keep-alive"),
            ("x-stub-instance", "api-1"),
        ] {
            assert_eq!(response.headers.get(name).unwrap(), value, "{name} of {path}");
        }
    }
    let unknown = get(stub.address, "/nowhere", &[]).await;
    assert_eq!((unknown.status, unknown.text().len()), (404, 207));
}

fn form(size: usize) -> Vec<u8> {
    let mut body = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"photo.PNG\"\r\n\
        Content-Type: image/png\r\n\r\n"
        .to_vec();
    body.resize(body.len() + size, b'x');
    body.extend(b"\r\n--B\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n--B--\r\n");
    body
}

#[tokio::test]
async fn an_upload_is_counted_and_described_and_a_large_one_refused_whole() {
    let stub = start_default().await;
    let headers = [APP_KEY, ("content-type", "multipart/form-data; boundary=B")];
    let response = send(stub.address, "POST", "/v1/files/upload", &headers, &form(100_000)).await;
    assert_eq!(response.status, 201);
    let file = response.json();
    assert_eq!(keys(&file), words("id name size extension mime_type created_by created_at"));
    assert_eq!((&file["name"], &file["size"]), (&json!("photo.PNG"), &json!(100_000)));
    assert_eq!((&file["extension"], &file["mime_type"]), (&json!("png"), &json!("image/png")));

    let limit = 15 * 1024 * 1024;
    let response = send(stub.address, "POST", "/v1/files/upload", &headers, &form(limit + 1)).await;
    assert_eq!(response.status, 413);
    assert_eq!(response.json()["code"], "file_too_large");
    let snapshot = stub.handle.snapshot();
    assert_eq!((snapshot.uploads, snapshot.upload_bytes), (1, 100_000));
}

#[tokio::test]
async fn the_echo_shows_what_arrived() {
    let stub = start_default().await;
    let headers = [("x-user-id", "1"), ("X_User_Id", "2"), ("x-user-id", "3")];
    let response = send(stub.address, "PATCH", "/__stub/echo?a=%20b", &headers, b"abc").await;
    let echo = response.json();
    assert_eq!((&echo["method"], &echo["target"]), (&json!("PATCH"), &json!("/__stub/echo?a=%20b")));
    let lines: Vec<_> = echo["headers"].as_array().unwrap().iter().filter(|line| line[0] != "host").collect();
    assert_eq!(
        json!(lines),
        json!([["x-user-id", "1"], ["x-user-id", "3"], ["x_user_id", "2"], ["content-length", "3"]])
    );
    assert_eq!(echo["body_length"], 3);
    assert_eq!(echo["body_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn the_counters_are_served_on_a_port_of_their_own() {
    let stub = start_default().await;
    get(stub.address, "/health", &[]).await;
    get(stub.address, "/nowhere", &[]).await;
    assert_eq!(get(stub.address, "/__stub/stats", &[]).await.status, 404);
    let stats = get(stub.stats, "/__stub/stats", &[]).await.json();
    assert_eq!(stats["requests"], 3);
    assert_eq!(stats["endpoints"]["GET /health"], 1);
    assert_eq!(stats["endpoints"]["other"], 2);
    assert_eq!(stats["connections"]["accepted"], 3);
    assert_eq!(get(stub.stats, "/health", &[]).await.status, 404);
}

#[tokio::test]
async fn a_full_instance_leaves_callers_in_the_backlog() {
    let stub = start(Options { slots: 1, ..Options::default() }).await;
    let (stream, _) = Streaming::open(stub.address, "/v1/chat-messages", endless()).await;
    let waiting = tokio::spawn(async move { get(stub.address, "/health", &[]).await.status });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(stream);
    assert_eq!(within("the slot", waiting).await.unwrap(), 200);
    assert_eq!(stub.handle.snapshot().connections.peak, 1);
}

#[tokio::test]
async fn a_stopping_instance_ends_what_runs_and_takes_nothing_new() {
    let stub = start_default().await;
    let inputs = json!({"tokens": 2, "tps": 5, "ttft_ms": 0});
    let (stream, _) = Streaming::open(stub.address, "/v1/chat-messages", inputs).await;
    stub.stop.send(()).unwrap();
    let stream = stream.finish().await.unwrap();
    assert_eq!(names(&frames(&stream)), ["message", "message", "message_end"]);
    within("stop", stub.task).await.unwrap();
    assert!(TcpStream::connect(stub.address).await.is_err());
}

#[tokio::test]
async fn a_stream_beyond_the_grace_is_cut_without_a_clean_end() {
    let stub = start(Options { grace: Duration::from_millis(10), ..Options::default() }).await;
    let (stream, _) = Streaming::open(stub.address, "/v1/chat-messages", endless()).await;
    stub.stop.send(()).unwrap();
    within("stop", stub.task).await.unwrap();
    assert!(stream.finish().await.is_err());
    assert_eq!(stub.handle.snapshot().streams.cut, 1);
}

#[tokio::test]
async fn a_booting_instance_accepts_the_connection_and_stays_silent() {
    let stub = start(Options { boot_delay: Duration::from_millis(100), ..Options::default() }).await;
    let started = Instant::now();
    let status = get(stub.address, "/health", &[]).await.status;
    assert_eq!(status, 200);
    assert!(started.elapsed() >= Duration::from_millis(80), "{:?}", started.elapsed());
}
