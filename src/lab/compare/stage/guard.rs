//! The guard: a small process between a comparison and each program that it starts, so that none outlives it, however
//! the comparison ends.
//!
//! The comparison holds the guard's standard input. When that ends, and it ends with the comparison, the guard kills
//! the program and everything that the program has started.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

/// Lets the program end by itself.
pub(super) const TERMINATE: &str = "terminate";
/// What the guard prints before the process id of the program.
pub(super) const STARTED: &str = "guard: started ";

/// Runs `command` in a process group of its own until it ends or the standard input does. Every other line on the
/// standard input asks the program to end by itself. Blocks.
///
/// # Errors
/// The system's when the program cannot be started, or the standard output is closed.
pub fn guard(mut command: Command) -> io::Result<ExitCode> {
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    // Who could be told may have gone meanwhile: the program must not outlive that either.
    writeln!(io::stdout(), "{STARTED}{}", child.id()).inspect_err(|_| signal(group, Signal::KILL))?;
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line {
                Ok(_) => signal(group, Signal::TERM),
                Err(_) => break,
            }
        }
        signal(group, Signal::KILL);
    });
    let status = child.wait();
    // What it started goes with it.
    signal(group, Signal::KILL);
    status.map(code)
}

/// A group that is gone already is no error.
fn signal(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
