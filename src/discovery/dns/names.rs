//! The search list of names, as defined in resolv.conf(5).

use hickory_proto::rr::Name;

/// The absolute names to query, in order. A name with at least `ndots` dots is first taken as absolute,
/// others are first completed with the search domains. Names that become too long are omitted.
pub(super) fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut absolute = name.clone();
    absolute.set_fqdn(true);
    if name.is_fqdn() {
        return vec![absolute];
    }
    let dots = name.iter().count().saturating_sub(1);
    let mut names: Vec<Name> =
        search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    let place = if dots >= ndots { 0 } else { names.len() };
    names.insert(place, absolute);
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn shown(text: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let search: Vec<Name> = search.iter().map(|domain| name(domain)).collect();
        candidates(&name(text), &search, ndots).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn short_names_are_completed_first_and_long_ones_last() {
        let search = ["default.svc.cluster.local", "svc.cluster.local."];
        assert_eq!(
            shown("app.default", &search, 5),
            ["app.default.default.svc.cluster.local.", "app.default.svc.cluster.local.", "app.default."]
        );
        assert_eq!(
            shown("app.default", &search, 1),
            ["app.default.", "app.default.default.svc.cluster.local.", "app.default.svc.cluster.local."]
        );
        assert_eq!(shown("_http._tcp.app", &[], 5), ["_http._tcp.app."]);
    }

    #[test]
    fn an_absolute_name_means_itself() {
        assert_eq!(shown("app.example.com.", &["example.org"], 5), ["app.example.com."]);
    }

    proptest! {
        #[test]
        fn all_candidates_are_absolute_and_begin_with_the_name(
            labels in proptest::collection::vec("[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", 1..6),
            domains in proptest::collection::vec("[a-z]{1,60}(\\.[a-z]{1,60}){0,3}", 0..4),
            ndots in 0_usize..6,
        ) {
            let text = labels.join(".");
            let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
            let names = shown(&text, &domains, ndots);
            let absolute = format!("{text}.");
            prop_assert!(names.contains(&absolute));
            let begins = |name: &String| name.starts_with(&absolute) && name.ends_with('.');
            prop_assert!(names.iter().all(begins));
            prop_assert!(names.len() <= domains.len() + 1);
        }
    }
}
