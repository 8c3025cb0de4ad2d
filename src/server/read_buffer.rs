//! A read buffer per worker, used before it is known which bytes hyper may read.

use std::cell::RefCell;

use crate::body_memory::PIECE;

/// Maximum number of bytes of one read.
pub(super) const SIZE: usize = PIECE;

thread_local! {
    /// Shared by all connections of a worker: a worker is one thread and reads one connection at a time.
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
}

/// Lends the buffer to `read`. `read` must not call this function again: the `RefCell` would panic.
pub(super) fn with<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SPACE.with_borrow_mut(|piece| read(piece))
}
