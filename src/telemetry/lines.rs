//! Buffered log lines: the request path never waits for a disk or a terminal.
//!
//! All workers append to one shared buffer, so that lines are ordered by time. Full buffers go through a
//! bounded channel to one writer thread. When the writer cannot keep up, whole buffers are dropped and their
//! lines are counted.

use std::fmt;
use std::io::{Sink, Stderr, Stdout, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use jiff::Timestamp;

/// A buffer is sent to the writer when it reaches this many bytes.
const FULL: usize = 32 * 1024;
/// Capacity of the channel in buffers; together about 8 MiB.
const QUEUE: usize = 256;

/// The destination of the lines.
pub trait Output: Write + Send {
    /// Reopens a file by its name, for log rotation.
    fn reopen(&mut self) {}
}

impl Output for Stdout {}

impl Output for Stderr {}

impl Output for Sink {}

/// A message to the writer.
enum Order {
    Write(Vec<u8>),
    Reopen,
}

/// The producer side. Workers get their buffers from it. Clones share the writer.
#[derive(Clone, Debug)]
pub struct LineSink(Arc<Shared>);

struct Shared {
    sender: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
    pending: Mutex<Pending>,
}

/// The lines that are not sent to the writer yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    /// The timestamp of the latest line, and its text. Cached, because most lines fall into the same
    /// millisecond as the previous one.
    millisecond: i64,
    time: String,
}

/// The writer thread. It ends when every sink and buffer is dropped.
#[derive(Debug)]
pub struct LineWriter(JoinHandle<()>);

/// Reopens the output. Does not keep the writer alive.
#[derive(Clone, Debug, Default)]
pub struct LineReopener(Weak<Shared>);

impl LineSink {
    /// Starts a writer for `output`. Fails when the system cannot start a thread.
    pub fn start(output: Box<dyn Output>) -> std::io::Result<(LineSink, LineWriter)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(|| write_all(receiver, output))?;
        let shared = Shared { sender, dropped: Arc::default(), pending: Mutex::default() };
        Ok((LineSink(Arc::new(shared)), LineWriter(thread)))
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> LineBuffer {
        LineBuffer { shared: Arc::clone(&self.0), line: Mutex::default() }
    }

    /// The number of lines dropped because the writer could not keep up. Does not keep the writer alive.
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        self.0.dropped.clone()
    }

    pub fn reopener(&self) -> LineReopener {
        LineReopener(Arc::downgrade(&self.0))
    }
}

impl LineReopener {
    /// Reopens the output. Lines written before go to the old file, later ones to the new file. Returns
    /// without waiting.
    pub fn reopen(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut pending = shared.pending();
        shared.hand_over(&mut pending);
        // The channel is full only when the writer is stuck; the request to reopen is then dropped.
        let _ = shared.sender.try_send(Order::Reopen);
    }
}

impl LineWriter {
    /// Waits until all lines are written. Drop all sinks and buffers first, otherwise it never returns.
    pub fn join(self) {
        // The thread has already reported its own panic.
        let _ = self.0.join();
    }
}

fn write_all(receiver: Receiver<Order>, mut output: Box<dyn Output>) {
    for order in receiver {
        match order {
            // A write error cannot be logged, because the log itself failed. The next buffer may succeed.
            Order::Write(buffer) => drop(output.write_all(&buffer).and_then(|()| output.flush())),
            Order::Reopen => output.reopen(),
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, pending: &mut Pending) {
        if pending.lines == 0 {
            return;
        }
        let (bytes, lines) = (std::mem::take(&mut pending.bytes), std::mem::take(&mut pending.lines));
        match self.sender.try_send(Order::Write(bytes)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(lines, Relaxed);
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineSink")
    }
}

impl Pending {
    /// Appends the current time.
    fn write_time(&mut self) {
        let now = Timestamp::now().as_millisecond();
        if now != self.millisecond {
            self.millisecond = now;
            let time = Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX);
            self.time = format!("{time:.3}");
        }
        self.bytes.extend_from_slice(self.time.as_bytes());
    }
}

/// One worker's handle to the sink.
pub struct LineBuffer {
    shared: Arc<Shared>,
    /// Scratch space for one line.
    line: Mutex<Vec<u8>>,
}

impl LineBuffer {
    /// Appends one line: a JSON object that begins with `time`. `write` appends the other members, beginning
    /// with a comma. The closing brace is added here.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clear();
        write(&mut line);
        line.extend_from_slice(b"}\n");
        // The shared lock is held only for the timestamp and one copy; the line is formatted outside it.
        let mut pending = self.shared.pending();
        pending.bytes.extend_from_slice(b"{\"time\":\"");
        pending.write_time();
        pending.bytes.push(b'"');
        pending.bytes.extend_from_slice(&line);
        pending.lines += 1;
        if pending.bytes.len() >= FULL {
            self.shared.hand_over(&mut pending);
        }
    }

    /// Sends the pending lines to the writer. Call it a few times per second.
    pub fn flush(&self) {
        self.shared.hand_over(&mut self.shared.pending());
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);
    impl Output for Collected {}
    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(output: &Collected) -> Vec<serde_json::Value> {
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_of_several_threads_stand_in_the_order_of_their_times() {
        let output = Collected::default();
        let (sink, writer) = LineSink::start(Box::new(output.clone())).unwrap();
        std::thread::scope(|threads| {
            for number in 0..4 {
                let buffer = sink.buffer();
                threads.spawn(move || {
                    for _ in 0..2_000 {
                        buffer.line(|out| out.extend_from_slice(format!(",\"n\":{number}").as_bytes()));
                    }
                });
            }
        });
        drop(sink);
        writer.join();
        let lines = lines(&output);
        let times: Vec<&str> = lines.iter().map(|line| line["time"].as_str().unwrap()).collect();
        assert_eq!(times.len(), 8_000);
        assert!(times.is_sorted());
    }

    #[test]
    fn the_output_is_opened_again_between_what_was_written_before_and_after() {
        struct Marking(Collected);
        impl Output for Marking {
            fn reopen(&mut self) {
                self.write_all(b"{}\n").unwrap();
            }
        }
        impl Write for Marking {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let output = Collected::default();
        let (sink, writer) = LineSink::start(Box::new(Marking(output.clone()))).unwrap();
        let (buffer, reopener) = (sink.buffer(), sink.reopener());
        buffer.line(|out| out.extend_from_slice(b",\"n\":1"));
        reopener.reopen();
        buffer.line(|out| out.extend_from_slice(b",\"n\":2"));
        drop((buffer, sink));
        writer.join();
        reopener.reopen();
        let numbers: Vec<Option<u64>> = lines(&output).iter().map(|line| line["n"].as_u64()).collect();
        assert_eq!(numbers, [Some(1), None, Some(2)]);
    }

    #[test]
    fn every_line_of_every_buffer_is_written_whole() {
        let output = Collected::default();
        let (sink, writer) = LineSink::start(Box::new(output.clone())).unwrap();
        let buffers = [sink.buffer(), sink.buffer()];
        for n in 0..5_000 {
            buffers[n % 2].line(|out| out.extend_from_slice(format!(",\"n\":{n}").as_bytes()));
        }
        assert_eq!(sink.dropped_counter().load(Relaxed), 0);
        drop((buffers, sink));
        writer.join();
        let numbers = lines(&output).iter().map(|line| line["n"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(numbers, (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_stuck_writer_costs_lines_not_time_and_they_are_counted() {
        struct Stuck(Receiver<()>);
        impl Output for Stuck {}
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let (sink, writer) = LineSink::start(Box::new(Stuck(stuck))).unwrap();
        let buffer = sink.buffer();
        let line = vec![b'x'; FULL];
        for _ in 0..QUEUE + 10 {
            buffer.line(|out| out.extend_from_slice(&line));
        }
        let dropped = sink.dropped_counter().load(Relaxed);
        assert!((9..=10).contains(&dropped), "{dropped}");
        drop((release, buffer, sink));
        writer.join();
    }
}
