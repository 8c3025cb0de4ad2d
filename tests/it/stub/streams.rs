//! Streams and their blocking twins.

use std::time::Duration;

use super::*;

/// Three tokens at once.
fn short() -> Value {
    json!({"tokens": 3, "tps": 0, "ttft_ms": 0})
}

const NODE_STARTED: &str = "id node_id node_type title index predecessor_node_id inputs inputs_truncated created_at \
    extras iteration_id loop_id agent_strategy";
const NODE_FINISHED: &str = "id node_id node_type title index predecessor_node_id inputs inputs_truncated \
    process_data process_data_truncated outputs outputs_truncated status error elapsed_time execution_metadata \
    created_at finished_at files iteration_id loop_id";
const WORKFLOW_STARTED: &str = "id workflow_id inputs created_at reason";
const WORKFLOW_FINISHED: &str = "id workflow_id status outputs error elapsed_time total_tokens total_steps \
    created_by created_at finished_at exceptions_count files";
const USAGE: &str = "prompt_tokens prompt_unit_price prompt_price_unit prompt_price completion_tokens \
    completion_unit_price completion_price_unit completion_price total_tokens total_price currency latency \
    time_to_first_token time_to_generate";

#[tokio::test]
async fn a_workflow_streams_the_frames_of_the_capture() {
    let stub = start_default().await;
    let response = post(stub.address, "/v1/workflows/run", &[APP_KEY], &ask("streaming", short())).await;
    assert_eq!(response.headers.get("content-type").unwrap(), "text/event-stream; charset=utf-8");
    assert_eq!(response.headers.get("access-control-allow-origin").unwrap(), "*");
    assert_eq!(
        response.headers.get("access-control-expose-headers").unwrap(),
        "X-Env, X-Trace-Id, X-Version"
    );
    assert_eq!(response.headers.get("transfer-encoding").unwrap(), "chunked");
    assert_eq!(response.headers.get("cache-control"), None);
    let stream = response.text();
    assert!(
        stream.starts_with("event: ping\n\ndata: {\"event\":\"workflow_started\",\"workflow_run_id\":\"")
    );
    let frames = frames(stream);
    assert_eq!(
        names(&frames),
        [
            "ping",
            "workflow_started",
            "node_started",
            "node_finished",
            "node_started",
            "text_chunk",
            "text_chunk",
            "text_chunk",
            "node_finished",
            "node_started",
            "node_finished",
            "workflow_finished",
        ]
    );
    for frame in frames.iter().flatten() {
        assert_eq!(keys(frame), words("event workflow_run_id task_id data"));
        let expected = match frame["event"].as_str().unwrap() {
            "workflow_started" => WORKFLOW_STARTED,
            "node_started" => NODE_STARTED,
            "node_finished" => NODE_FINISHED,
            "text_chunk" => "text from_variable_selector",
            _ => WORKFLOW_FINISHED,
        };
        assert_eq!(keys(&frame["data"]), words(expected), "{}", frame["event"]);
    }
    let last = frames.last().unwrap().as_ref().unwrap();
    assert_eq!(last["data"]["status"], "succeeded");
    assert_eq!(last["data"]["outputs"], json!({"out": "tok tok tok "}));
    assert_eq!(last["data"]["created_by"]["user"], "u-1");
}

#[tokio::test]
async fn an_advanced_chat_streams_the_frames_of_the_capture() {
    let stub = start_default().await;
    let key = [("authorization", "Bearer app-advchat-key")];
    let response = post(stub.address, "/v1/chat-messages", &key, &ask("streaming", short())).await;
    let stream = response.text();
    let frames = frames(stream);
    assert_eq!(
        names(&frames),
        [
            "ping",
            "workflow_started",
            "node_started",
            "node_finished",
            "node_started",
            "message",
            "message",
            "message",
            "node_finished",
            "node_started",
            "node_finished",
            "message_end",
            "workflow_finished",
        ]
    );
    let common = "event conversation_id message_id created_at task_id";
    for frame in frames.iter().flatten() {
        let (own, data) = match frame["event"].as_str().unwrap() {
            "message" => ("id answer from_variable_selector", None),
            "message_end" => ("id metadata files", None),
            "workflow_started" => ("workflow_run_id data", Some(WORKFLOW_STARTED)),
            "node_started" => ("workflow_run_id data", Some(NODE_STARTED)),
            "node_finished" => ("workflow_run_id data", Some(NODE_FINISHED)),
            _ => ("workflow_run_id data", Some(WORKFLOW_FINISHED)),
        };
        assert_eq!(keys(frame), &words(common) | &words(own), "{}", frame["event"]);
        if let Some(data) = data {
            assert_eq!(keys(&frame["data"]), words(data), "{}", frame["event"]);
        }
    }
    let end = frames.iter().flatten().find(|frame| frame["event"] == "message_end").unwrap();
    assert_eq!(keys(&end["metadata"]), words("annotation_reply retriever_resources usage"));
    assert_eq!(keys(&end["metadata"]["usage"]), words(USAGE));
}

#[tokio::test]
async fn a_chat_streams_messages_and_their_end_only() {
    let stub = start_default().await;
    let response = post(stub.address, "/v1/chat-messages", &[APP_KEY], &ask("streaming", short())).await;
    let stream = response.text();
    assert!(stream.starts_with("data: {\"event\":\"message\",\"conversation_id\":\""));
    let frames = frames(stream);
    assert_eq!(names(&frames), ["message", "message", "message", "message_end"]);
    let first = frames[0].as_ref().unwrap();
    assert_eq!((&first["answer"], &first["from_variable_selector"]), (&json!("tok "), &Value::Null));
    let streams = stub.handle.snapshot().streams;
    assert_eq!((streams.open, streams.completed, streams.cut), (0, 1, 0));
}

#[tokio::test]
async fn a_completion_has_no_conversation() {
    let stub = start_default().await;
    let response =
        post(stub.address, "/v1/completion-messages", &[APP_KEY], &ask("streaming", short())).await;
    let stream = response.text();
    let frames = frames(stream);
    assert_eq!(names(&frames), ["message", "message", "message", "message_end"]);
    let expected = "event message_id created_at task_id id answer from_variable_selector";
    assert_eq!(keys(frames[0].as_ref().unwrap()), words(expected));
}

#[tokio::test]
async fn a_failing_model_ends_the_stream_with_an_error_frame() {
    let stub = start_default().await;
    let inputs = json!({"tokens": 3, "tps": 0, "ttft_ms": 0, "fail_at": 1});
    let response = post(stub.address, "/v1/chat-messages", &[APP_KEY], &ask("streaming", inputs)).await;
    assert_eq!(response.status, 200);
    let stream = response.text();
    let frames = frames(stream);
    assert_eq!(names(&frames), ["message", "error"]);
    let error = frames[1].as_ref().unwrap();
    assert_eq!((&error["code"], &error["status"]), (&json!("completion_request_error"), &json!(400)));
}

#[tokio::test]
async fn a_stop_ends_the_stream_with_its_closing_frames() {
    let stub = start_default().await;
    for (path, stop, last) in [
        ("/v1/workflows/run", "/v1/workflows/tasks/*/stop", "workflow_finished"),
        ("/v1/chat-messages", "/v1/chat-messages/*/stop", "message_end"),
    ] {
        let (stream, event) = Streaming::open(stub.address, path, endless()).await;
        let stop = stop.replace('*', event["task_id"].as_str().unwrap());
        let stopped = post(stub.address, &stop, &[APP_KEY], &json!({"user": "u-1"})).await;
        assert_eq!(stopped.text(), r#"{"result":"success"}"#);
        let stream = stream.finish().await.unwrap();
        let frames = frames(&stream);
        let frame = frames.last().unwrap().as_ref().unwrap();
        assert_eq!(frame["event"], last);
        if last == "workflow_finished" {
            assert_eq!(frame["data"]["status"], "stopped");
        }
    }
}

#[tokio::test]
async fn a_reader_who_leaves_is_counted_as_cut() {
    let stub = start_default().await;
    let (stream, _) = Streaming::open(stub.address, "/v1/chat-messages", endless()).await;
    assert_eq!(stub.handle.snapshot().streams.open, 1);
    drop(stream);
    within("the cut", async {
        while stub.handle.snapshot().streams.cut == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(stub.handle.snapshot().streams.open, 0);
}

#[tokio::test]
async fn a_blocking_answer_is_one_object() {
    let stub = start_default().await;
    let chat = post(stub.address, "/v1/chat-messages", &[APP_KEY], &ask("blocking", short())).await;
    let chat = chat.json();
    assert_eq!(
        keys(&chat),
        words("event task_id id message_id conversation_id mode answer metadata created_at")
    );
    assert_eq!((&chat["mode"], &chat["answer"]), (&json!("chat"), &json!("tok tok tok ")));
    let workflow = post(stub.address, "/v1/workflows/run", &[APP_KEY], &ask("blocking", short())).await;
    let workflow = workflow.json();
    assert_eq!(keys(&workflow), words("task_id workflow_run_id data"));
    assert_eq!(workflow["data"]["outputs"], json!({"out": "tok tok tok "}));
}

#[tokio::test]
async fn the_service_api_refuses_without_key_or_user() {
    let stub = start_default().await;
    let wrong = [("authorization", "Bearer dataset-1")];
    let response = post(stub.address, "/v1/chat-messages", &wrong, &ask("blocking", short())).await;
    assert_eq!(response.status, 401);
    assert_eq!(response.json(), unauthorized("Access token is invalid"));
    let response = post(stub.address, "/v1/chat-messages", &[APP_KEY], &json!({"inputs": {}})).await;
    assert_eq!(
        response.json(),
        json!({"code": "invalid_param", "message": "Arg user must be provided.", "status": 400})
    );
}

#[tokio::test]
async fn a_web_app_is_asked_with_a_passport() {
    let stub = start_default().await;
    let refused = get(stub.address, "/api/passport", &[]).await;
    assert_eq!((refused.status, refused.json()), (401, unauthorized("X-App-Code header is missing.")));
    let passport = get(stub.address, "/api/passport", &[("x-app-code", "load")]).await;
    let token = passport.json()["access_token"].as_str().unwrap().to_owned();

    for (headers, message) in [
        (vec![], "App token is missing."),
        (vec![("x-app-passport", "a.b.c")], "Invalid token."),
        (vec![APP_KEY], "App token is missing."),
    ] {
        let question = ask("streaming", short());
        let refused = post(stub.address, "/api/chat-messages", &headers, &question).await;
        assert_eq!((refused.status, refused.json()), (401, unauthorized(message)));
    }
    let headers = [("x-app-code", "load"), ("x-app-passport", token.as_str())];
    let (stream, event) = Streaming::open_as(stub.address, "/api/chat-messages", &headers, endless()).await;
    let stop = format!("/api/chat-messages/{}/stop", event["task_id"].as_str().unwrap());
    assert_eq!(post(stub.address, &stop, &[], &json!({})).await.status, 401);
    assert_eq!(post(stub.address, &stop, &headers, &json!({})).await.text(), r#"{"result":"success"}"#);
    let stream = stream.finish().await.unwrap();
    assert_eq!(frames(&stream).last().unwrap().as_ref().unwrap()["event"], "message_end");
}
