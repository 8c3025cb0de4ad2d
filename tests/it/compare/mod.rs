//! `vestibule compare` as its users meet it: the program, its children and what it leaves behind.

mod baseline;
mod modes;
mod own;
mod processes;
mod published;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::Process;
use crate::support::vestibule::{command, write};

/// People who do little but come back, so that a lost session is noticed soon.
const SCENARIO: &str = r#"
name = "tiny"
warm_up = "500ms"
duration = "3s"
timeout = "10s"
instance_header = "X-Stub-Instance"
login_header = "X-Stub-Login"
users = { count = 12, think = { median = "50ms", p95 = "150ms" } }

[session]
log_out = "5%"
[[session.login]]
path = "/console/api/login"
json = '{ "email": "u{user}@example.com", "password": "{base64:Passw0rd{user}}" }'
[[session.logout]]
method = "POST"
path = "/console/api/logout"
headers = { X-CSRF-Token = "{cookie:csrf_token}" }
[session.check]
path = "/console/api/account/profile"
headers = { X-CSRF-Token = "{cookie:csrf_token}" }

[[action]]
name = "look"
session = true
path = "/console/api/account/profile"
headers = { X-CSRF-Token = "{cookie:csrf_token}" }
"#;

/// Longest time that a comparison of a few runs may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// A comparison that runs, in a directory that nobody else uses for temporary files.
struct Comparing {
    process: Process,
    directory: TempDir,
}

/// What it has come to.
pub(crate) struct Compared {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    directory: TempDir,
}

impl Comparing {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(SCENARIO, arguments)
    }

    fn start_with(scenario: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("scenario.toml");
        std::fs::write(&file, scenario).unwrap();
        let mut command: Command = command();
        command.arg("compare").arg("--scenario").arg(file).args(arguments);
        command.arg("--out").arg(out(&directory)).env("TMPDIR", directory.path());
        Self { process: Process::start(&mut command), directory }
    }

    async fn end(mut self) -> Compared {
        let status = self.process.exit_within(PATIENCE).await;
        Compared {
            code: status.code(),
            stdout: self.process.stdout().join("\n"),
            stderr: self.process.stderr().join("\n"),
            directory: self.directory,
        }
    }
}

impl Compared {
    pub(crate) async fn of(arguments: &[&str]) -> Self {
        Comparing::start(arguments).end().await
    }

    fn json_path(&self) -> PathBuf {
        out(&self.directory).join("comparison.json")
    }

    fn json(&self) -> Value {
        let text = std::fs::read(self.json_path()).unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        serde_json::from_slice(&text).unwrap()
    }

    /// The runs of one mode.
    pub(crate) fn runs(&self, mode: &str) -> Vec<Value> {
        let json = self.json();
        json["runs"].as_array().unwrap().iter().filter(|run| run["mode"] == mode).cloned().collect()
    }
}

fn out(directory: &TempDir) -> PathBuf {
    directory.path().join("report")
}

pub(crate) fn lost(run: &Value) -> u64 {
    run["load"]["sessions"]["lost"].as_u64().unwrap()
}

/// Processes that have the path of `directory` among their arguments or in their environment, without this one.
fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.as_os_str();
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|id| *id != std::process::id() && mentions(*id, needle)).collect()
}

fn mentions(id: u32, needle: &OsStr) -> bool {
    let needle = needle.as_encoded_bytes();
    ["cmdline", "environ"].iter().any(|file| {
        // It may have ended meanwhile.
        let text = std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        text.windows(needle.len()).any(|window| window == needle)
    })
}
