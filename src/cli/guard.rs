//! `vestibule guard`: a wrapper process between a comparison and the programs that it starts.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Args;

use crate::lab::compare;

#[derive(Debug, Args)]
pub(super) struct GuardArgs {
    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Runs a program until it exits or standard input is closed.
pub(super) fn run(GuardArgs { command }: GuardArgs) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("there is no program to run")?;
    let mut guarded = Command::new(program);
    guarded.args(arguments);
    compare::guard(guarded).with_context(|| format!("cannot run {}", program.display()))
}
