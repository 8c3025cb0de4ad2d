//! `--help` of every command.

use std::process::Command;

use super::assert_golden;
use crate::support::vestibule::command;

/// Commands that `--help` does not show.
const HIDDEN: [&str; 1] = ["guard"];

/// What `vestibule … --help` prints, with nothing in the environment and on a terminal of a fixed width.
fn help(path: &[String]) -> String {
    let mut command: Command = command();
    command.args(path).arg("--help").env_clear().env("COLUMNS", "100");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{path:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let list = list.lines().take_while(|line| !line.is_empty());
    // Indented deeper, a line goes on about the command above.
    let names = list.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn write(path: &[String], page: &mut String) {
    let help = help(path);
    page.push_str(&format!(
        "$ {}\n{help}\n",
        [&["vestibule".to_owned()], path, &["--help".to_owned()]].concat().join(" ")
    ));
    let hidden = HIDDEN.iter().filter(|_| path.is_empty()).map(|name| (*name).to_owned());
    for name in commands(&help).into_iter().chain(hidden) {
        write(&[path, &[name]].concat(), page);
    }
}

#[test]
fn golden_every_command_has_its_help() {
    let mut page = String::new();
    write(&[], &mut page);
    assert_golden("help.txt", &page);
}
