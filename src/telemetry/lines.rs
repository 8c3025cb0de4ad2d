//! Lines written by the request path without waiting for a disk or a terminal.
//!
//! Each worker gathers lines in a buffer of its own; full buffers go through a bounded channel to one
//! writer thread. When the writer cannot keep up, whole buffers are dropped and the lines counted.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A buffer is handed over when it has grown to this many bytes.
const FULL: usize = 32 * 1024;
/// Buffers on their way to the writer; together at most 8 MiB.
const QUEUE: usize = 256;

/// The end of the channel at which workers open their buffers. Clones share the writer.
#[derive(Clone, Debug)]
pub struct LineSink {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The thread that writes; ends when every sink and buffer is gone.
#[derive(Debug)]
pub struct LineWriter(JoinHandle<()>);

impl LineSink {
    /// Starts a writer on `output`. Fails when the system gives no thread.
    pub fn start(output: Box<dyn Write + Send>) -> std::io::Result<(LineSink, LineWriter)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(|| write_all(receiver, output))?;
        Ok((LineSink { sender, dropped: Arc::default() }, LineWriter(thread)))
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> LineBuffer {
        LineBuffer { sink: self.clone(), pending: Mutex::default() }
    }

    /// Counts the lines lost because the writer could not keep up. Holding it does not keep the writer.
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl LineWriter {
    /// Waits until everything handed over is written. Drop all sinks and buffers first.
    pub fn join(self) {
        // A panic of the writer has been reported by the thread itself.
        let _ = self.0.join();
    }
}

fn write_all(receiver: Receiver<Vec<u8>>, mut output: Box<dyn Write + Send>) {
    for buffer in receiver {
        // Nobody is left to tell when the place for telling fails; the next buffer may succeed again.
        let _ = output.write_all(&buffer).and_then(|()| output.flush());
    }
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
}

/// One worker's lines that are not handed over yet.
pub struct LineBuffer {
    sink: LineSink,
    pending: Mutex<Pending>,
}

impl LineBuffer {
    /// Appends what `write` adds to the buffer as one line; the line end is added here.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut pending.bytes);
        pending.bytes.push(b'\n');
        pending.lines += 1;
        if pending.bytes.len() >= FULL {
            self.hand_over(&mut pending);
        }
    }

    /// Hands over what is pending; to be called a few times a second.
    pub fn flush(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.lines > 0 {
            self.hand_over(&mut pending);
        }
    }

    fn hand_over(&self, pending: &mut Pending) {
        let Pending { bytes, lines } = std::mem::take(pending);
        match self.sink.sender.try_send(bytes) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.sink.dropped.fetch_add(lines, Relaxed);
            }
        }
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
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_every_buffer_is_written_whole() {
        let output = Shared::default();
        let (sink, writer) = LineSink::start(Box::new(output.clone())).unwrap();
        let buffers = [sink.buffer(), sink.buffer()];
        for n in 0..5_000 {
            buffers[n % 2].line(|out| out.extend_from_slice(format!("line {n}").as_bytes()));
        }
        assert_eq!(sink.dropped_counter().load(Relaxed), 0);
        drop((buffers, sink));
        writer.join();
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 5_000);
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 5_000);
    }

    #[test]
    fn a_stuck_writer_costs_lines_not_time_and_they_are_counted() {
        struct Stuck(Receiver<()>);
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
