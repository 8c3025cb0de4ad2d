//! The frames of Dify's streams, field by field in the order Dify writes them.

use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::ordered::{Object, object};
use super::respond::json_bytes;
use super::state::{unix_now, uuid};

/// The frame without data that keeps a silent stream alive.
pub(super) const PING: Bytes = Bytes::from_static(b"event: ping\n\n");
/// The text of every token.
pub(super) const TOKEN: &str = "tok ";
/// What the model says when a run is asked to fail.
pub(super) const FAILURE: &str = "[stub] Error: the model failed as asked";

const NULL: Value = Value::Null;

/// What kind of app answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    AdvancedChat,
    Completion,
    Workflow,
}

impl Kind {
    /// Whether the answer is a message in a conversation.
    pub(super) fn is_message(self) -> bool {
        self != Kind::Workflow
    }

    /// Whether a workflow produces the answer; otherwise a model is asked directly.
    pub(super) fn has_workflow(self) -> bool {
        matches!(self, Kind::AdvancedChat | Kind::Workflow)
    }

    fn mode(self) -> &'static str {
        match self {
            Kind::Chat => "chat",
            Kind::AdvancedChat => "advanced-chat",
            Kind::Completion => "completion",
            Kind::Workflow => "workflow",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Succeeded,
    Stopped,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Ending::Succeeded => "succeeded",
            Ending::Stopped => "stopped",
        }
    }
}

/// A step of the workflow every app here runs.
#[derive(Debug, Clone)]
pub(super) struct Node {
    execution_id: String,
    name: &'static str,
}

/// One answer under way: the names and numbers its frames carry.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) task_id: String,
    message_id: String,
    conversation_id: String,
    run_id: String,
    workflow_id: String,
    end_user_id: String,
    user: String,
    inputs: Map<String, Value>,
    created_at: u64,
    started: Instant,
}

impl Run {
    /// A run for `user`; `conversation_id` is empty for a new conversation.
    pub(super) fn new(
        kind: Kind,
        user: String,
        query: String,
        conversation_id: String,
        mut inputs: Map<String, Value>,
    ) -> Self {
        let (run_id, workflow_id) = (uuid(), uuid());
        let system = [
            ("sys.files", json!([])),
            ("sys.user_id", json!(user)),
            ("sys.app_id", json!(uuid())),
            ("sys.workflow_id", json!(workflow_id)),
            ("sys.workflow_run_id", json!(run_id)),
        ];
        inputs.extend(system.map(|(name, value)| (name.to_owned(), value)));
        if kind == Kind::AdvancedChat {
            inputs.insert("sys.query".to_owned(), query.into());
            inputs.insert("sys.dialogue_count".to_owned(), 1.into());
        }
        Run {
            kind,
            task_id: uuid(),
            message_id: uuid(),
            conversation_id: if conversation_id.is_empty() { uuid() } else { conversation_id },
            run_id,
            workflow_id,
            end_user_id: uuid(),
            user,
            inputs,
            created_at: unix_now(),
            started: Instant::now(),
        }
    }

    /// The node that takes the inputs.
    pub(super) fn start_node(&self) -> Node {
        Node { execution_id: uuid(), name: "start" }
    }

    /// The node that asks the model.
    pub(super) fn model_node(&self) -> Node {
        Node { execution_id: uuid(), name: "llm" }
    }

    /// The node that gives the answer.
    pub(super) fn last_node(&self) -> Node {
        Node { execution_id: uuid(), name: if self.kind == Kind::Workflow { "end" } else { "answer" } }
    }

    pub(super) fn workflow_started(&self) -> Bytes {
        self.step(
            "workflow_started",
            object! {
                "id": self.run_id.as_str(),
                "workflow_id": self.workflow_id.as_str(),
                "inputs": self.inputs.clone(),
                "created_at": self.created_at,
                "reason": "initial",
            },
        )
    }

    pub(super) fn node_started(&self, node: &Node) -> Bytes {
        let data = node_head(node).then(object! {
            "inputs": NULL,
            "inputs_truncated": false,
            "created_at": self.created_at,
            "extras": json!({}),
            "iteration_id": NULL,
            "loop_id": NULL,
            "agent_strategy": NULL,
        });
        self.step("node_started", data)
    }

    /// `tokens`: length of the answer so far.
    pub(super) fn node_finished(&self, node: &Node, tokens: u32) -> Bytes {
        let (inputs, outputs) = match node.name {
            "start" => (Value::from(self.inputs.clone()), Value::from(self.inputs.clone())),
            "llm" => (json!({}), json!({"text": answer(tokens)})),
            _ => (json!({}), self.outputs(tokens)),
        };
        let data = node_head(node).then(object! {
            "inputs": inputs,
            "inputs_truncated": false,
            "process_data": json!({}),
            "process_data_truncated": false,
            "outputs": outputs,
            "outputs_truncated": false,
            "status": "succeeded",
            "error": NULL,
            "elapsed_time": self.elapsed(),
            "execution_metadata": NULL,
            "created_at": self.created_at,
            "finished_at": unix_now(),
            "files": json!([]),
            "iteration_id": NULL,
            "loop_id": NULL,
        });
        self.step("node_finished", data)
    }

    /// The next token of the answer.
    pub(super) fn token(&self) -> Bytes {
        match self.kind {
            Kind::Workflow => {
                let selector = json!(["llm", "text"]);
                self.step("text_chunk", object! { "text": TOKEN, "from_variable_selector": selector })
            }
            kind => {
                let selector = if kind == Kind::AdvancedChat { json!(["llm", "text"]) } else { NULL };
                self.frame(
                    "message",
                    object! {
                        "id": self.message_id.as_str(),
                        "answer": TOKEN,
                        "from_variable_selector": selector,
                    },
                )
            }
        }
    }

    pub(super) fn message_end(&self, tokens: u32) -> Bytes {
        let metadata = self.metadata(tokens);
        self.frame(
            "message_end",
            object! { "id": self.message_id.as_str(), "metadata": metadata, "files": json!([]) },
        )
    }

    pub(super) fn workflow_finished(&self, ending: Ending, tokens: u32) -> Bytes {
        self.step(
            "workflow_finished",
            object! {
                "id": self.run_id.as_str(),
                "workflow_id": self.workflow_id.as_str(),
                "status": ending.as_str(),
                "outputs": self.outputs(tokens),
                "error": NULL,
                "elapsed_time": self.elapsed(),
                "total_tokens": tokens,
                "total_steps": 3,
                "created_by": object! { "id": self.end_user_id.as_str(), "user": self.user.as_str() },
                "created_at": self.created_at,
                "finished_at": unix_now(),
                "exceptions_count": 0,
                "files": json!([]),
            },
        )
    }

    /// What ends a stream whose model failed; the status of the answer is 200 all the same.
    pub(super) fn error(&self) -> Bytes {
        let failure = object! { "code": "completion_request_error", "status": 400, "message": FAILURE };
        self.frame("error", failure)
    }

    /// The body of a blocking answer.
    pub(super) fn blocking(&self, ending: Ending, tokens: u32) -> Object {
        match self.kind {
            Kind::Workflow => object! {
                "task_id": self.task_id.as_str(),
                "workflow_run_id": self.run_id.as_str(),
                "data": object! {
                    "id": self.run_id.as_str(),
                    "workflow_id": self.workflow_id.as_str(),
                    "status": ending.as_str(),
                    "outputs": self.outputs(tokens),
                    "error": NULL,
                    "elapsed_time": self.elapsed(),
                    "total_tokens": tokens,
                    "total_steps": 3,
                    "created_at": self.created_at,
                    "finished_at": unix_now(),
                },
            },
            kind => object! {
                "event": "message",
                "task_id": self.task_id.as_str(),
                "id": self.message_id.as_str(),
                "message_id": self.message_id.as_str(),
                "conversation_id": self.conversation(),
                "mode": kind.mode(),
                "answer": answer(tokens),
                "metadata": self.metadata(tokens),
                "created_at": self.created_at,
            },
        }
    }

    fn conversation(&self) -> Option<&str> {
        (self.kind != Kind::Completion).then_some(self.conversation_id.as_str())
    }

    fn outputs(&self, tokens: u32) -> Value {
        match self.kind {
            Kind::Workflow => json!({"out": answer(tokens)}),
            Kind::Chat | Kind::AdvancedChat | Kind::Completion => {
                json!({"answer": answer(tokens), "files": []})
            }
        }
    }

    fn metadata(&self, tokens: u32) -> Object {
        let price = "0.0";
        object! {
            "annotation_reply": NULL,
            "retriever_resources": json!([]),
            "usage": object! {
                "prompt_tokens": 0,
                "prompt_unit_price": price,
                "prompt_price_unit": price,
                "prompt_price": price,
                "completion_tokens": tokens,
                "completion_unit_price": price,
                "completion_price_unit": price,
                "completion_price": price,
                "total_tokens": tokens,
                "total_price": price,
                "currency": "USD",
                "latency": self.elapsed(),
                "time_to_first_token": 0.0,
                "time_to_generate": self.elapsed(),
            },
        }
    }

    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A frame of the workflow itself.
    fn step(&self, event: &'static str, data: Object) -> Bytes {
        match self.kind {
            Kind::Workflow => self.frame(event, object! { "data": data }),
            Kind::Chat | Kind::AdvancedChat | Kind::Completion => {
                self.frame(event, object! { "workflow_run_id": self.run_id.as_str(), "data": data })
            }
        }
    }

    fn frame(&self, event: &'static str, rest: Object) -> Bytes {
        let (run, message, task) = (self.run_id.as_str(), self.message_id.as_str(), self.task_id.as_str());
        let head = match self.kind {
            Kind::Workflow => object! { "event": event, "workflow_run_id": run, "task_id": task },
            Kind::Completion => object! {
                "event": event, "message_id": message, "created_at": self.created_at, "task_id": task,
            },
            Kind::Chat | Kind::AdvancedChat => object! {
                "event": event,
                "conversation_id": self.conversation_id.as_str(),
                "message_id": message,
                "created_at": self.created_at,
                "task_id": task,
            },
        };
        let mut frame = b"data: ".to_vec();
        frame.extend(json_bytes(&head.then(rest)));
        frame.extend(b"\n\n");
        frame.into()
    }
}

fn node_head(node: &Node) -> Object {
    object! {
        "id": node.execution_id.as_str(),
        "node_id": node.name,
        "node_type": node.name,
        "title": node.name,
        "index": 1,
        "predecessor_node_id": NULL,
    }
}

fn answer(tokens: u32) -> String {
    TOKEN.repeat(tokens as usize)
}
