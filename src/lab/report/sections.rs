//! The sections of the page, in reading order.

use std::fmt::Write;

use super::escape::escape;
use super::gather::events;
use super::plot::{self, sample, style};
use super::tables;
use crate::lab::compare::{Comparison, Figure, number};

/// The verdict: its first clause large, the rest below.
pub(super) fn head(comparison: &Comparison) -> String {
    let (setup, verdict) = (&comparison.setup, &comparison.verdict);
    let (first, rest) = clauses(&verdict.headline);
    let rest =
        if rest.is_empty() { String::new() } else { format!("<p class=\"lead\">{}</p>", escape(&rest)) };
    format!(
        "<header><p class=\"over\">vestibule compare \u{b7} {} \u{b7} {}</p><h1>{}</h1>{rest}</header>",
        escape(&setup.scenario),
        escape(&comparison.created),
        escape(&first)
    )
}

/// A headline as two sentences.
fn clauses(headline: &str) -> (String, String) {
    let end = headline.char_indices().find(|(at, character)| {
        matches!(character, ':' | ';') && headline.get(at + 1..).is_some_and(|rest| rest.starts_with(' '))
    });
    let Some((at, _)) = end else { return (headline.to_owned(), String::new()) };
    let (first, rest) = headline.split_at(at);
    let mut rest = rest.trim_start_matches([':', ';']).trim_start().chars();
    let rest = rest.next().map(|first| first.to_uppercase().chain(rest).collect());
    (format!("{first}."), rest.unwrap_or_default())
}

/// Three large figures: two that users experience and one cost.
pub(super) fn tiles(comparison: &Comparison) -> String {
    let is_measured = |figure: &Figure| comparison.modes.iter().any(|mode| mode.figure(*figure).is_some());
    let wished = [
        Figure::SessionsLost,
        Figure::LatencyMean,
        Figure::ProxyCpu,
        Figure::ActionsFailed,
        Figure::StoreCommands,
        Figure::LatencyP99,
    ];
    let tiles = wished.into_iter().filter(is_measured).take(3).map(|figure| tile(comparison, figure));
    format!(
        "<section class=\"tiles\" aria-label=\"The figures that decide\">{}</section>",
        tiles.collect::<String>()
    )
}

fn tile(comparison: &Comparison, figure: Figure) -> String {
    let most =
        comparison.modes.iter().filter_map(|mode| mode.figure(figure)).map(|e| e.mean).fold(0.0, f64::max);
    let mut rows = String::new();
    for (place, mode) in comparison.modes.iter().enumerate() {
        let Some(estimate) = mode.figure(figure) else { continue };
        let is_best = comparison.verdict.best.as_ref() == Some(&mode.mode);
        let width = if most > 0.0 { (estimate.mean / most * 100.0).clamp(0.0, 100.0) } else { 0.0 };
        let _ = write!(
            rows,
            "<div class=\"value{} {}\" style=\"--width:{width:.1}%\"><dt>{}</dt><dd>{}</dd></div>",
            if is_best { " best" } else { "" },
            style(place),
            escape(&mode.mode),
            figure.show(estimate.mean)
        );
    }
    format!("<div class=\"card tile\"><h2>{}</h2><dl>{rows}</dl></div>", figure.title())
}

pub(super) fn reasons(comparison: &Comparison) -> String {
    format!(
        "<section class=\"words\"><div><h2>Why</h2>{}</div><div><h2>Under which conditions</h2>{}</div></section>",
        list(&comparison.verdict.reasons),
        list(&comparison.verdict.conditions)
    )
}

fn list(items: &[String]) -> String {
    let items = items.iter().map(|item| match item.split_once(": ") {
        Some((subject, rest)) if subject.len() < 60 => {
            format!("<li><b>{}:</b> {}</li>", escape(subject), escape(rest))
        }
        _ => format!("<li>{}</li>", escape(item)),
    });
    format!("<ul>{}</ul>", items.collect::<String>())
}

pub(super) fn figures(comparison: &Comparison) -> String {
    let plots = Figure::ALL.into_iter().filter_map(|figure| {
        let plot = plot::intervals(comparison, figure)?;
        Some(format!(
            "<figure class=\"card\"><figcaption>{}</figcaption>{plot}</figure>",
            title_with_unit(figure)
        ))
    });
    format!(
        "<section><h2>All figures</h2><p class=\"note\">Means over the rounds with their 95 % confidence intervals\
         {}.</p>{}</section>\
         <section><h2>How sure they are</h2><p class=\"note\">Markers are means, lines are 95 % confidence intervals, \
         strokes below are the rounds.</p><div class=\"plots three\">{}</div></section>",
        beside(comparison),
        tables::figures(comparison),
        plots.collect::<String>()
    )
}

fn beside(comparison: &Comparison) -> String {
    let base = comparison.contrasts.first().map(|contrast| escape(&contrast.base));
    base.map_or_else(String::new, |base| format!("; differences are from <b>{base}</b>"))
}

fn title_with_unit(figure: Figure) -> String {
    match figure.unit().symbol() {
        "" => figure.title().to_owned(),
        symbol => format!("{}, {symbol}", figure.title()),
    }
}

pub(super) fn overviews(comparison: &Comparison) -> String {
    format!(
        "<section><h2>What users met</h2>{}{}<div class=\"plots two\">\
         <figure class=\"card\"><figcaption>How long actions took<small>Time that a share of the actions did not \
         exceed, forced logins included; all rounds together.</small></figcaption>{}</figure>\
         <figure class=\"card\"><figcaption>How sessions were lost<small>Share of the sessions that were lost until \
         then; mean of the rounds.</small></figcaption>{}</figure></div>\
         <details><summary>The same in numbers</summary>{}{}</details></section>",
        legend(comparison),
        marks(comparison),
        plot::distribution(comparison),
        plot::losses(comparison),
        tables::percentiles(comparison),
        tables::failures(comparison)
    )
}

pub(super) fn courses(comparison: &Comparison) -> String {
    let instances = plot::instances(comparison);
    let load = if instances.is_empty() {
        "<p>The instances do not tell who answered, so their loads are not known.</p>".to_owned()
    } else {
        multiples(comparison, instances)
    };
    format!(
        "<section><h2>Time and failures, moment by moment</h2><p class=\"note\">Thick line: median. Thin line: 95th \
         percentile, with its range over the rounds. Bars: failed actions. Mean of the rounds.</p>{}{}</section>\
         <section><h2>Load of each instance</h2><p class=\"note\">Answers per second, one row for each instance, \
         at most the 24 busiest, all on the same scale; mean of the rounds.</p>{}{load}</section>",
        marks(comparison),
        multiples(comparison, plot::timeline(comparison)),
        marks(comparison),
    )
}

/// The same plot for each mode.
fn multiples(comparison: &Comparison, plots: Vec<(usize, String)>) -> String {
    let figures = plots.into_iter().map(|(place, plot)| {
        let mode = comparison.modes.get(place).map_or("", |mode| mode.mode.as_str());
        format!(
            "<figure class=\"card\"><figcaption>{} {}</figcaption>{plot}</figure>",
            sample(place),
            escape(mode)
        )
    });
    format!("<div class=\"plots three\">{}</div>", figures.collect::<String>())
}

fn legend(comparison: &Comparison) -> String {
    let items = comparison.modes.iter().enumerate();
    let items = items.map(|(place, mode)| format!("<li>{} {}</li>", sample(place), escape(&mode.mode)));
    format!("<ul class=\"legend\" aria-label=\"Modes\">{}</ul>", items.collect::<String>())
}

/// The events that the plots mark with numbers.
fn marks(comparison: &Comparison) -> String {
    let events = events(comparison);
    if events.is_empty() {
        return String::new();
    }
    let items = events.iter().enumerate().map(|(place, event)| {
        let until =
            event.until.map_or_else(String::new, |until| format!(", well again at {} s", number(until)));
        let subject =
            if event.subject.is_empty() { String::new() } else { format!(" ({})", escape(&event.subject)) };
        let (name, at) = (escape(&event.name), number(event.at));
        format!("<li><span class=\"mark\">{}</span> {name}{subject} at {at} s{until}</li>", place + 1)
    });
    format!("<ul class=\"legend\" aria-label=\"Events\">{}</ul>", items.collect::<String>())
}

pub(super) fn method(comparison: &Comparison) -> String {
    let (setup, machine) = (&comparison.setup, &comparison.machine);
    let rows = [
        ("Scenario", setup.scenario.clone()),
        ("Seed", setup.seed.to_string()),
        ("Rounds", format!("{} of each mode, the modes one after another in each", setup.rounds)),
        ("Target", setup.target.clone()),
        ("Store", setup.store.clone()),
        ("Processor", format!("{}, {} cores", machine.processor, machine.cores)),
        ("Memory", format!("{} MiB", machine.memory_mib)),
        ("System", machine.system.clone()),
        ("vestibule", comparison.program.clone()),
        ("Begun", comparison.created.clone()),
    ];
    let rows =
        rows.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(value)));
    let configurations = setup.configurations.iter().map(|(mode, text)| {
        format!("<details><summary>Configuration: {}</summary>{}</details>", escape(mode), code(text))
    });
    format!(
        "<section><h2>How it was measured</h2><p class=\"note\">The same users with the same seed went through every \
         mode. Times count from when an action was due, not from when it could be sent, so that waiting is not left \
         out. Intervals are Student's t over the rounds.</p><dl class=\"facts\">{}</dl>\
         <h3>Do it again</h3>{}<details><summary>Scenario</summary>{}</details>{}\
         <details><summary>Every run</summary>{}</details>\
         <p class=\"note\">The raw data lie beside this page: <a href=\"comparison.json\">comparison.json</a> with \
         everything, <a href=\"runs.csv\">runs.csv</a> with a row for each run.</p></section>",
        rows.collect::<String>(),
        code(&setup.command),
        code(&setup.scenario_text),
        configurations.collect::<String>(),
        tables::every_run(comparison)
    )
}

fn code(text: &str) -> String {
    format!("<pre tabindex=\"0\"><code>{}</code></pre>", escape(text))
}
