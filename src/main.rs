//! The `vestibule` program: see [`vestibule::cli`].

use std::process::ExitCode;

/// Idle clients leave holes in the heap that glibc's allocator does not give back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vestibule::cli::main()
}
