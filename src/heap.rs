//! Memory that was freed goes back to the system.

use std::hint::black_box;

/// Larger than what the allocator serves without counting.
const COUNTED: usize = 2048;
/// What the allocator counts up to between two looks at what a thread has freed is 10,000; asked for four times a
/// second, this is about a quarter of a minute.
const SOME: usize = 160;

/// To be called about four times a second by each thread that serves clients. The allocator (mimalloc) gives memory back
/// when it looks at what a thread has freed, which it does once in so many allocations of the thread: one whose clients
/// have all left makes none, and would keep what they needed for as long as nobody comes.
pub fn give_back() {
    for _ in 0..SOME {
        drop(black_box(Vec::<u8>::with_capacity(black_box(COUNTED))));
    }
}
