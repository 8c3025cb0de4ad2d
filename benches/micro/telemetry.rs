//! Counting a request and writing its line.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use vestibule::telemetry::histogram::Histogram;
use vestibule::telemetry::lines::LineSink;

pub(crate) fn numbers(c: &mut Criterion) {
    let mut histogram = Histogram::default();
    c.bench_function("histogram/observe", |b| {
        b.iter(|| histogram.observe(black_box(Duration::from_millis(3))))
    });
    let other = histogram.clone();
    c.bench_function("histogram/merge", |b| b.iter(|| histogram.merge(black_box(&other))));
}

pub(crate) fn lines(c: &mut Criterion) {
    let (sink, writer) = LineSink::start(Box::new(std::io::sink())).unwrap();
    let (buffer, text) = (sink.buffer(), vec![b'x'; 400]);
    c.bench_function("access log/buffer a line of 400 bytes", |b| {
        b.iter(|| buffer.line(|out| out.extend_from_slice(black_box(&text))));
    });
    drop((buffer, sink));
    writer.join();
}
