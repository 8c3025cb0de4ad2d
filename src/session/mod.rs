//! Sessions: who a request belongs to.
