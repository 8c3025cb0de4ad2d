//! `vestibule check`.

use std::fmt::Write;
use std::process::Command;

use super::assert_golden;
use crate::support::vestibule::{command, write};

const BASE: &str = r#"version = 1
workers = 2
[[listener]]
address = "127.0.0.1:8080"
[limits]
connections = 10
upstream_connections = 10
[[upstream]]
name = "app"
[[upstream.instance]]
address = "127.0.0.1:5001"
[[route]]
upstream = "app"
"#;

/// Files by what they are.
fn files() -> Vec<(&'static str, String)> {
    let base = |more: &str| format!("{BASE}{more}");
    let comparison = "[session]\nmode = { compare = { shared = 50, sticky = 50 } }\n";
    let more_connections = BASE.replace("\nconnections = 10", "\nconnections = 10000");
    vec![
        ("valid", base("")),
        ("valid, with cautions", base(comparison)),
        ("more connections than files can be open", more_connections),
        ("a value that is out of range", BASE.replace("workers = 2", "workers = 2000")),
        ("not valid", base("[limit]\nbytes = 1\n[session]\nmode = \"stiky\"\nidle_timeout = 5\n")),
        ("not TOML", "version = 1\nx = \n".to_owned()),
        ("empty", String::new()),
    ]
}

#[test]
fn golden_check_says_what_it_finds() {
    let mut page = String::new();
    let mut check = |what: &str, path: &str| {
        // How many files can be open is told, and differs from machine to machine.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "ulimit -n 256; exec \"$0\" check -c \"$1\""])
            .arg(command().get_program())
            .arg(path);
        let output = shell.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap().replace(path, "FILE");
        let _ = writeln!(
            page,
            "$ vestibule check -c FILE    # {what}: {}\n{said}",
            output.status.code().unwrap()
        );
    };
    for (what, text) in files() {
        let file = write(&text);
        check(what, file.path().to_str().unwrap());
    }
    check("not there", "/nowhere/vestibule.toml");
    assert_golden("check.txt", &page);
}
