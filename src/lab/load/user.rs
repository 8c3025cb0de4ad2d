//! One simulated user: cookies, a connection, a session if logged in, and one action at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::decision::Decision;
use super::exchange::{Answer, Ask, exchange};
use super::failure::Failure;
use super::jar::Jar;
use super::shared::{PreparedStep, Shared};
use super::values::Values;
use super::wire::Wire;
use crate::config::scenario::OnLost;

/// Timeout of the final session check.
const CHECK: Duration = Duration::from_secs(5);
const CHECK_AGAIN: Duration = Duration::from_millis(250);

/// A user that has arrived.
#[derive(Debug)]
pub(super) struct User {
    /// From 0.
    pub(super) number: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) jar: Jar,
    pub(super) wire: Option<Wire>,
    /// Captured from responses.
    pub(super) values: Values,
    session: Option<Session>,
    logins: u64,
    /// Whether the user has left for good.
    pub(super) gone: bool,
}

/// The session from the user's point of view.
#[derive(Debug)]
struct Session {
    /// The application's name for the login.
    login: Option<String>,
}

/// The outcome of one attempt of an action.
enum Tried {
    Done,
    Failed(Failure),
    /// The session is no longer known to the application.
    Lost,
}

impl User {
    pub(super) fn new(number: u32, shared: Arc<Shared>) -> Self {
        let jar = shared.target.jar();
        User {
            number,
            shared,
            jar,
            wire: None,
            values: Values::default(),
            session: None,
            logins: 0,
            gone: false,
        }
    }

    /// The arrival of the user, including its login if the scenario has one.
    pub(super) async fn come(&mut self) {
        let shared = self.shared.clone();
        let mut attempts = shared.attempts();
        // A failed login is repeated when an action needs it.
        let _ = shared.unless_cut(self.log_in(&mut attempts)).await;
    }

    /// Performs the decided action and records its outcome.
    pub(super) async fn act(&mut self, decision: Decision, due: Instant) {
        let shared = self.shared.clone();
        let done = shared.unless_cut(self.carry_out(&decision, shared.is_counted(due))).await;
        let failure = done.unwrap_or(Err(Failure::Unfinished)).err();
        shared.ended(decision, due, failure);
        if decision.logs_out && self.session.is_some() {
            let _ = shared.unless_cut(self.come_back_anew(decision.random)).await;
        }
    }

    async fn carry_out(&mut self, decision: &Decision, counted: bool) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let Some(action) = shared.scenario.actions.get(decision.action) else { return Ok(()) };
        let mut attempts = shared.attempts();
        loop {
            if action.session && self.session.is_none() {
                self.log_in(&mut attempts).await?;
            }
            match self.try_once(decision, counted).await {
                Tried::Done => return Ok(()),
                Tried::Failed(failure) => return Err(failure),
                Tried::Lost if shared.on_lost() == OnLost::Leave => {
                    self.gone = true;
                    return Err(Failure::SessionLost);
                }
                Tried::Lost => {}
            }
        }
    }

    async fn try_once(&mut self, decision: &Decision, counted: bool) -> Tried {
        let shared = self.shared.clone();
        let index = decision.action;
        let (Some(action), Some(steps)) = (shared.scenario.actions.get(index), shared.actions.get(index))
        else {
            return Tried::Done;
        };
        for (behind, step) in steps.iter().enumerate() {
            let PreparedStep { prepared, stream, meanwhile } = step;
            let random = decision.random;
            let ask = Ask { prepared, random, stream: *stream, meanwhile: meanwhile.as_ref(), counted };
            let failed = match exchange(self, ask).await {
                Ok(answer) if action.session && prepared.ask.lost_on.contains(&answer.status) => {
                    self.lose(answer);
                    return Tried::Lost;
                }
                Ok(answer) => answer.verdict(prepared).err(),
                Err(failure) => Some(failure),
            };
            match failed {
                None => {}
                Some(failure) if behind == 0 => return Tried::Failed(failure),
                Some(failure) => return Tried::Failed(Failure::Behind(behind + 1, Box::new(failure))),
            }
        }
        Tried::Done
    }

    /// Logs in, with at most `attempts` attempts.
    async fn log_in(&mut self, attempts: &mut u32) -> Result<(), Failure> {
        let mut failure = Failure::SessionLost;
        while *attempts > 0 {
            *attempts -= 1;
            match self.log_in_once().await {
                Ok(()) => return Ok(()),
                Err(reason) => failure = Failure::Login(Box::new(reason)),
            }
        }
        Err(failure)
    }

    async fn log_in_once(&mut self) -> Result<(), Failure> {
        let shared = self.shared.clone();
        // Logins use their own random stream, so that an additional login changes no other decision.
        let random = shared.decisions.rng(!u64::from(self.number), self.logins).u64(..);
        self.logins += 1;
        let mut login = None;
        for prepared in &shared.login {
            let answer = exchange(self, Ask::plain(prepared, random)).await?;
            answer.verdict(prepared)?;
            login = answer.login.or(login);
        }
        if !shared.login.is_empty() {
            self.session = Some(Session { login });
            shared.records().sessions.begun += 1;
        }
        Ok(())
    }

    /// Records the loss of the session.
    fn lose(&mut self, answer: Answer) {
        if let Some(Session { login }) = self.session.take() {
            self.shared.records().lost(Instant::now(), self.number + 1, login, answer.instance);
        }
    }

    /// Logs out and in again.
    async fn come_back_anew(&mut self, random: u64) {
        let shared = self.shared.clone();
        for prepared in &shared.logout {
            if let Ok(answer) = exchange(self, Ask::plain(prepared, random)).await
                && prepared.ask.lost_on.contains(&answer.status)
            {
                self.lose(answer);
            }
        }
        if self.session.take().is_some() {
            shared.records().sessions.ended += 1;
        }
        if shared.logout.is_empty() {
            self.jar.clear();
        }
        // A response can delete cookies but not captured values, so they are cleared here.
        self.values.clear();
        let _ = self.log_in(&mut shared.attempts()).await;
    }

    /// Checks whether the application still knows the session.
    pub(super) async fn check(&mut self) {
        let shared = self.shared.clone();
        let Some(prepared) = shared.check.as_ref().filter(|_| self.session.is_some()) else { return };
        let known = timeout(CHECK, async {
            loop {
                match exchange(self, Ask::plain(prepared, 0)).await {
                    Ok(answer) if prepared.ask.lost_on.contains(&answer.status) => return self.lose(answer),
                    Ok(answer) if answer.verdict(prepared).is_ok() => return,
                    _ => sleep(CHECK_AGAIN).await,
                }
            }
        });
        if known.await.is_err() {
            shared.records().sessions.unclear += 1;
        }
    }
}
