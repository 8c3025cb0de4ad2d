//! Tests of the whole configuration.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// Every key with its default.
const REFERENCE: &str = include_str!("../../config/vestibule.toml");

const MINIMAL: &str = r#"
version = 1
[[listener]]
address = "127.0.0.1:8080"
[[upstream]]
name = "app"
health = {}
rebalance = {}
outlier = {}
hedge = {}
[[upstream.instance]]
address = "127.0.0.1:5001"
[[route]]
upstream = "app"
[admin]
"#;

fn shown(text: &str) -> String {
    parse(text, "x.toml").unwrap_err().to_string()
}

/// Keys of the reference that require a file, a variable or another value of another key.
const NEED_MORE: [&str; 10] = [
    "secret",
    "token",
    "ca",
    "certificate",
    "private_key",
    "sentinel_user",
    "sentinel_password",
    "session",
    "srv",
    "file",
];

/// The lines of the reference. Tables that are commented out are uncommented if `all` is true, and left out
/// otherwise.
fn lines(all: bool) -> Vec<&'static str> {
    let mut in_table = false;
    let line = |line: &'static str| {
        in_table = (in_table || line.starts_with("# [")) && line.starts_with("# ");
        if in_table { line.strip_prefix("# ").filter(|_| all) } else { Some(line) }
    };
    REFERENCE.lines().filter_map(line).collect()
}

/// Every key line of the reference, including commented-out keys, uncommented. Tables that are commented out
/// are left out.
fn all_keys_in_force() -> String {
    let uncommented = |line: &'static str| match line.strip_prefix("# ") {
        Some(key)
            if !key.starts_with(' ')
                && key.split(" = ").count() == 2
                && !NEED_MORE.contains(&key.split_once(" = ").unwrap().0) =>
        {
            key
        }
        _ => line,
    };
    lines(false).into_iter().map(uncommented).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_tells_the_defaults() {
    let reference = parse(REFERENCE, "reference").unwrap();
    let minimal = parse(MINIMAL, "minimal").unwrap();
    assert_eq!(format!("{reference:#?}"), format!("{minimal:#?}"));
}

#[test]
fn the_reference_shows_what_is_commented_out_as_it_is_written() {
    let text = all_keys_in_force();
    let config = parse(&text, "reference").unwrap();
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.session.header.unwrap(), "x-session-id");
    assert_eq!(config.session.cookie.attributes.domain.as_deref(), Some("example.com"));
    assert_eq!(config.identity.headers.last().unwrap().name, "x-tenant");
    assert_eq!(config.routes[0].host, HostPattern::Exact("app.example.com".into()));
    let Some(Discovery { source: DiscoverySource::Dns(dns), .. }) = &config.upstreams[0].discovery else {
        panic!("{:?}", config.upstreams[0].discovery);
    };
    assert_eq!(dns.resolvers, ["10.0.0.2:53".parse().unwrap()]);
}

/// An upstream whose `discovery` has these keys.
fn discovered(keys: &str) -> String {
    MINIMAL.replace(
        "[[upstream.instance]]\naddress = \"127.0.0.1:5001\"",
        &format!("[upstream.discovery]\n{keys}"),
    )
}

#[test]
fn the_reference_tells_the_defaults_of_discovery() {
    let written = all_keys_in_force().replace("[\"10.0.0.2:53\"]", "[]");
    let written = parse(&written, "reference").unwrap().upstreams.remove(0).discovery;
    let text = discovered("dns = \"app.default.svc.cluster.local:5001\"");
    assert_eq!(parse(&text, "minimal").unwrap().upstreams.remove(0).discovery, written);
}

#[test]
fn instances_that_are_found_need_not_be_written() {
    for keys in ["dns = \"app:80\"", "srv = \"_http._tcp.app\"", "file = \"/app.toml\""] {
        assert!(parse(&discovered(keys), "x").unwrap().upstreams[0].instances.is_empty());
    }
    assert!(shown(&discovered("")).contains("there is no `instance`"));
}

#[test]
fn a_file_of_instances_is_told_all_its_problems() {
    let address = |address: &str| format!("[[instance]]\naddress = \"{address}\"\n");
    let good = format!("{}weight = 3\n{}max_requests = 2\n", address("127.0.0.1:1"), address("[::1]:1"));
    let read: Vec<_> = parse_instances(&good, "x", Some(7))
        .unwrap()
        .iter()
        .map(|one| (one.weight, one.max_requests))
        .collect();
    assert_eq!(read, [(3, Some(7)), (1, Some(2))]);
    assert_eq!(parse_instances("instance = []", "x", None), Ok(Vec::new()));
    assert!(parse_instances("", "x", None).is_err());
    let bad = format!("{0}{0}wait = 1\n{1}", address("127.0.0.1:1"), address("host:1"));
    let problems = parse_instances(&bad, "x", None).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| problem.place.key.as_str()).collect();
    assert_eq!(places, ["instance[1].address", "instance[1].wait", "instance[2].address"]);
}

/// Tables whose keys are header names.
const HEADERS: [&str; 2] = ["identity.headers", "route.headers"];

/// The tables of the reference with their keys and direct subtables.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut tables = BTreeMap::from([(String::new(), BTreeSet::new())]);
    let mut table = String::new();
    for line in lines(true).into_iter().filter(|line| !line.starts_with("#  ")) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.split(']').next().unwrap().trim_start_matches('[').to_owned();
            let (parent, name) = table.rsplit_once('.').unwrap_or(("", &table));
            tables.get_mut(parent).unwrap().insert(name.to_owned());
            tables.insert(table.clone(), BTreeSet::new());
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            tables.get_mut(&table).unwrap().insert(key.to_owned());
        }
    }
    HEADERS.iter().for_each(|table| drop(tables.remove(*table)));
    tables
}

#[test]
fn the_reference_holds_exactly_the_keys_that_are_read() {
    let is_open = |line: &str| HEADERS.iter().any(|table| line.starts_with(&format!("[{table}]")));
    let stray = |line: &str| match line.starts_with('[') && !is_open(line) {
        true => format!("{line}\nstray-1234567890 = 0\n"),
        false => format!("{line}\n"),
    };
    let text = format!("stray-1234567890 = 0\n{}", lines(true).into_iter().map(stray).collect::<String>());
    let problems = parse(&text, "reference").unwrap_err();
    let read: BTreeMap<_, BTreeSet<_>> = problems
        .iter()
        .filter_map(|problem| {
            // A table that is commented out may refer to something that does not exist.
            let table = problem.place.key.strip_suffix("stray-1234567890")?.trim_end_matches('.');
            let keys = problem.help.strip_prefix("known here: ").unwrap().split(", ").map(str::to_owned);
            Some((table.replace("[0]", ""), keys.collect()))
        })
        .collect();
    assert_eq!(read, documented());
}

#[test]
fn tables_that_are_commented_out_show_how_they_are_written() {
    let two = "[[upstream]]\nname = \"app-v2\"\n[[upstream.instance]]\naddress = \"127.0.0.1:5002\"\n";
    let config = parse(&format!("{}\n{two}", lines(true).join("\n")), "reference").unwrap();
    let canary = config.routes[0].canary.as_ref().unwrap();
    assert_eq!((canary.upstream, canary.matches[0].0.len()), (1, 5));
    let short = "[route.canary]\nupstream = \"app-v2\"\npercent = \"5%\"\n[route.canary.auto]\n";
    let short = parse(&format!("{}{short}{two}", MINIMAL.replace("[admin]\n", "")), "x").unwrap();
    assert_eq!(short.routes[0].canary.as_ref().unwrap().auto, canary.auto);
}

#[test]
fn without_health_and_admin_there_are_none() {
    let text = MINIMAL.replace("health = {}\n", "").replace("[admin]\n", "");
    let config = parse(&text, "minimal").unwrap();
    assert_eq!((&config.upstreams[0].health, config.admin.is_none()), (&None, true));
}

#[test]
fn identity_headers_add_to_a_preset_and_override_it() {
    let text = format!("{MINIMAL}[identity.headers]\nx-user-id = \"/sub\"\nX-Gate = {{ value = \"a\" }}\n");
    let headers = parse(&text, "x").unwrap().identity.headers;
    let shown: Vec<_> = headers.iter().map(|header| (header.name.as_str(), &header.source)).collect();
    let pointer = |text: &str| IdentitySource::Pointer(text.to_owned());
    let constant = IdentitySource::Constant(http::HeaderValue::from_static("a"));
    assert_eq!(
        shown,
        [
            ("x-user-name", &pointer("/name")),
            ("x-user-email", &pointer("/email")),
            ("x-user-id", &pointer("/sub")),
            ("x-gate", &constant),
        ]
    );
}

#[test]
fn presets_name_the_headers_applications_know() {
    let names = |preset: &str| {
        let text = format!("{MINIMAL}[identity]\npreset = {preset:?}\n");
        let headers = parse(&text, "x").unwrap().identity.headers;
        headers.iter().map(|header| header.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    let forwarded = "x-forwarded-user x-forwarded-email x-forwarded-preferred-username x-forwarded-groups";
    assert_eq!(names("x-user"), "x-user-id x-user-name x-user-email");
    assert_eq!(names("oauth2-proxy"), forwarded);
    assert_eq!(names("remote-user"), "remote-user remote-name remote-email remote-groups");
    assert_eq!(names("none"), "");
}

#[test]
fn secrets_come_from_where_they_are_referred_to() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    let url = tempfile::NamedTempFile::new().unwrap();
    fs::write(url.path(), "redis://:hunter2@127.0.0.1:6379/0\n").unwrap();
    let text = format!(
        "{MINIMAL}token = \"file:{0}\"\n[affinity]\nsecret = \"file:{0}\"\n[session.store]\nurl = \"file:{1}\"\n",
        secret.path().display(),
        url.path().display(),
    );
    let config = parse(&text, "x").unwrap();
    assert_eq!(
        config.affinity.secret.as_ref().unwrap().expose().as_slice(),
        b"0123456789abcdef0123456789abcdef"
    );
    let token = config.admin.as_ref().unwrap().token.as_ref().unwrap();
    assert_eq!(token.expose(), "0123456789abcdef0123456789abcdef");
    let StoreKind::Redis(url) = &config.session.store.kind else { panic!("{:?}", config.session.store) };
    assert_eq!(url.credentials.password.as_ref().unwrap().expose(), "hunter2");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn a_redirect_is_refused_only_where_it_never_ends() {
    let redirect = format!("{MINIMAL}[session]\non_absent = {{ redirect = \"/signin?from=x\" }}\n");
    assert!(shown(&redirect).contains("redirects there again"));
    for signin in ["on_absent = \"anonymous\"", "session = false", "on_absent = \"unauthorized\""] {
        let text = format!("{redirect}[[route]]\npath = \"/signin\"\nupstream = \"app\"\n{signin}\n");
        assert!(parse(&text, "x").is_ok(), "{signin}");
    }
    assert!(parse(&redirect.replace("/signin", "https://id.example.com/"), "x").is_ok());
}

#[test]
fn no_message_shows_a_password_wherever_it_was_put() {
    let places = [
        "[session.store]\nurl = \"rediss:/:hunter2@h\"",
        "[session.store]\nurll = \"redis://:hunter2@h\"",
        "[session.store]\nurl = [\"redis://:hunter2@h\"]",
        "[session.store]\nformat = \"x\" # was redis://:hunter2@h",
        "[session]\nurl = \"redis://:hunter2@h\"",
        "[session]\nstore = { url = \"redis://:hunter2@h\", fromat = \"json\" }",
        "[session]\nstore = { url = '''\nredis://:hunter2@h''', fromat = \"json\" }",
        "[session.store]\nurl = redis://:hunter2@h",
        "[session.store]\nurl = \"redis://:hunter2@h",
        "[session.store]\nurl = \"\"\"redis://:hunter2@h\n",
        "[affinity]\nsecret = \"hunter2\"",
        "[affinity]\nsecret = { hunter2 = \"hunter2\" }",
        "token = \"hunter2\"",
        "token = \"hunter2-hunter2-hunter2 \"",
        "token = hunter2",
        "tokn = \"hunter2\"",
        "[identity.headers]\nX-Key = { value = \"hunter2\\n\" }",
    ];
    for place in places {
        let message = shown(&format!("{MINIMAL}{place}\n"));
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/x.toml");
}

/// The reference with one plausible operator mistake.
fn mutated() -> impl Strategy<Value = String> {
    let junk = [
        "\"", "'", "[", "]", "{", "}", "=", ".", ",", "#", "\n", "0", "-1", "é", "\0", "x", "[[", "\"\"\"",
        "1.5", "{id}",
    ];
    let edit = (any::<Index>(), any::<Index>(), select(junk.to_vec()));
    (0..4_usize, proptest::collection::vec(edit, 1..6)).prop_map(|(kind, edits)| {
        let all = all_keys_in_force();
        edits.into_iter().fold(all, |text, (at, to, junk)| edited(&text, kind, at, to, junk))
    })
}

fn edited(text: &str, kind: usize, at: Index, to: Index, junk: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    if lines.is_empty() {
        return junk.to_owned();
    }
    let (line, other) = (at.index(lines.len()), to.index(lines.len()));
    let (key, value) = lines[line].split_once(" = ").unwrap_or((lines[line], ""));
    let column = value.char_indices().nth(to.index(20)).map_or(value.len(), |(at, _)| at);
    let replaced = match kind {
        0 => format!("{key} = {junk}"),
        1 => format!("{key} = {}{junk}{}", &value[..column], &value[column..]),
        2 => format!("{key}{junk} = {value}"),
        _ => {
            lines.swap(line, other);
            lines.remove(other);
            return lines.join("\n");
        }
    };
    lines[line] = &replaced;
    lines.join("\n")
}

proptest! {
    #[test]
    fn any_text_gives_a_configuration_or_problems(text in mutated()) {
        if let Err(problems) = parse(&text, "x.toml") {
            prop_assert!(problems.iter().count() > 0);
            prop_assert!(problems.iter().all(|problem| !problem.what.is_empty() && problem.place.line > 0));
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}

#[test]
fn in_a_cluster_a_key_has_no_braces_of_its_own() {
    let text = |url: &str, key: &str| format!("{MINIMAL}[session.store]\nurl = \"{url}\"\nkey = \"{key}\"\n");
    assert!(shown(&text("redis+cluster://h", "{app}:{id}")).contains("the key holds braces"));
    assert!(parse(&text("redis://h", "{app}:{id}"), "x").is_ok());
    assert!(parse(&text("redis+cluster://h", "app:{id}"), "x").is_ok());
}

proptest! {
    #[test]
    fn any_text_gives_instances_or_problems(text in "(\\[\\[instance\\]\\]|address|weight|=|\n|\"|127\\.0\\.0\\.1:|[0-9]{1,6}| |[a-z]|,|\\[|\\]){0,30}") {
        match parse_instances(&text, "x.toml", None) {
            Ok(instances) => prop_assert!(instances.iter().all(|one| one.address.port() > 0 && one.weight > 0)),
            Err(problems) => prop_assert!(problems.iter().count() > 0),
        }
    }
}
