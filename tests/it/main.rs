//! Promises of the program, tested from outside.

mod config_files;
