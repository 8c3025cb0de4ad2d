//! The promises of the session cache, decided by exhaustion: small models of the protocols, of which every order of
//! events is tried.
//!
//! A model says what may happen, not when; whatever the real servers, networks and schedulers do within the bounds of
//! a model is one of the orders that are tried. Each model can also be run with one rule left out, a [mutant], and is
//! then expected to break its promise: a model that cannot find what is broken shows nothing.
//!
//! [mutant]: renewals::Rules
#![cfg(test)]

mod explore;
mod failover;
mod renewals;
mod users;
