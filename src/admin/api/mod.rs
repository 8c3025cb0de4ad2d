//! The JSON API under `/api/v1`, protected by the bearer token. Errors are RFC 9457 documents.

mod auth;
mod body;
mod canaries;
mod drills;
mod problem;
mod process;
mod sessions;
mod upstreams;

pub(super) use canaries::{list_canaries, steer_canary};
pub(super) use drills::rehearse;
pub(super) use problem::Problem;
pub(super) use process::{reload, upgrade};
pub(super) use sessions::revoke_sessions;
pub(super) use upstreams::{list_upstreams, order_instance};
