//! Describes the difference between two configurations for logs and the admin API.

use crate::config::{Config, Upstream};

/// One line for each part that differs between `before` and `after`. The lines contain no values, because
/// values may be secrets.
pub(super) fn between(before: &Config, after: &Config) -> Vec<String> {
    let parts = [
        ("limits", before.limits != after.limits),
        ("timeouts", before.timeouts != after.timeouts),
        ("shutdown", before.shutdown != after.shutdown),
        ("reload", before.reload != after.reload),
        ("upgrade", before.upgrade != after.upgrade),
        ("forwarding", before.forwarding != after.forwarding),
        ("session", before.session != after.session),
        ("affinity", before.affinity != after.affinity),
        ("identity", before.identity != after.identity),
        ("admin", before.admin != after.admin),
        ("routes", before.routes != after.routes),
    ];
    let mut changes: Vec<String> =
        parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part.to_owned()).collect();
    for upstream in &after.upstreams {
        match find(before, &upstream.name) {
            None => changes.push(format!("upstream {} added", upstream.name)),
            Some(known) if known != upstream => changes.push(upstream_change(known, upstream)),
            Some(_) => {}
        }
    }
    let gone = before.upstreams.iter().filter(|upstream| find(after, &upstream.name).is_none());
    changes.extend(gone.map(|upstream| format!("upstream {} removed", upstream.name)));
    if changes.is_empty() && !same_order(before, after) {
        changes.push("order of the upstreams".to_owned());
    }
    changes
}

fn find<'a>(config: &'a Config, name: &str) -> Option<&'a Upstream> {
    config.upstreams.iter().find(|upstream| upstream.name == name)
}

/// Routes refer to upstreams by index, so a changed order changes the routes' targets.
fn same_order(before: &Config, after: &Config) -> bool {
    before
        .upstreams
        .iter()
        .map(|upstream| &upstream.name)
        .eq(after.upstreams.iter().map(|upstream| &upstream.name))
}

fn upstream_change(before: &Upstream, after: &Upstream) -> String {
    let missing = |from: &Upstream, others: &Upstream| {
        let known = |address| others.instances.iter().any(|other| other.address == address);
        from.instances.iter().filter(|instance| !known(instance.address)).count()
    };
    match (missing(after, before), missing(before, after)) {
        (0, 0) => format!("upstream {}", after.name),
        (added, removed) => format!("upstream {}: {added} instances added, {removed} removed", after.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tables: &str, upstreams: &[(&str, &[u16])]) -> Config {
        let mut text =
            format!("version = 1\nworkers = 1\n{tables}\n[[listener]]\naddress = \"127.0.0.1:80\"\n");
        for (name, ports) in upstreams {
            text.push_str(&format!("[[upstream]]\nname = \"{name}\"\n"));
            for port in *ports {
                text.push_str(&format!("[[upstream.instance]]\naddress = \"127.0.0.1:{port}\"\n"));
            }
        }
        text.push_str("[[route]]\npath = \"/\"\nupstream = \"a\"\n");
        crate::config::parse(&text, "test").unwrap()
    }

    #[test]
    fn changes_are_named_and_counted() {
        let before = config("", &[("a", &[1, 2]), ("b", &[3])]);
        assert_eq!(between(&before, &before.clone()), Vec::<String>::new());
        let after = config("[timeouts]\nconnect = \"1s\"", &[("a", &[2, 4, 5]), ("c", &[3])]);
        let expected = [
            "timeouts",
            "upstream a: 2 instances added, 1 removed",
            "upstream c added",
            "upstream b removed",
        ];
        assert_eq!(between(&before, &after), expected);
        let weighted = "[session]\nid_pattern = \"[a-f]+\"\n[affinity]\nsecret = \"env:PATH\"";
        let after = config(weighted, &[("b", &[3]), ("a", &[1, 2])]);
        assert_eq!(between(&before, &after), ["session", "affinity", "routes"]);
    }
}
