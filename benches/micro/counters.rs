//! What it costs to count when several threads count the same thing.
//!
//! The figures decide whether workers share their numbers. A number that all of them write is handed from core
//! to core with every bump, behind a lock or not, so that each bump gets dearer with every thread; a number of
//! its own costs a worker the same however many others there are, and adding them all up costs only whoever
//! asks. Hence every worker counts for itself. As long as a lock that nobody else takes costs little more than
//! an atomic, one lock around all numbers of a worker is good enough, and a dozen bumps take it once.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;

const THREADS: [usize; 3] = [1, 2, 8];

/// Shares no cache line with its neighbours, not even with one that is fetched ahead.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

#[expect(clippy::indexing_slicing, reason = "there is a counter for each thread")]
pub(crate) fn counters(c: &mut Criterion) {
    for threads in THREADS {
        let (mutex, lock, atomic) = (Mutex::new(0_u64), RwLock::new(0_u64), AtomicU64::new(0));
        bench(c, "one mutex", threads, |_| *mutex.lock().unwrap() += 1);
        bench(c, "one read-write lock", threads, |_| *lock.write().unwrap() += 1);
        bench(c, "one atomic", threads, |_| _ = atomic.fetch_add(1, Relaxed));
        let (mutexes, atomics) = (each::<Mutex<u64>>(threads), each::<AtomicU64>(threads));
        bench(c, "a mutex each", threads, |thread| *mutexes[thread].0.lock().unwrap() += 1);
        bench(c, "an atomic each", threads, |thread| _ = atomics[thread].0.fetch_add(1, Relaxed));
        c.bench_function(&format!("counter/sum of {threads} atomics"), |b| {
            b.iter(|| black_box(&atomics).iter().map(|own| own.0.load(Relaxed)).sum::<u64>());
        });
    }
}

/// A counter for each thread.
fn each<T: Default>(threads: usize) -> Vec<Padded<T>> {
    std::iter::repeat_with(Padded::default).take(threads).collect()
}

/// The time that a bump takes a thread while `threads` of them do nothing else. There may be fewer cores than
/// threads: what a thread waits for its turn on a core is in its time.
fn bench(c: &mut Criterion, what: &str, threads: usize, bump: impl Fn(usize) + Sync) {
    c.bench_function(&format!("counter/{what}, {threads} threads"), |b| {
        b.iter_custom(|bumps| race(threads, bumps, &bump));
    });
}

/// How long the slowest of `threads` takes to bump `bumps` times.
fn race(threads: usize, bumps: u64, bump: &(impl Fn(usize) + Sync)) -> Duration {
    let start = Barrier::new(threads);
    let run = &|thread| {
        start.wait();
        let begun = Instant::now();
        (0..bumps).for_each(|_| bump(thread));
        begun.elapsed()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default()
    })
}
