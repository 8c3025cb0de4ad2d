//! Runs: producing an answer token by token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{Feeder, Interrupted};
use super::frames::{Ending, PING, Run};
use super::state::State;

/// What a test asks of a run, in the `inputs` of its request.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Knobs {
    /// Length of the answer.
    tokens: u32,
    /// Tokens per second; 0 = all at once.
    tps: f64,
    /// Time to the first token.
    ttft_ms: u32,
    /// A pause in the middle of the answer.
    silence_ms: u32,
    /// The model fails instead of giving this token, counted from 0.
    fail_at: Option<u32>,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs { tokens: 150, tps: 30.0, ttft_ms: 600, silence_ms: 0, fail_at: None }
    }
}

impl Knobs {
    const MOST_TOKENS: u32 = 100_000;

    /// Whether all values are in range.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.tokens > Self::MOST_TOKENS {
            return Err("tokens must be at most 100000.");
        }
        if !(self.tps.is_finite() && self.tps >= 0.0) {
            return Err("tps must not be negative.");
        }
        Ok(())
    }

    /// When token `index` is due after the start of the run.
    fn due(&self, index: u32) -> Duration {
        let pause = if index >= self.tokens / 2 { self.silence_ms } else { 0 };
        let spacing = if self.tps > 0.0 { f64::from(index) / self.tps } else { 0.0 };
        Duration::from_millis(u64::from(self.ttft_ms) + u64::from(pause))
            + Duration::try_from_secs_f64(spacing).unwrap_or(Duration::MAX / 2)
    }
}

/// How producing the tokens ended, and after how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ended(Ending, u32),
    Failed,
    /// The reader is gone.
    Abandoned,
}

/// Feeds a whole stream; returns when its body may end. `linger`: how long a workflow's stream stays open after
/// its last frame.
pub(super) async fn stream(run: &Run, knobs: &Knobs, mut feeder: Feeder, linger: Duration) {
    let told = if run.kind.has_workflow() {
        tell_workflow(run, knobs, &mut feeder).await
    } else {
        tell_message(run, knobs, &mut feeder).await
    };
    if told.is_ok() && run.kind.has_workflow() {
        let _ = feeder.wait_until(Instant::now() + linger).await;
    }
}

async fn tell_message(run: &Run, knobs: &Knobs, feeder: &mut Feeder) -> Result<(), Interrupted> {
    match produce(run, knobs, feeder).await {
        Outcome::Ended(_, tokens) => feeder.send(run.message_end(tokens)).await,
        Outcome::Failed => feeder.send(run.error()).await,
        Outcome::Abandoned => Err(Interrupted::Gone),
    }
}

async fn tell_workflow(run: &Run, knobs: &Knobs, feeder: &mut Feeder) -> Result<(), Interrupted> {
    let (start, model, last) = (run.start_node(), run.model_node(), run.last_node());
    let opening = [
        PING,
        run.workflow_started(),
        run.node_started(&start),
        run.node_finished(&start, 0),
        run.node_started(&model),
    ];
    for frame in opening {
        feeder.send(frame).await?;
    }
    let tokens = match produce(run, knobs, feeder).await {
        Outcome::Ended(Ending::Succeeded, tokens) => tokens,
        Outcome::Ended(ending, tokens) => return feeder.send(run.workflow_finished(ending, tokens)).await,
        Outcome::Failed => return feeder.send(run.error()).await,
        Outcome::Abandoned => return Err(Interrupted::Gone),
    };
    for frame in
        [run.node_finished(&model, tokens), run.node_started(&last), run.node_finished(&last, tokens)]
    {
        feeder.send(frame).await?;
    }
    if run.kind.is_message() {
        feeder.send(run.message_end(tokens)).await?;
    }
    feeder.send(run.workflow_finished(Ending::Succeeded, tokens)).await
}

/// Gives token after token at the pace the knobs ask for.
pub(super) async fn produce(run: &Run, knobs: &Knobs, feeder: &mut Feeder) -> Outcome {
    let start = Instant::now();
    for index in 0..knobs.tokens {
        if knobs.fail_at == Some(index) {
            return Outcome::Failed;
        }
        let fed = match feeder.wait_until(start + knobs.due(index)).await {
            Ok(()) => feeder.send(run.token()).await,
            Err(interrupted) => Err(interrupted),
        };
        match fed {
            Ok(()) => {}
            Err(Interrupted::Stopped) => return Outcome::Ended(Ending::Stopped, index),
            Err(Interrupted::Gone) => return Outcome::Abandoned,
        }
    }
    Outcome::Ended(Ending::Succeeded, knobs.tokens)
}

/// The runs of this instance that can still be stopped.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<HashMap<String, CancellationToken>>);

impl Runs {
    /// Asks the run of this task to stop. A task that is not known here changes nothing, as in Dify.
    pub(super) fn stop(&self, task_id: &str) {
        if let Some(stop) = self.lock().get(task_id) {
            stop.cancel();
        }
    }

    /// A panic elsewhere leaves the map whole: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's entry in [`Runs`]; leaves with it.
#[derive(Debug)]
pub(super) struct Registered {
    state: Arc<State>,
    task_id: String,
    pub(super) stopped: CancellationToken,
}

impl Registered {
    pub(super) fn new(state: &Arc<State>, task_id: &str) -> Self {
        let stopped = CancellationToken::new();
        state.runs.lock().insert(task_id.to_owned(), stopped.clone());
        Registered { state: Arc::clone(state), task_id: task_id.to_owned(), stopped }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.state.runs.lock().remove(&self.task_id);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::Options;
    use super::super::feed::feed;
    use super::super::frames::Kind;
    use super::*;

    /// Frames with the second they arrived in, by the (paused) clock.
    async fn told(kind: Kind, knobs: Knobs) -> Vec<(u64, String)> {
        let state = Arc::new(State::new(&Options::default()).await.unwrap());
        let run = Run::new(kind, "u".to_owned(), String::new(), String::new(), serde_json::Map::new());
        let (feeder, mut body) = feed(&state, CancellationToken::new());
        tokio::spawn(async move { stream(&run, &knobs, feeder, Duration::from_secs(1)).await });
        let start = Instant::now();
        let mut frames = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
            let event = match text.strip_prefix("data: ") {
                Some(json) => serde_json::from_str::<serde_json::Value>(json).unwrap()["event"].to_string(),
                None => text,
            };
            frames.push((start.elapsed().as_secs(), event.trim_matches('"').to_owned()));
        }
        frames.push((start.elapsed().as_secs(), "end".to_owned()));
        frames
    }

    fn at(second: u64, event: &str) -> (u64, String) {
        (second, event.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_pinged_every_ten_seconds() {
        let knobs = Knobs { tokens: 2, tps: 0.0, ttft_ms: 25_000, silence_ms: 12_000, fail_at: None };
        let ping = "event: ping\n\n";
        assert_eq!(
            told(Kind::Chat, knobs).await,
            [
                at(10, ping),
                at(20, ping),
                at(25, "message"),
                at(35, ping),
                at(37, "message"),
                at(37, "message_end"),
                at(37, "end")
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_workflow_lingers_after_its_last_frame() {
        let knobs = Knobs { tokens: 3, tps: 1.0, ttft_ms: 0, silence_ms: 0, fail_at: None };
        let told = told(Kind::Workflow, knobs).await;
        let chunks: Vec<_> = told.iter().filter(|(_, event)| event == "text_chunk").collect();
        assert_eq!(chunks, [&at(0, "text_chunk"), &at(1, "text_chunk"), &at(2, "text_chunk")]);
        assert_eq!(told[told.len() - 2..], [at(2, "workflow_finished"), at(3, "end")]);
    }

    #[test]
    fn knobs_out_of_range_are_refused() {
        assert_eq!(Knobs::default().check(), Ok(()));
        assert!(Knobs { tokens: 100_001, ..Knobs::default() }.check().is_err());
        assert!(Knobs { tps: -1.0, ..Knobs::default() }.check().is_err());
        assert!(Knobs { tps: f64::NAN, ..Knobs::default() }.check().is_err());
    }
}
