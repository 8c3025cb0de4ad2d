//! Configuration files for the proxy under test.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::NamedTempFile;

/// One upstream called `app` behind `/`, listeners on free ports; everything else is added by the test.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    instances: Vec<SocketAddr>,
    admin: String,
    extra_instances: String,
    upstream: String,
    route: String,
    workers: usize,
    sections: String,
}

impl Config {
    pub(crate) fn to(instances: &[SocketAddr]) -> Self {
        let (admin, extra_instances, upstream, route, sections) = Default::default();
        Self { instances: instances.to_vec(), admin, extra_instances, upstream, route, workers: 1, sections }
    }

    /// Adds lines to `[[upstream]]`.
    pub(crate) fn upstream(mut self, lines: &str) -> Self {
        self.upstream.push_str(&format!("{lines}\n"));
        self
    }

    /// Adds lines to `[admin]`.
    pub(crate) fn admin(mut self, lines: &str) -> Self {
        self.admin.push_str(&format!("{lines}\n"));
        self
    }

    /// Operators have to know this token.
    pub(crate) fn token(self, token: &str) -> Self {
        // The file is put there whole: another test may read it at the same time.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("{token}.token"));
        let mut file = NamedTempFile::new_in(directory).unwrap();
        file.write_all(token.as_bytes()).unwrap();
        file.persist(&path).unwrap();
        self.admin(&format!("token = \"file:{}\"", path.display()))
    }

    /// Adds an `[[upstream.instance]]` table as it is.
    pub(crate) fn instance(mut self, table: &str) -> Self {
        self.extra_instances.push_str(&format!("{table}\n"));
        self
    }

    /// Adds lines to `[[route]]`.
    pub(crate) fn route(mut self, lines: &str) -> Self {
        self.route.push_str(&format!("{lines}\n"));
        self
    }

    /// Adds whole tables.
    pub(crate) fn with(mut self, tables: &str) -> Self {
        self.sections.push_str(&format!("{tables}\n"));
        self
    }

    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) fn toml(&self) -> String {
        let Self { instances, admin, extra_instances, upstream, route, workers, sections } = self;
        let instances: String = instances
            .iter()
            .map(|address| format!("[[upstream.instance]]\naddress = \"{address}\"\n"))
            .collect();
        format!(
            "version = 1\nworkers = {workers}\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n{admin}\
             [[upstream]]\nname = \"app\"\n{upstream}{instances}{extra_instances}\
             [[route]]\npath = \"/\"\nupstream = \"app\"\n{route}{sections}"
        )
    }
}
