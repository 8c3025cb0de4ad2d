//! Every instance gets its exact share, whichever worker a client comes to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::{StreamExt, stream};

use super::{report, scaled};
use crate::support::client;
use crate::support::config::Config;
use crate::support::service::Service;
use crate::support::vestibule::Program;

fn instances(names: &[&'static str]) -> Vec<Service> {
    names.iter().map(|&name| Service::telling(move |_| name.to_owned())).collect()
}

/// How often each instance answers `count` requests, each on a connection of its own.
async fn shares(address: SocketAddr, count: usize, at_once: usize) -> Vec<(String, usize)> {
    let answers = stream::iter(0..count).map(async |_| client::get(address, "/").await);
    let mut shares = BTreeMap::new();
    for answer in answers.buffer_unordered(at_once).collect::<Vec<_>>().await {
        assert_eq!(answer.status, 200);
        *shares.entry(answer.text().to_owned()).or_default() += 1;
    }
    shares.into_iter().collect()
}

fn expected(shares: &[(&str, usize)]) -> Vec<(String, usize)> {
    shares.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn four_instances_get_two_of_eight_requests_each() {
    let instances = instances(&["a", "b", "c", "d"]);
    let addresses: Vec<SocketAddr> = instances.iter().map(Service::address).collect();
    let program = Program::start(Config::to(&addresses).workers(2)).await;
    let rounds = scaled(10, 500);
    for _ in 0..rounds {
        let two_each = expected(&[("a", 2), ("b", 2), ("c", 2), ("d", 2)]);
        assert_eq!(shares(program.address, 8, 1).await, two_each);
    }
    let many = scaled(200, 10_000);
    let equal = expected(&[("a", many / 4), ("b", many / 4), ("c", many / 4), ("d", many / 4)]);
    assert_eq!(shares(program.address, many, 50).await, equal);
    report("equal shares", format!("{rounds} × 2-2-2-2, and {} each of {many} at once", many / 4));
}

#[tokio::test]
async fn weights_are_kept_to_the_request() {
    let instances = instances(&["five", "one", "three"]);
    let mut config = Config::to(&[]).workers(2);
    for (instance, weight) in instances.iter().zip([5, 1, 3]) {
        let address = instance.address();
        config =
            config.instance(&format!("[[upstream.instance]]\naddress = \"{address}\"\nweight = {weight}"));
    }
    let program = Program::start(config).await;
    let rounds = scaled(3, 50);
    for round in 0..rounds {
        let at_once = if round % 2 == 0 { 1 } else { 30 };
        let exact = expected(&[("five", 50), ("one", 10), ("three", 30)]);
        assert_eq!(shares(program.address, 90, at_once).await, exact);
    }
    report("weighted shares", format!("{rounds} × 50-30-10"));
}
