//! `vestibule sessions revoke` against a running vestibule.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use super::{TOKEN, application, config, login, who};
use crate::support::RefusedPort;
use crate::support::config::Config;
use crate::support::upstream::Upstream;
use crate::support::vestibule::{Program, command, write};

const VARIABLE: &str = "VESTIBULE_ADMIN_TOKEN";

async fn started() -> (Upstream, Program) {
    let application = application().await;
    let program = Program::start(config(&application)).await;
    (application, program)
}

/// `vestibule sessions revoke` with these arguments, and nothing in the environment that it could use.
fn revoke(arguments: &[&str]) -> Command {
    let mut command = command();
    command.args(["sessions", "revoke"]).args(arguments).env_remove(VARIABLE).stdin(Stdio::null());
    command
}

fn at(admin: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = revoke(&["--admin", &admin.to_string()]);
    command.args(arguments).env(VARIABLE, TOKEN);
    command
}

/// Runs to the end, for which the command has a deadline of its own; exit code, standard output and error.
pub(crate) async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn revoked(sessions: &str) -> (Option<i32>, String, String) {
    (Some(0), format!("revoked ({sessions})\n"), String::new())
}

#[tokio::test]
async fn an_id_or_a_user_ends_what_it_names() {
    let (_application, program) = started().await;
    let address = program.address;
    let [one, two, three, other] = [
        login(address, "ada").await,
        login(address, "ada").await,
        login(address, "ada").await,
        login(address, "bob").await,
    ];
    // An id that begins with `-` would be taken for an option.
    assert_eq!(run(at(program.admin, &["--", &one])).await, revoked("1 session"));
    assert_eq!((who(address, &one).await, who(address, &two).await), ("nobody".into(), "ada".into()));
    assert_eq!(run(at(program.admin, &["--user", "ada"])).await, revoked("2 sessions"));
    for id in [&two, &three] {
        assert_eq!(who(address, id).await, "nobody");
    }
    assert_eq!(run(at(program.admin, &["--user", "ada"])).await, revoked("0 sessions"));
    assert_eq!(who(address, &other).await, "bob");
}

#[tokio::test]
async fn an_id_can_come_by_standard_input() {
    let (_application, program) = started().await;
    let id = login(program.address, "ada").await;
    let input = write(&format!("{id}\n"));
    let mut command = at(program.admin, &["-"]);
    command.stdin(File::open(input.path()).unwrap());
    assert_eq!(run(command).await, revoked("1 session"));
    assert_eq!(who(program.address, &id).await, "nobody");
}

#[tokio::test]
async fn address_and_token_are_found_where_the_operator_keeps_them() {
    let (application, program) = started().await;
    let token = write(TOKEN);
    let token = format!("file:{}", token.path().display());
    let admin = program.admin.to_string();
    let user = ["--user", "nobody-at-all"];
    let by_file = revoke(&[&user[..], &["--admin", &admin, "--token", &token]].concat());
    assert_eq!(run(by_file).await, revoked("0 sessions"));

    let mut by_variable = revoke(&[&user[..], &["--admin", &admin, "--token", "env:OTHER_TOKEN"]].concat());
    by_variable.env("OTHER_TOKEN", TOKEN).env(VARIABLE, "not-the-token-of-this-one");
    assert_eq!(run(by_variable).await, revoked("0 sessions"));

    let any_port = "[admin]\naddress = \"127.0.0.1:0\"";
    let text = config(&application).toml().replace(any_port, &format!("[admin]\naddress = \"{admin}\""));
    let file = write(&text);
    let by_config = revoke(&[&user[..], &["-c", file.path().to_str().unwrap()]].concat());
    assert_eq!(run(by_config).await, revoked("0 sessions"));
}

/// Asserts that the command fails with this and nothing else.
async fn assert_fails(command: Command, complaint: &str) {
    let expected = (Some(1), String::new(), format!("vestibule: {complaint}\n"));
    assert_eq!(run(command).await, expected);
}

#[tokio::test]
async fn whatever_goes_wrong_is_told_with_a_remedy_and_without_a_secret() {
    let (application, program) = started().await;
    let admin = program.admin;

    let port = RefusedPort::new();
    let complaint = format!(
        "cannot reach the admin API at {}: start vestibule with [admin] in its configuration, or give its address \
         with --admin: Connection refused (os error 111)",
        port.address()
    );
    assert_fails(at(port.address(), &["secret-id"]), &complaint).await;

    let mut wrong = at(admin, &["secret-id"]);
    wrong.env(VARIABLE, "secret-token-of-another");
    let complaint = format!(
        "the admin API at {admin} does not accept the token from the environment variable {VARIABLE}: it must be \
         that of [admin]"
    );
    assert_fails(wrong, &complaint).await;

    let complaint =
        format!("no token: set {VARIABLE}, or give --token env:NAME, --token file:PATH or -c FILE");
    assert_fails(revoke(&["secret-id"]), &complaint).await;

    let complaint = "--token cannot be used: a secret is given by reference: env:NAME or file:PATH";
    assert_fails(revoke(&["secret-id", "--token", "secret-token"]), complaint).await;

    let complaint = format!(
        "the admin API at {admin} answered 422 Unprocessable Entity: this is no session id: it does not match \
         session.id_pattern"
    );
    assert_fails(at(admin, &["secret*id"]), &complaint).await;

    let complaint = format!(
        "{} answered 200 OK, but not as an admin API does; give the address of [admin] with --admin",
        application.address()
    );
    assert_fails(at(application.address(), &["secret-id"]), &complaint).await;

    let without = write(&Config::to(&[admin]).toml().replace("[admin]\naddress = \"127.0.0.1:0\"\n", ""));
    let complaint = "the configuration file has no [admin]: give the address with --admin";
    assert_fails(revoke(&["secret-id", "-c", without.path().to_str().unwrap()]), complaint).await;

    assert_fails(at(admin, &["-"]), "standard input holds no id").await;
}

#[tokio::test]
async fn wrong_usage_is_told_apart_from_failure() {
    for arguments in [&[][..], &["abc", "--user", "ada"], &["abc", "--admin", "localhost"]] {
        let (code, _, complaint) = run(revoke(arguments)).await;
        assert_eq!(code, Some(2), "{complaint}");
    }
}

#[tokio::test]
async fn the_help_warns_of_ids_in_arguments() {
    let (code, help, _) = run(revoke(&["--help"])).await;
    assert_eq!(code, Some(0));
    assert!(help.contains("standard input") && help.contains("(ps)"), "{help}");
}
