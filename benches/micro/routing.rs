//! Choosing a route and an instance.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use http::Uri;
use tokio::time::Instant;
use vestibule::balance::Balancer;
use vestibule::config::{self, HostPattern, OnAbsent, OnOutage, Route};
use vestibule::headers::host::routing_path;
use vestibule::proxy::Router;
use vestibule::upstream::Upstream;

pub(crate) fn routes(c: &mut Criterion) {
    let uri = Uri::from_static("/console/api/apps/7f2c/chat-conversations");
    let path = routing_path(&uri).unwrap();
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
        on_outage: OnOutage::Deny,
        session: true,
    }
}

pub(crate) fn picks(c: &mut Criterion) {
    for count in [4, 100, 10_000] {
        let all_up = balancer(count);
        let half_down = balancer(count);
        for instance in half_down.upstream().instances().iter().step_by(2) {
            instance.set_healthy(false);
        }
        let one_up = balancer(count);
        for instance in one_up.upstream().instances().iter().skip(1) {
            instance.set_healthy(false);
        }
        let now = Instant::now();
        for (name, balancer) in [("all up", all_up), ("half down", half_down), ("all but one down", one_up)] {
            c.bench_function(&format!("pick/{count}/{name}"), |b| {
                b.iter(|| balancer.pick(&[], black_box(now)))
            });
        }
    }
}

fn balancer(count: u32) -> Balancer {
    let instance = |number: u32| config::Instance {
        address: (std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 5001).into(),
        weight: 1,
    };
    let config = config::Upstream {
        name: "app".into(),
        balance: config::Balance::RoundRobin,
        session_control: false,
        health: None,
        instances: (0..count).map(instance).collect(),
    };
    Balancer::new(Arc::new(Upstream::new(&config)))
}
