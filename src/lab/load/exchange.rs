//! One request with its complete response.

use std::pin::Pin;

use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::failure::Failure;
use super::gathering::Gathering;
use super::outgoing::Outgoing;
use super::problem::Problem;
use super::reading::{Events, Search};
use super::request::{Filling, Prepared};
use super::user::User;
use super::wire::{NoAnswer, Wire};

/// What to send, and how to read the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) prepared: &'a Prepared,
    /// The value of `{random}`.
    pub(super) random: u64,
    /// Whether the response is an event stream.
    pub(super) stream: bool,
    /// The request to send once the stream runs.
    pub(super) meanwhile: Option<&'a Prepared>,
    /// Whether the times of events are recorded.
    pub(super) counted: bool,
}

impl<'a> Ask<'a> {
    /// A request outside the steps of an action, such as a login.
    pub(super) fn plain(prepared: &'a Prepared, random: u64) -> Self {
        Ask { prepared, random, stream: false, meanwhile: None, counted: false }
    }
}

/// What is kept of a completely read response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) instance: Option<String>,
    pub(super) login: Option<String>,
    /// Whether the body contained the expected text, and a stream at least one event.
    whole: bool,
    /// The reason of failure from a problem document.
    why: Option<Box<str>>,
    /// A further failure: a missing captured value, or a failed request during the stream.
    besides: Option<Failure>,
}

impl Answer {
    /// Whether the response is as expected.
    pub(super) fn verdict(&self, prepared: &Prepared) -> Result<(), Failure> {
        if !prepared.ask.expects(self.status) {
            return Err(Failure::Status(self.status, self.why.clone()));
        }
        match &self.besides {
            _ if !self.whole => Err(Failure::UnexpectedBody),
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

/// Sends a request as `user`, reads the response to its end, and captures values from a successful one.
pub(super) async fn exchange(user: &mut User, ask: Ask<'_>) -> Result<Answer, Failure> {
    if let Some(name) = ask.prepared.lacks(&user.values) {
        return Err(Failure::NoValueYet(name.into()));
    }
    let (mut wire, response, sent) = send(user, ask).await?;
    let read = read(user, ask, &mut wire, response, sent).await;
    if read.is_ok() && user.shared.scenario.keep_alive {
        user.wire = Some(wire);
    }
    read
}

/// Sends the request. Retries on a new connection if the kept one was closed before anything was sent.
async fn send(user: &mut User, ask: Ask<'_>) -> Result<(Wire, Response<Incoming>, Instant), Failure> {
    let shared = user.shared.clone();
    let mut kept = user.wire.take();
    if let Some(wire) = &mut kept
        && !wire.is_usable().await
    {
        kept = None;
    }
    loop {
        let sent = Instant::now();
        let is_kept = kept.is_some();
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => Wire::connect(&shared.target, shared.scenario.timeout).await?,
        };
        let (request, path) = request(user, ask, wire.is_http2())?;
        match wire.send(request).await {
            Ok(response) => {
                user.jar.take(response.headers(), path.path());
                return Ok((wire, response, sent));
            }
            Err(NoAnswer::Unsent) if is_kept => {}
            Err(NoAnswer::Unsent) => return Err(Failure::Cut),
            Err(NoAnswer::Failed(failure)) => return Err(failure),
        }
    }
}

fn request(user: &User, ask: Ask<'_>, http2: bool) -> Result<(Request<Outgoing>, PathAndQuery), Failure> {
    let filling = Filling { user: user.number + 1, random: ask.random, jar: &user.jar, values: &user.values };
    let filled = ask.prepared.fill(&user.shared.target, http2, &filling);
    filled.map_err(|_| Failure::Invalid)
}

async fn read(
    user: &mut User,
    ask: Ask<'_>,
    wire: &mut Wire,
    response: Response<Incoming>,
    sent: Instant,
) -> Result<Answer, Failure> {
    let shared = user.shared.clone();
    let (head, mut body) = response.into_parts();
    let instance = text(&head.headers, shared.scenario.instance_header.as_ref());
    let login = text(&head.headers, shared.scenario.login_header.as_ref());
    let mut search = Search::new(ask.prepared.ask.contains.as_deref().unwrap_or_default());
    let (mut events, mut bytes) = (Events::default(), 0);
    let mut problem = Problem::of(&head.headers);
    let mut gathering = Gathering::new(&ask.prepared.ask.captures, &head.headers);
    let is_expected = ask.prepared.ask.expects(head.status);
    let (mut meanwhile, mut besides, mut timed) = (ask.meanwhile, None, ask.counted);
    let mut broken = None;
    while let Some(frame) = wire.frame(&mut body).await {
        let (frame, now) = match frame {
            Ok(frame) => frame,
            Err(failure) => {
                broken = Some(failure);
                break;
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len() as u64;
        search.push(data);
        problem.push(data);
        gathering.push(data);
        if ask.stream {
            for _ in 0..events.push(data) {
                let before = events.note(now);
                if timed {
                    shared.records().token(before.is_none(), now - before.unwrap_or(sent));
                }
            }
        }
        let runs = is_expected && events.any() && gathering.is_complete();
        if let Some(prepared) = meanwhile.take_if(|_| runs) {
            besides = interject(user, Ask::plain(prepared, ask.random), &gathering).await.err();
            // During that request this stream is not read, so later event times would be wrong.
            timed = false;
        }
    }
    shared.records().answered(Instant::now(), instance.as_deref(), bytes);
    match broken {
        Some(failure) => Err(failure),
        None => {
            let whole = search.found() && (!ask.stream || events.any());
            gathering.end();
            if is_expected && whole {
                besides = gathering.give(&mut user.values).err().or(besides);
            }
            let why = problem.told(|told| user.jar.hidden(user.values.hidden(told)));
            Ok(Answer { status: head.status, instance, login, whole, why, besides })
        }
    }
}

/// Sends a request during a stream whose captures are complete.
async fn interject(user: &mut User, ask: Ask<'_>, gathering: &Gathering<'_>) -> Result<(), Failure> {
    gathering.give(&mut user.values)?;
    let asked = boxed(user, ask).await.and_then(|answer| answer.verdict(ask.prepared));
    asked.map_err(|failure| Failure::Meanwhile(Box::new(failure)))
}

/// A nested exchange. Boxed, because a recursive future has no finite size.
fn boxed<'a>(
    user: &'a mut User,
    ask: Ask<'a>,
) -> Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>> {
    Box::pin(exchange(user, ask))
}

fn text(headers: &HeaderMap, name: Option<&HeaderName>) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name?)?.as_bytes()).into_owned())
}
