//! Where a worker reads into before it is known what hyper may have.

use std::cell::RefCell;

use crate::body_memory::PIECE;

/// Most bytes of one read.
pub(super) const SIZE: usize = PIECE;

thread_local! {
    /// One for all connections of a worker, which is one thread and reads them in turn.
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
}

/// Lends the space to `read`, which must not ask for it again.
pub(super) fn with<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SPACE.with_borrow_mut(|piece| read(piece))
}
