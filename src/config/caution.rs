//! Warnings about valid configurations with surprising effects.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::mode::{Mode, Modes};
use super::model::{Config, StoreKind};

impl Config {
    /// The warnings, one line each; shown by `check`, at process start and at a reload.
    pub fn cautions(&self) -> Vec<String> {
        self.password_in_the_open()
            .into_iter()
            .chain(self.comparison())
            .chain(self.shared_instances())
            .collect()
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

    /// Explains how limits combine where several upstreams contain the same instance.
    fn shared_instances(&self) -> Vec<String> {
        let mut by_address = BTreeMap::<SocketAddr, Vec<(&str, Option<usize>)>>::new();
        for upstream in &self.upstreams {
            for instance in &upstream.instances {
                let limits = by_address.entry(instance.address).or_default();
                limits.push((&upstream.name, instance.max_requests));
            }
        }
        let shared = by_address.iter().filter(|(_, limits)| limits.len() > 1);
        shared.filter_map(|(address, limits)| about_limits(*address, limits)).collect()
    }
}

/// `None` when no upstream limits the instance.
fn about_limits(address: SocketAddr, limits: &[(&str, Option<usize>)]) -> Option<String> {
    let most = limits.iter().filter_map(|(_, limit)| *limit).max()?;
    let each: Vec<_> = limits
        .iter()
        .map(|(name, limit)| match limit {
            Some(limit) => format!("{name:?} at most {limit}"),
            None => format!("{name:?} without a limit"),
        })
        .collect();
    let free = match limits.iter().any(|(_, limit)| limit.is_none()) {
        true => "; what has no limit takes slots of the others and is never refused",
        false => "",
    };
    Some(format!(
        "{address} is an instance of several upstreams: {} requests at a time, {most} of all together, whose requests are \
         counted together{free}",
        each.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_one_instance_in_several_upstreams_are_explained() {
        let address = SocketAddr::from(([127, 0, 0, 1], 5001));
        assert_eq!(about_limits(address, &[("api", None), ("web", None)]), None);
        assert_eq!(
            about_limits(address, &[("api", Some(10)), ("streams", Some(7))]).unwrap(),
            "127.0.0.1:5001 is an instance of several upstreams: \"api\" at most 10, \"streams\" at most 7 requests at a \
             time, 10 of all together, whose requests are counted together"
        );
        let caution = about_limits(address, &[("api", Some(10)), ("web", None)]).unwrap();
        assert!(
            caution.ends_with("; what has no limit takes slots of the others and is never refused"),
            "{caution}"
        );
    }
}
