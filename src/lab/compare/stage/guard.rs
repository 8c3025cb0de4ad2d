//! The guard: a small process between the comparison and each program that it starts. It ensures that no
//! program outlives the comparison, however that ends.
//!
//! The comparison holds the write end of the guard's standard input. When the comparison ends, the guard sees
//! the end of input and kills the program with everything that it has started.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

/// Command to the guard: terminate the program gracefully.
pub(super) const TERMINATE: &str = "terminate";
/// The guard's output before the program's process id.
pub(super) const STARTED: &str = "guard: started ";

/// Runs `command` in its own process group until it exits or standard input ends. Every other line on
/// standard input terminates the program gracefully. Blocks.
///
/// # Errors
/// The system's error when the program cannot be started, or when standard output is closed.
pub fn guard(mut command: Command) -> io::Result<ExitCode> {
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    // Standard output may be closed because the comparison has ended; the program must not outlive it.
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
    // Also kills the processes that the program has started.
    signal(group, Signal::KILL);
    status.map(code)
}

/// A group that no longer exists is no error.
fn signal(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
