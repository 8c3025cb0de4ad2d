//! Stable route labels for metrics across configuration reloads.

use crate::config::Route;

/// Numbers for route names. A name keeps its number in every later configuration, so that counters stay with
/// their route.
#[derive(Debug, Clone, Default)]
pub struct RouteLabels {
    /// Names of the routes of this and all earlier configurations.
    names: Vec<String>,
    /// Index into `names`, by route index.
    numbers: Vec<usize>,
}

impl RouteLabels {
    /// The labels for `routes`, extending the numbers of `self`.
    pub(super) fn succeed(&self, routes: &[Route]) -> Self {
        let mut names = self.names.clone();
        let number = |route: &Route| {
            let name = route.label();
            names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            })
        };
        let numbers = routes.iter().map(number).collect();
        RouteLabels { names, numbers }
    }

    /// The number of the route with this index.
    pub(super) fn number(&self, route: usize) -> Option<usize> {
        self.numbers.get(route).copied()
    }

    /// Names, indexed by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CorsPreflights, HostPattern, OnAbsent, OnOutage};

    fn route(host: HostPattern, path: &str) -> Route {
        let (on_absent, on_outage) = (OnAbsent::Anonymous, OnOutage::Deny);
        Route {
            host,
            path: path.into(),
            upstream: 0,
            on_absent,
            cors_preflights: CorsPreflights::Pass,
            on_outage,
            session: true,
            single: false,
            headers: Vec::new(),
            canary: None,
        }
    }

    #[test]
    fn a_name_keeps_its_number_wherever_its_route_stands() {
        let (root, api) = (route(HostPattern::Any, "/"), route(HostPattern::Exact("h".into()), "/api"));
        let first = RouteLabels::default().succeed(&[root.clone(), api.clone()]);
        let second = first.succeed(&[route(HostPattern::Suffix("h".into()), "/"), api]);
        let third = second.succeed(&[root]);
        assert_eq!(third.names(), ["/", "h/api", "*.h/"]);
        assert_eq!((first.number(0), first.number(1)), (Some(0), Some(1)));
        assert_eq!((second.number(0), second.number(1)), (Some(2), Some(1)));
        assert_eq!((third.number(0), third.number(1)), (Some(0), None));
    }
}
