//! The whole demonstration in one process: the instances, the page, and the proxy in front of them.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::fleet::Fleet;
use super::{ControlError, Controlled, Controls, Page, State};
use crate::app::{App, AppError, AppHandle, Outcome};
use crate::config::{self, Config, Mode, Problems};
use crate::lab::stub::Sessions;

const INSTANCES: usize = 4;
/// The problem comes first, then what solves it.
const FIRST_MODE: Mode = Mode::Local;

/// Where the demonstration is met. Port 0 lets the system choose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The proxy's address, for browsers.
    pub listen: SocketAddr,
    /// The proxy's admin address; another port is taken when this one is not free.
    pub admin: SocketAddr,
}

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot start the instances and the page")]
    Servers(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Proxy(#[from] AppError),
}

/// The demonstration, bound: the instances run, the page and the proxy do once [`run`](Demo::run) is awaited.
pub struct Demo {
    app: App,
    page: Page,
    controls: Arc<Stage>,
    listen: SocketAddr,
}

impl Demo {
    /// Binds everything on loopback ports, only `listen` on a port that somebody asked for. Must be called in
    /// a runtime with I/O and time; dropping the demonstration ends the instances.
    pub async fn bind(mut options: Options) -> Result<Demo, DemoError> {
        if options.admin == options.listen {
            options.admin.set_port(0);
        }
        let fleet = Fleet::start(INSTANCES, sessions(FIRST_MODE)).await.map_err(DemoError::Servers)?;
        let page =
            Page::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.map_err(DemoError::Servers)?;
        let config = config::parse(&config_text(&options, page.local_addr(), fleet.addresses()), "demo")?;
        let app = bind_app(config, options.admin)?;
        let controls = Stage { started: SystemTime::now(), proxy: app.handle(), fleet: Mutex::new(fleet) };
        let listen = app.addresses().first().copied().unwrap_or(options.listen);
        Ok(Demo { app, page, controls: Arc::new(controls), listen })
    }

    /// Where to point a browser.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Where `/metrics` and the like are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.app.admin_address()
    }

    /// Serves until `shutdown` completes; then running requests have a second to end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Outcome, AppError> {
        let page = self.page.run(self.controls, std::future::pending());
        let _page = AbortOnDropHandle::new(tokio::spawn(page));
        self.app.run(shutdown).await
    }
}

/// What the page steers: the proxy's mode and, with it, where the instances keep logins.
struct Stage {
    started: SystemTime,
    proxy: AppHandle,
    fleet: Mutex<Fleet>,
}

impl Controls for Stage {
    fn state(&self) -> Controlled<'_, State> {
        Box::pin(async {
            let instances = self.fleet.lock().await.states();
            State { mode: self.proxy.modes().one().unwrap_or(FIRST_MODE), started: self.started, instances }
        })
    }

    fn set_mode(&self, mode: Mode) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let mut fleet = self.fleet.lock().await;
            fleet.keep_logins_in(sessions(mode)).await?;
            self.proxy.set_mode(mode).await.map_err(|error| ControlError::Failed(io::Error::other(error)))?;
            Ok(())
        })
    }

    fn stop(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move { self.fleet.lock().await.stop(instance).await })
    }

    fn start(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move { self.fleet.lock().await.restart(instance).await })
    }
}

/// Where the application keeps logins in this mode: with shared sessions it keeps none itself.
fn sessions(mode: Mode) -> Sessions {
    match mode {
        Mode::Shared => Sessions::Header,
        Mode::Sticky | Mode::Local => Sessions::Memory,
    }
}

/// Binds the proxy; a taken admin port is no reason to fail.
fn bind_app(config: Config, admin: SocketAddr) -> Result<App, AppError> {
    match App::bind(config.clone()) {
        Err(AppError::Bind { address, .. }) if address == admin => {
            let any = config::Admin {
                hosts: Vec::new(),
                address: SocketAddr::new(admin.ip(), 0),
                token: None,
                ready_without_store: true,
            };
            App::bind(Config { admin: Some(any), ..config })
        }
        bound => bound,
    }
}

/// One worker, so that instances take turns strictly, as everybody expects of round robin.
fn config_text(
    Options { listen, admin }: &Options,
    page: SocketAddr,
    instances: impl Iterator<Item = SocketAddr>,
) -> String {
    let mode = FIRST_MODE.as_str();
    let instances = instances.fold(String::new(), |mut list, address| {
        // Writing to a String cannot fail.
        let _ = write!(list, "{{ address = \"{address}\" }}, ");
        list
    });
    format!(
        r#"version = 1
workers = 1
access_log.output = "off"
shutdown.deadline = "1s"
session.mode = "{mode}"
session.store.url = "memory:"
admin.address = "{admin}"

[[listener]]
address = "{listen}"

[[upstream]]
name = "dify"
session_control = true
health = {{ path = "/health", interval = "500ms" }}
instance = [{instances}]

[[upstream]]
name = "page"
instance = [{{ address = "{page}" }}]

[[route]]
path = "/console"
upstream = "dify"

[[route]]
path = "/v1"
upstream = "dify"

[[route]]
path = "/"
upstream = "page"
session = false
"#
    )
}
