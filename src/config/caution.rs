//! What may surprise the operator although the configuration is valid.

use super::mode::{Mode, Modes};
use super::model::{Config, StoreKind};

impl Config {
    /// One line each, for `check`, the start and a reload.
    pub fn cautions(&self) -> Vec<String> {
        self.password_in_the_open().into_iter().chain(self.comparison()).collect()
    }

    fn password_in_the_open(&self) -> Option<String> {
        let StoreKind::Redis(url) = &self.session.store.kind else { return None };
        let is_in_the_open = url.credentials.password.is_some() && !url.is_reference();
        is_in_the_open.then(|| {
            "session.store.url holds the password itself: whoever may read the file could read every session; write \
             \"env:NAME\" or \"file:/path\", with the whole URL there"
                .to_owned()
        })
    }

    fn comparison(&self) -> Vec<String> {
        let Modes::Compare(shares) = self.session.mode else { return Vec::new() };
        let is_free = |mode: &Mode| *mode != Mode::Sticky && shares.of(*mode).is_some();
        let free: Vec<_> = Mode::ALL.into_iter().filter(is_free).map(Mode::as_str).collect();
        let mut cautions = vec![format!(
            "modes are compared over the same instances, which must know every session wherever it began: instances \
             that keep sessions in their own memory lose those of {}",
            free.join(" and ")
        )];
        let trusted = self.upstreams.iter().filter(|upstream| upstream.session_control);
        cautions.extend(trusted.map(|upstream| {
            format!(
                "upstream {:?} has session_control, which is obeyed in shared mode only: a client of another cohort \
                 cannot log in by it",
                upstream.name
            )
        }));
        cautions
    }
}
