//! Runs a load: its threads, its start and its end.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::pacer::Pacer;
use super::record::Records;
use super::result::LoadResult;
use super::shared::{Part, Shared, Times};
use super::wire::Wire;
use super::{Load, Progress, account, closed, open};
use crate::config::scenario::Arrival;

/// Actions per second per thread; leaves CPU time for the system under test.
const PER_THREAD: f64 = 10_000.0;
/// Delay of the start, until all threads are running.
const HEAD_START: Duration = Duration::from_millis(20);
/// Time for actions in flight after an early stop.
const GRACE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(250);

/// Why the load failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The target does not accept connections as required.
    #[error("cannot connect to {target}: {cause}")]
    Connect { target: String, cause: String },
    #[error("the system gives no thread or no timer")]
    System(#[from] io::Error),
    #[error("the records cannot be kept")]
    Records(#[from] hdrhistogram::CreationError),
    #[error("a thread of the load ended early")]
    Died,
}

impl Load {
    /// Runs the load on its own threads and returns the result.
    ///
    /// `progress` is updated several times a second, and once at the start: all times of the result count
    /// from [`Progress::began`]. `stop` ends the load early with a partial result; actions in flight then
    /// have two seconds. Otherwise they have the scenario's `timeout` after the end. Dropping the future ends
    /// the threads.
    pub async fn run(
        self,
        progress: watch::Sender<Progress>,
        stop: CancellationToken,
    ) -> Result<LoadResult, LoadError> {
        let wire = Wire::connect(&self.target, self.scenario.timeout).await;
        drop(wire.map_err(|none| LoadError::Connect { target: self.target.url(), cause: none.cause })?);
        let cut = CancellationToken::new();
        let times = Times { began: Instant::now() + HEAD_START, closing: cut.child_token(), cut };
        // Cuts the load when the future is dropped.
        let _cut = times.cut.clone().drop_guard();
        let mut parts = self.begin(&times)?;
        let ended = parts.watch(&self, &times, &progress, &stop).await?;
        let mut all: Option<Records> = None;
        for records in parts.take() {
            match &mut all {
                None => all = Some(records),
                Some(all) => all.add(records),
            }
        }
        let mut all = all.ok_or(LoadError::Died)?;
        all.extend(Instant::now());
        let counted = ended.saturating_duration_since(times.began + self.scenario.warm_up);
        Ok(account::result(&self, all, counted))
    }

    /// The number of threads.
    fn parts(&self) -> u32 {
        let needed = match self.scenario.arrival {
            Arrival::Closed => 1,
            Arrival::Open { rate, .. } => (rate / PER_THREAD).ceil() as u32,
        };
        let cores =
            thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        self.threads.unwrap_or(needed.min(cores)).clamp(1, self.scenario.users.count)
    }

    fn begin(&self, times: &Times) -> Result<Threads, LoadError> {
        let (threads, mut all) = (self.parts(), Threads::default());
        for first in 0..threads {
            let records = Arc::new(Mutex::new(Records::new(times.began, self.scenario.actions.len())?));
            let shared = Arc::new(Shared::new(self, times.clone(), records.clone()));
            let part = Part { first, threads, count: self.scenario.users.count };
            let (tell, ended) = oneshot::channel();
            let runtime = Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new().name(format!("load-{first}")).spawn(move || {
                let done = runtime.block_on(live(&shared, part));
                // Sending fails when the future of the load has been dropped.
                let _ = tell.send(done);
            })?;
            all.records.push(records);
            all.ended.push(ended);
        }
        Ok(all)
    }
}

/// Runs the users of one thread.
async fn live(shared: &Arc<Shared>, part: Part) -> io::Result<()> {
    sleep_until(shared.times.began).await;
    match shared.scenario.arrival {
        Arrival::Closed => closed::run(shared, part).await,
        Arrival::Open { rate, spacing } => open::run(shared, part, rate, spacing, &Pacer::new()?).await,
    }
    Ok(())
}

/// The threads of a load and their records.
#[derive(Debug, Default)]
struct Threads {
    records: Vec<Arc<Mutex<Records>>>,
    ended: Vec<oneshot::Receiver<io::Result<()>>>,
}

impl Threads {
    /// Reports progress until all threads have ended. Returns the latest possible due time of an action.
    async fn watch(
        &mut self,
        load: &Load,
        times: &Times,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> Result<Instant, LoadError> {
        let total = load.scenario.warm_up + load.scenario.duration;
        let (began, end) = (times.began.into_std(), times.began + total);
        let so_far = |elapsed| Progress { began: Some(began), elapsed, total, ..Progress::default() };
        progress.send_replace(so_far(Duration::ZERO));
        let ended = std::mem::take(&mut self.ended);
        let mut all_ended = std::pin::pin!(async move {
            for ended in ended {
                ended.await.map_err(|_| LoadError::Died)??;
            }
            Ok::<_, LoadError>(())
        });
        let (mut tick, mut closed, mut cut_at) = (interval(TICK), None, end + load.scenario.timeout);
        loop {
            tokio::select! {
                done = &mut all_ended => {
                    done?;
                    return Ok(closed.unwrap_or(end));
                }
                () = stop.cancelled(), if closed.is_none() => {
                    let now = Instant::now();
                    (closed, cut_at) = (Some(now.min(end)), now + GRACE);
                    times.closing.cancel();
                }
                () = sleep_until(end), if closed.is_none() => {
                    closed = Some(end);
                    times.closing.cancel();
                }
                () = sleep_until(cut_at), if closed.is_some() && !times.cut.is_cancelled() => times.cut.cancel(),
                _ = tick.tick() => {
                    let records: Vec<_> = self.records.iter().map(|records| lock(records)).collect();
                    progress.send_replace(account::progress(&records, so_far(times.began.elapsed())));
                }
            }
        }
    }

    /// The records of all threads.
    fn take(self) -> impl Iterator<Item = Records> {
        self.records.into_iter().map(|records| lock(&records).clone())
    }
}

fn lock(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}
