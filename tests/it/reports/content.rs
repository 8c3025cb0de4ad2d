//! What the files say, whatever the comparison is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use roxmltree::{Document, ParsingOptions};
use vestibule::lab::compare::{Comparison, EventMark, Figure, Oracle, Run};
use vestibule::lab::load::{ActionResult, Histogram, LoadResult, Loss, Sessions, Slice};
use vestibule::lab::report::{self, ReportError};

use super::sample;

/// The page and the three other files.
fn written(comparison: &Comparison) -> [String; 4] {
    let directory = tempfile::tempdir().unwrap();
    let written = report::write(comparison, &directory.path().join("new/report")).unwrap();
    let leftovers = std::fs::read_dir(directory.path().join("new/report")).unwrap().count();
    assert_eq!(leftovers, 4);
    [written.html, written.markdown, written.json, written.csv]
        .map(|path| std::fs::read_to_string(path).unwrap())
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap()
}

fn texts(page: &Document<'_>, tag: &str) -> Vec<String> {
    let nodes = page.descendants().filter(|node| node.has_tag_name(tag));
    nodes
        .map(|node| {
            node.descendants().filter(|inner| inner.is_text()).filter_map(|inner| inner.text()).collect()
        })
        .collect()
}

/// Numbers are read to their last but one bit, so only what has none is compared whole.
fn assert_same(json: &str, comparison: &Comparison) {
    let read: Comparison = serde_json::from_str(json).unwrap();
    assert_eq!(
        (&read.setup, &read.verdict, &read.machine),
        (&comparison.setup, &comparison.verdict, &comparison.machine)
    );
    for (read, run) in read.runs.iter().zip(&comparison.runs) {
        assert_eq!(
            (&read.mode, read.round, &read.events, read.oracle),
            (&run.mode, run.round, &run.events, run.oracle)
        );
        for ((figure, value), (own, expected)) in read.figures.iter().zip(&run.figures) {
            assert!(
                figure == own && (value - expected).abs() <= expected.abs() * 1e-12,
                "{figure:?}: {value}"
            );
        }
        assert_eq!(read.load.timeline.len(), run.load.timeline.len());
    }
    assert_eq!((read.runs.len(), read.modes.len()), (comparison.runs.len(), comparison.modes.len()));
}

#[test]
fn the_page_begins_with_the_verdict_and_goes_from_figures_to_raw_data() {
    let [page, ..] = written(&sample::comparison());
    let page = parsed(&page);
    assert_eq!(texts(&page, "h1"), ["Shared sessions served the users best."]);
    let headings = texts(&page, "h2");
    assert_eq!(
        headings[..3],
        ["Sessions lost", "Mean time of an action", "Processor time of the proxy per request"]
    );
    let sections = [
        "Why",
        "Under which conditions",
        "Published figures",
        "What users met",
        "Time and failures, moment by moment",
        "Load of each instance",
        "All figures",
        "How sure they are",
        "How it was measured",
    ];
    assert_eq!(headings[3..], sections);
    for plot in page.descendants().filter(|node| node.attribute("role") == Some("img")) {
        assert!(plot.attribute("aria-label").is_some_and(|label| label.len() > 30), "a plot has no words");
    }
}

#[test]
fn the_page_needs_no_script_and_nothing_from_elsewhere() {
    let [page, ..] = written(&sample::comparison());
    let document = parsed(&page);
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
    let links = document.descendants().flat_map(|node| ["src", "href"].map(|name| node.attribute(name)));
    assert_eq!(links.flatten().collect::<Vec<_>>(), ["data:,", "comparison.json", "runs.csv"]);
    assert!(page.contains("default-src 'none'") && !page.contains("url(") && !page.contains("@import"));
}

#[test]
fn hostile_names_stay_texts() {
    const NAME: &str = "</script><script>alert(1)</script>&\"'|`=x";
    let mut comparison = sample::comparison();
    for run in &mut comparison.runs {
        run.mode = format!("{}{NAME}", run.mode);
        run.load.failures = BTreeMap::from([(NAME.to_owned(), 3)]);
        run.events[0].subject = NAME.to_owned();
        run.load.timeline[0].instances.insert(NAME.to_owned(), 60);
    }
    let mut comparison = sample::with_verdict(comparison.runs);
    comparison.setup.scenario = NAME.to_owned();
    comparison.setup.scenario_text = NAME.to_owned();
    comparison.setup.command = format!("```\n{NAME}");
    comparison.machine.processor = NAME.to_owned();
    let [page, markdown, json, csv] = written(&comparison);
    let document = parsed(&page);
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
    assert!(texts(&document, "code").contains(&NAME.to_owned()), "the scenario's text is not as it was");
    assert!(!markdown.split("````").next().unwrap().contains("<script"), "{markdown}");
    assert_same(&json, &comparison);
    assert!(csv.contains("\"local</script><script>alert(1)</script>&\"\"'|`=x\",1,"), "{csv}");
}

#[test]
fn markdown_has_verdict_table_and_command() {
    let [_, markdown, ..] = written(&sample::comparison());
    assert!(markdown.starts_with("## Shared sessions served the users best: "), "{markdown}");
    assert!(markdown.contains("| Figure | local | sticky | shared |\n| --- | ---: | ---: | ---: |\n"));
    assert!(markdown.ends_with(
        "### Repeat it\n\n```sh\nvestibule compare --scenario dify-chat --seed 7 --rounds 3\n```\n"
    ));
}

#[test]
fn the_json_is_the_comparison_and_the_csv_has_a_row_for_each_run() {
    let comparison = sample::comparison();
    let [_, _, json, csv] = written(&comparison);
    assert_same(&json, &comparison);
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 1 + comparison.runs.len());
    assert!(
        rows[0].starts_with(
            "mode,round,seconds,requests,actions,failed,sessions,lost,oracle_lost,latency_mean,"
        )
    );
    assert!(rows.iter().all(|row| row.split(',').count() == 9 + Figure::ALL.len()));
}

#[test]
fn published_figures_stand_beside_ours_with_what_they_rest_on() {
    let mut comparison = sample::comparison();
    let [page, markdown, ..] = written(&comparison);
    let page = parsed(&page);
    assert!(texts(&page, "h2").contains(&"Published figures".to_owned()));
    let cells = texts(&page, "td");
    for cell in ["680 ms", "130 ms", "1234 ms", "not measured"] {
        assert!(cells.iter().any(|other| other == cell), "{cell}");
    }
    assert!(markdown.contains("| local | Mean time of an action | 680 ms | not measured |"), "{markdown}");
    comparison.published = None;
    assert!(written(&comparison).iter().all(|file| !file.contains("Published figures")));
}

#[test]
fn a_report_is_never_written_over_another() {
    let directory = tempfile::tempdir().unwrap();
    assert!(report::vacant(directory.path()).is_ok());
    std::fs::write(directory.path().join("runs.csv"), "mine").unwrap();
    let refused = report::write(&sample::comparison(), directory.path()).unwrap_err();
    assert!(matches!(&refused, ReportError::Exists(path) if path.ends_with("runs.csv")), "{refused}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(directory.path().join("runs.csv")).unwrap(), "mine");
}

#[test]
fn one_round_one_mode_and_nothing_at_all_are_told_as_what_they_are() {
    let all = sample::comparison().runs;
    let one_round: Vec<Run> = all.iter().filter(|run| run.round == 1).cloned().collect();
    let one_mode: Vec<Run> = all.into_iter().filter(|run| run.mode == "shared").collect();
    let first = |runs: Vec<Run>| texts(&parsed(&written(&sample::with_verdict(runs))[0]), "h1").remove(0);
    assert_eq!(
        first(one_round),
        "A single round cannot tell a difference from chance, so it takes three or more."
    );
    assert_eq!(first(one_mode), "Only shared sessions were tried, so there is nothing to hold them against.");
    assert_eq!(first(Vec::new()), "Nothing was measured that users feel, so nothing can be said.");
}

#[test]
fn twenty_instances_have_a_row_each_and_of_more_those_with_most_load_have() {
    let rows = |count: u64| {
        let mut runs = sample::comparison().runs;
        runs.retain(|run| run.round == 1 && run.mode == "shared");
        for slice in &mut runs[0].load.timeline {
            slice.instances = (1..=count).map(|number| (format!("n-{number}"), number)).collect();
        }
        let [page, ..] = written(&sample::with_verdict(runs));
        texts(&parsed(&page), "title").into_iter().filter(|title| title.starts_with("n-")).collect::<Vec<_>>()
    };
    assert_eq!(rows(20), (1..=20).map(|number| format!("n-{number}")).collect::<Vec<_>>());
    assert_eq!(rows(30), (7..=30).map(|number| format!("n-{number}")).collect::<Vec<_>>());
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..1e4f64, -1e300..1e300f64, Just(0.0), Just(f64::MAX), Just(f64::MIN_POSITIVE)]
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let counts = prop::collection::vec((number(), prop_oneof![0..50u64, Just(u64::MAX)]), 0..20);
    counts.prop_map(|counts| Histogram { counts, ..Histogram::default() })
}

prop_compose! {
    fn slice()(at in number(), [p50, p95] in [number(), number()], done in any::<u64>(), failed in any::<u64>(),
               instances in prop::collection::btree_map(any::<String>(), any::<u64>(), 0..20)) -> Slice {
        Slice { at, done, failed, p50, p95, instances, ..Slice::default() }
    }
}

prop_compose! {
    fn load()(latency in histogram(), timeline in prop::collection::vec(slice(), 0..6), seconds in number(),
              losses in prop::collection::vec(number(), 0..6), begun in any::<u64>(), kind in any::<String>()) -> LoadResult {
        let losses = losses.into_iter().map(|at| Loss { at, user: 1, login: None, instance: None }).collect();
        LoadResult {
            all: ActionResult { done: 1, failed: 0, latency },
            sessions: Sessions { begun, ..Sessions::default() },
            failures: BTreeMap::from([(kind, u64::MAX)]),
            timeline, seconds, losses,
            ..LoadResult::default()
        }
    }
}

prop_compose! {
    fn run()(mode in prop_oneof![Just("shared".to_owned()), Just("sticky".to_owned()), any::<String>()], round in 1..4u32,
             load in load(), figures in prop::collection::btree_map(prop::sample::select(&Figure::ALL[..]), number(), 0..14),
             events in prop::collection::vec((any::<String>(), number(), prop::option::of(number())), 0..3),
             lost in prop::option::of(any::<u64>())) -> Run {
        let mark = |(name, at, until): (String, f64, Option<f64>)| EventMark { subject: name.clone(), name, at, until };
        Run {
            mode, round, load,
            events: events.into_iter().map(mark).collect(),
            oracle: lost.map(|lost| Oracle { lost, agrees: lost % 2 == 0 }),
            figures: figures.into_iter().collect(),
            idle_shares: vec![(Figure::ProxyCpu, lost.map_or(0.0, |lost| (lost % 100) as f64 / 100.0))],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_comparison_becomes_a_well_formed_page_without_broken_numbers(
        runs in prop::collection::vec(run(), 0..10),
    ) {
        let [page, ..] = written(&sample::with_verdict(runs));
        let document = parsed(&page);
        for shape in document.descendants() {
            for name in ["d", "x", "y", "cx", "cy", "width", "height"] {
                let value = shape.attribute(name).unwrap_or_default();
                prop_assert!(!value.contains("NaN") && !value.contains("inf"), "{name} is {value}");
            }
        }
    }
}
