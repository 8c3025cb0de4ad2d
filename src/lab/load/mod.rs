//! The load generator: users with cookies who log in, think, ask, read streams to their end, and notice when the
//! application has forgotten them.

mod result;

pub use result::{ActionResult, Histogram, LoadResult, Loss, Sessions, Slice};
