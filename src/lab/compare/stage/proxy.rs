//! The proxy of a run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::ask::ask;
use super::config::TOKEN;
use super::instance::announced;
use super::process::{Process, Program};
use super::{PAUSE, StageError};

const UPSTREAMS: &str = "/api/v1/upstreams";

/// `vestibule run` and its admin API.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    admin: SocketAddr,
    token: String,
    /// Longest time until instances serve.
    patience: Duration,
    process: Process,
}

/// The proxy's report on an instance.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    address: SocketAddr,
    pub(super) state: String,
    condition: String,
    pub(super) requests: u64,
}

#[derive(Deserialize)]
struct Report {
    upstreams: Vec<Upstream>,
}

#[derive(Deserialize)]
struct Upstream {
    instances: Vec<Row>,
}

impl Proxy {
    /// Starts the proxy and waits until it is ready.
    pub(super) async fn start(
        config: PathBuf,
        token: String,
        patience: Duration,
    ) -> Result<Self, StageError> {
        let name = "vestibule".to_owned();
        let program =
            std::env::current_exe().map_err(|source| StageError::Start { name: name.clone(), source })?;
        let arguments = ["--log-format", "json", "run", "--config"].map(Into::into);
        let program = Program {
            name,
            program,
            arguments: arguments.into_iter().chain([config.into()]).collect(),
            environment: vec![(TOKEN.to_owned(), token.clone())],
        };
        let mut process = Process::start(&program).await?;
        let address = process.told(|line| announced(line, "listening")).await?;
        let admin = process.told(|line| announced(line, "admin listening")).await?;
        let proxy = Proxy { address, admin, token, patience, process };
        let is_ready = async || {
            let answer = ask(admin, (Method::GET, "/readyz"), &proxy.token, String::new()).await;
            Ok(answer.is_ok_and(|(status, _)| status == StatusCode::OK))
        };
        proxy.until("itself", is_ready).await?;
        Ok(proxy)
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until all these instances receive requests, provided that their state is ready.
    pub(super) async fn serves(&self, addresses: &[SocketAddr]) -> Result<(), StageError> {
        self.until("every instance", async || {
            let rows = self.rows().await?;
            Ok(addresses
                .iter()
                .all(|address| rows.iter().any(|row| row.address == *address && row.condition == "up")))
        })
        .await
    }

    /// The report on one instance.
    pub(super) async fn row(&self, address: SocketAddr) -> Result<Option<Row>, StageError> {
        Ok(self.rows().await?.into_iter().find(|row| row.address == address))
    }

    async fn rows(&self) -> Result<Vec<Row>, StageError> {
        let report = self.call(Method::GET, UPSTREAMS, String::new()).await?;
        let report: Report =
            serde_json::from_slice(&report).map_err(|error| StageError::Admin(error.into()))?;
        Ok(report.upstreams.into_iter().flat_map(|upstream| upstream.instances).collect())
    }

    /// Changes the state of an instance. `order` is the API call without the instance.
    pub(super) async fn order(&self, address: SocketAddr, mut order: Value) -> Result<(), StageError> {
        if let Some(order) = order.as_object_mut() {
            order.insert("instance".to_owned(), json!(address.to_string()));
        }
        self.call(Method::POST, UPSTREAMS, order.to_string()).await.map(|_| ())
    }

    async fn call(&self, method: Method, path: &str, body: String) -> Result<bytes::Bytes, StageError> {
        let answer = ask(self.admin, (method, path), &self.token, body).await;
        let (status, body) = answer.map_err(StageError::Admin)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(StageError::Refused(status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Polls for a state that is not signalled otherwise.
    async fn until(
        &self,
        what: &str,
        is_so: impl AsyncFn() -> Result<bool, StageError>,
    ) -> Result<(), StageError> {
        let began = Instant::now();
        while !is_so().await? {
            self.process.check()?;
            if began.elapsed() > self.patience {
                return Err(StageError::NotServing { what: what.to_owned(), waited: self.patience });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }
}
