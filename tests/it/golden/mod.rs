//! Every name that leaves the process is written down in `tests/golden`.

mod access_log;
mod admin;
mod check;
#[path = "../../golden/compare.rs"]
mod compare;
mod environment;
mod headers;
mod help;
mod shape;
mod words;

use compare::assert_golden;
