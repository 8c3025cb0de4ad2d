//! Choosing a route and an instance.

use std::hint::black_box;

use criterion::Criterion;
use http::{Method, Uri};
use tokio::time::Instant;
use vestibule::balance::{Balancer, Pick, Wanted};
use vestibule::config::{
    self, Balance, CorsPreflights, Hash, HashKey, HostPattern, OnAbsent, OnOutage, Route,
};
use vestibule::headers::host::routing_path;
use vestibule::proxy::Router;
use vestibule::upstream::Health;

pub(crate) fn routes(c: &mut Criterion) {
    let uri = Uri::from_static("/console/api/apps/7f2c/chat-conversations");
    let path = routing_path(&Method::GET, &uri).unwrap();
    for count in [1, 100] {
        let paths = Router::new(&(0..count).map(|n| route(HostPattern::Any, n)).collect::<Vec<_>>());
        let hosts: Vec<_> =
            (0..count).map(|n| route(HostPattern::Exact(format!("{n}.example.com")), 0)).collect();
        let hosts = Router::new(&hosts);
        for (name, router) in [("paths", paths), ("hosts", hosts)] {
            c.bench_function(&format!("route/{count} {name}"), |b| {
                b.iter(|| router.find(black_box("0.example.com"), black_box(&path)));
            });
        }
    }
}

/// The first one takes every path, the others one each.
fn route(host: HostPattern, number: usize) -> Route {
    let path = if number == 0 { "/".to_owned() } else { format!("/console/api/apps-{number}") };
    Route {
        host,
        path,
        upstream: 0,
        on_absent: OnAbsent::Anonymous,
        cors_preflights: CorsPreflights::Pass,
        on_outage: OnOutage::Deny,
        session: true,
        single: false,
        headers: Vec::new(),
        canary: None,
    }
}

pub(crate) fn picks(c: &mut Criterion) {
    let ways = [
        ("round robin", Balance::RoundRobin),
        ("least requests", Balance::LeastRequests),
        ("two choices", Balance::TwoChoices),
        ("hash", Balance::Hash(Hash { key: HashKey::Client, bound: None })),
        ("bounded hash", Balance::Hash(Hash { key: HashKey::Client, bound: Some(125) })),
    ];
    for count in [10, 1_000, 10_000] {
        for (name, balance) in &ways {
            let balancer = balancer(balance, count, 0);
            c.bench_function(&format!("pick/{count}/{name}"), |b| b.iter(|| pick(&balancer)));
        }
        let balancer = balancer(&Balance::RoundRobin, count, count / 2);
        c.bench_function(&format!("pick/{count}/round robin, half down"), |b| b.iter(|| pick(&balancer)));
    }
}

fn pick(balancer: &Balancer) -> Pick {
    let now = Instant::now();
    balancer.pick(Wanted { key: Some(black_box(0x5eed)), tried: &[], now })
}

fn balancer(balance: &Balance, count: u32, down: u32) -> Balancer {
    let address = |number: u32| (std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 5001).into();
    let instances = (0..count).map(|number| config::Instance::at(address(number))).collect();
    let config = config::Upstream { balance: balance.clone(), instances, ..config::Upstream::named("app") };
    let balancer = Balancer::new(&config, None);
    for instance in balancer.upstream().instances().iter().take(down as usize) {
        instance.judge(Health::Down, "");
    }
    balancer.refresh();
    balancer
}
