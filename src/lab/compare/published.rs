//! Published figures next to the measured ones, and how the latter change with the assumptions.

use std::slice;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::comparison::CompareError;
use super::event::Event;
use super::idle::withhold;
use super::model::{Estimate, Figure, ModeResult};
use super::plan::Plan;
use super::run::run;
use super::status::Status;
use super::target::Target;
use crate::config::staging::{self, Change};

/// Placeholder for a figure that was not measured.
const UNKNOWN: &str = "not measured";

/// Published figures, and the measurements that explain them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The published figures, in the scenario's order.
    pub claims: Vec<Claim>,
    /// One change each.
    pub assumptions: Vec<Assumption>,
}

/// A published figure and the measured one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub mode: String,
    pub figure: Figure,
    pub published: f64,
    /// `None`: the mode was not run, or the figure could not be measured.
    pub measured: Option<Estimate>,
}

/// The measurements with one thing changed: one run per mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assumption {
    /// The changed assumption, in words.
    pub about: String,
    /// All measured figures by mode.
    pub modes: Vec<(String, Vec<(Figure, f64)>)>,
}

impl Published {
    /// Published and measured figures as a table; the first row is the header.
    pub fn claim_table(&self) -> Vec<Vec<String>> {
        let head = ["Mode", "Figure", "Published", "Here"].map(str::to_owned).to_vec();
        let rows = self.claims.iter().map(|claim| {
            let here =
                claim.measured.as_ref().map_or(UNKNOWN.to_owned(), |here| claim.figure.show(here.mean));
            let published = claim.figure.show(claim.published);
            vec![claim.mode.clone(), claim.figure.title().to_owned(), published, here]
        });
        std::iter::once(head).chain(rows).collect()
    }

    /// The published figures under each changed assumption, as a table; the first row is the header. `modes`
    /// are the measurements without a change.
    pub fn assumption_table(&self, modes: &[ModeResult]) -> Vec<Vec<String>> {
        let columns: Vec<(&str, Figure)> =
            self.claims.iter().map(|claim| (claim.mode.as_str(), claim.figure)).collect();
        let titles = columns.iter().map(|(mode, figure)| format!("{mode}: {}", figure.title()));
        let means = modes.iter().map(|mode| {
            let means = mode.figures.iter().map(|(figure, estimate)| (*figure, estimate.mean)).collect();
            (mode.mode.clone(), means)
        });
        let unchanged = Assumption { about: "Nothing".to_owned(), modes: means.collect() };
        let row = |assumption: &Assumption| {
            let cells = columns.iter().map(|(mode, figure)| {
                assumption.figure(mode, *figure).map_or(UNKNOWN.to_owned(), |value| figure.show(value))
            });
            std::iter::once(assumption.about.clone()).chain(cells).collect()
        };
        let head = std::iter::once("Changed".to_owned()).chain(titles).collect();
        [head, row(&unchanged)].into_iter().chain(self.assumptions.iter().map(row)).collect()
    }
}

impl Assumption {
    fn figure(&self, mode: &str, figure: Figure) -> Option<f64> {
        let (_, figures) = self.modes.iter().find(|(name, _)| name == mode)?;
        figures.iter().find(|(other, _)| *other == figure).map(|(_, value)| *value)
    }
}

/// The published figures of the scenario, next to the measurements in `modes`.
pub(super) fn claims(plan: &Plan, modes: &[ModeResult]) -> Vec<Claim> {
    let beside = |claim: &staging::Claim| {
        let figure = Figure::ALL.into_iter().find(|figure| figure.key() == claim.figure)?;
        let ours = modes.iter().find(|ours| ours.mode == claim.mode);
        let measured = ours.and_then(|ours| ours.figure(figure)).cloned();
        Some(Claim { mode: claim.mode.to_owned(), figure, published: claim.value, measured })
    };
    plan.scenario.staging.published.iter().filter_map(beside).collect()
}

/// The results of the assumptions, with remarks.
#[derive(Debug, Default)]
pub(super) struct Assumed {
    pub(super) assumptions: Vec<Assumption>,
    /// What had to be omitted.
    pub(super) omissions: Vec<String>,
    /// Disagreements between the accounts of instances and users.
    pub(super) objections: Vec<String>,
}

/// Runs every mode once more for each assumption of the scenario.
pub(super) async fn assumptions(
    plan: &Plan,
    status: &watch::Sender<Status>,
) -> Result<Assumed, CompareError> {
    let mut assumed = Assumed::default();
    for assumption in &plan.scenario.staging.assumptions {
        status.send_modify(|status| status.assumption = Some(assumption.about.clone()));
        let about = &assumption.about;
        let feasible = changed(plan, &assumption.change).feasible()?;
        assumed.omissions.extend(feasible.omissions.iter().map(|omission| format!("{about}: {omission}")));
        let mut modes = Vec::new();
        for mode in &plan.modes {
            status.send_modify(|status| status.begin(mode.as_str(), feasible.plan.length()));
            let mut ran = run(&feasible, *mode, 1, status).await?;
            withhold(slice::from_mut(&mut ran.run));
            let told = ran.objections.iter().map(|told| format!("{} ({about}): {told}", ran.run.mode));
            assumed.objections.extend(told);
            modes.push((ran.run.mode, ran.run.figures));
            status.send_modify(Status::end);
        }
        assumed.assumptions.push(Assumption { about: about.clone(), modes });
    }
    Ok(assumed)
}

/// `plan` with `change` applied.
fn changed(plan: &Plan, change: &Change) -> Plan {
    let mut plan = plan.clone();
    let users = &mut plan.scenario.users;
    users.count = change.users.unwrap_or(users.count);
    users.think = change.think.or(users.think);
    if let Some(session) = &mut plan.scenario.session {
        session.on_lost = change.on_lost.unwrap_or(session.on_lost);
        session.login_attempts = change.login_attempts.unwrap_or(session.login_attempts);
    }
    if let Some(events) = &change.events {
        plan.events = Event::of_names(events);
    }
    plan.scenario.staging.stubs = change.stubs;
    if let Target::Stubs(stubs) = &mut plan.target {
        *stubs = stubs.staged(&change.stubs);
    }
    plan.store_delay = change.store_delay.unwrap_or(plan.store_delay);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_scenario;
    use crate::lab::compare::{SessionMode, Stubs};

    const SCENARIO: &str = r#"
        name = "published"
        users = { count = 10 }
        [session]
        login = [{ path = "/login", json = "{}" }]
        [[action]]
        name = "look"
        path = "/"
        session = true
        [compare]
        login = "80ms"
        [[compare.published]]
        mode = "local"
        figure = "latency_mean"
        value = "12.4"
        [[compare.assumption]]
        about = "nobody tries twice"
        login_attempts = 1
        login = "20ms"
        events = []
    "#;

    fn plan() -> Plan {
        let scenario = parse_scenario(SCENARIO, "test").unwrap_or_else(|problems| panic!("{problems}"));
        Plan {
            target: Target::Stubs(Stubs::default().staged(&scenario.staging.stubs)),
            scenario,
            scenario_text: SCENARIO.to_owned(),
            store_delay: Default::default(),
            modes: vec![SessionMode::Local],
            events: vec![Event::InstanceKilled],
            rounds: 1,
            seed: 1,
            command: String::new(),
        }
    }

    #[test]
    fn a_claim_stands_beside_what_its_mode_came_to() {
        let ours = Estimate { mean: 13.0, interval: None, rounds: vec![13.0] };
        let modes =
            [ModeResult { mode: "local".to_owned(), figures: vec![(Figure::LatencyMean, ours.clone())] }];
        let claim = |measured| Claim {
            mode: "local".to_owned(),
            figure: Figure::LatencyMean,
            published: 12.4,
            measured,
        };
        assert_eq!(claims(&plan(), &modes), [claim(Some(ours))]);
        assert_eq!(claims(&plan(), &[]), [claim(None)]);
    }

    #[test]
    fn what_a_scenario_may_name_is_known() {
        let names = |of: &str, names: &[&str]| {
            format!("{of} = [{}]", names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(","))
        };
        let modes = SessionMode::ALL.map(SessionMode::as_str);
        let events = Event::ALL.map(Event::as_str);
        let wished = SCENARIO.replace(
            "[compare]",
            &format!("[compare]\n{}\n{}", names("modes", &modes), names("events", &events)),
        );
        let staging = parse_scenario(&wished, "test").unwrap_or_else(|problems| panic!("{problems}")).staging;
        assert_eq!(staging.modes, modes);
        assert_eq!(Event::of_names(&staging.events.unwrap()), Event::ALL);
    }

    #[test]
    fn every_figure_that_may_be_published_is_one_of_ours() {
        let refused = SCENARIO.replace("latency_mean", "rain");
        let problems = parse_scenario(&refused, "test").unwrap_err().to_string();
        let (_, known) = problems.split_once("write one of: ").unwrap();
        let known: Vec<&str> = known.lines().next().unwrap().split(", ").collect();
        assert_eq!(known.len(), 7, "{known:?}");
        for key in known {
            assert!(Figure::ALL.iter().any(|figure| figure.key() == key), "{key}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let mut plan = plan();
        plan.events = Vec::new();
        plan.modes = vec![SessionMode::Shared];
        let told = |plan: &Plan| plan.clone().feasible().unwrap().omissions;
        assert_eq!(told(&plan), [] as [&str; 0]);
        let text = "version = 1\n[[instance]]\naddress = \"127.0.0.1:5001\"\n";
        let own =
            crate::config::parse_application(text, "test").unwrap_or_else(|problems| panic!("{problems}"));
        plan.target = Target::Own(own);
        let expected = "What the scenario wishes of instances and store was left out: they are your own.";
        assert_eq!(told(&plan), [expected]);
    }

    #[test]
    fn tables_show_what_was_published_here_and_otherwise() {
        let ours = Estimate { mean: 13.0, interval: None, rounds: vec![13.0] };
        let modes = [ModeResult { mode: "local".to_owned(), figures: vec![(Figure::LatencyMean, ours)] }];
        let otherwise = vec![("local".to_owned(), vec![(Figure::LatencyMean, 9.0)])];
        let assumptions = vec![
            Assumption { about: "A".to_owned(), modes: otherwise },
            Assumption { about: "B".to_owned(), modes: Vec::new() },
        ];
        let published = Published { claims: claims(&plan(), &modes), assumptions };
        let mean = "Mean time of an action";
        let head = ["Mode", "Figure", "Published", "Here"];
        assert_eq!(published.claim_table(), [head, ["local", mean, "12.4 ms", "13 ms"]]);
        let head = ["Changed", "local: Mean time of an action"];
        let rows = [head, ["Nothing", "13 ms"], ["A", "9 ms"], ["B", "not measured"]];
        assert_eq!(published.assumption_table(&modes), rows);
    }

    #[test]
    fn an_assumption_changes_what_it_names_and_nothing_else() {
        let plan = plan();
        let other = changed(&plan, &plan.scenario.staging.assumptions[0].change);
        let login = |plan: &Plan| match &plan.target {
            Target::Stubs(stubs) => stubs.login.map(|login| login.as_millis()),
            Target::Own(_) => None,
        };
        assert_eq!((login(&plan), login(&other)), (Some(80), Some(20)));
        assert_eq!(other.scenario.session.as_ref().map(|session| session.login_attempts), Some(1));
        assert_eq!((other.events.len(), other.scenario.users), (0, plan.scenario.users));
    }
}
