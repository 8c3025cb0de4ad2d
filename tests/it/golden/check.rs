//! `vestibule check`.

use std::fmt::Write;

use super::assert_golden;
use crate::support::vestibule::{command, write};

const BASE: &str = r#"version = 1
workers = 2
[[listener]]
address = "127.0.0.1:8080"
[limits]
connections = 100
upstream_connections = 100
[[upstream]]
name = "app"
[[upstream.instance]]
address = "127.0.0.1:5001"
[[route]]
upstream = "app"
"#;

/// What is said of files, by what they are.
fn files() -> Vec<(&'static str, String)> {
    let base = |more: &str| format!("{BASE}{more}");
    vec![
        ("valid", base("")),
        (
            "valid, with cautions",
            base("[session]\nmode = \"sticky\"\n[session.cookie]\nsecure = \"never\"\n"),
        ),
        (
            "more connections than files can be open",
            BASE.replace("connections = 100\n", "connections = 900000000\n"),
        ),
        ("not valid", base("[limit]\nbytes = 1\n[session]\nmode = \"stiky\"\nidle_timeout = 5\n")),
        ("not TOML", "version = 1\nx = \n".to_owned()),
        ("empty", String::new()),
    ]
}

#[test]
fn golden_check_says_what_it_finds() {
    let mut page = String::new();
    let mut check = |what: &str, path: &str| {
        let mut command = command();
        // Where no more files can be had than are open, the numbers would be those of the machine.
        let output = command.args(["check", "-c", path]).output().unwrap();
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
