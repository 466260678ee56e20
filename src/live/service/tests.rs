//! What is known of replicas, told moment by moment on a clock of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;

fn spec(side: Side, endpoints: &[&str], health: bool) -> Spec {
    Spec {
        side,
        endpoints: endpoints
            .iter()
            .map(|name| Endpoint::Host((*name).into(), 80))
            .collect(),
        protocol: Protocol::Auto,
        idle: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        dns_refresh: Duration::from_secs(30),
        health: health.then(|| Health {
            path: "/healthz".into(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        }),
        ejection: Ejection {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        },
        tls: None,
    }
}

fn service(side: Side, endpoints: &[&str]) -> Arc<Service> {
    Service::new(spec(side, endpoints, false), None, Arc::default())
}

fn addresses(list: &[&str]) -> Option<Vec<SocketAddr>> {
    Some(list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect())
}

fn places(service: &Service) -> Vec<String> {
    service
        .targets()
        .all()
        .iter()
        .map(|target| target.place.to_string())
        .collect()
}

fn picked(service: &Service, tried: &[u64]) -> Vec<String> {
    let mut all: Vec<String> = (0..64)
        .filter_map(|turn| match service.pick(tried, || turn) {
            Pick::One(target, _) => Some(target.place.to_string()),
            _ => None,
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

const S: Duration = Duration::from_secs(1);

#[test]
fn a_try_that_fails_doubles_the_time_to_the_next_up_to_the_longest() {
    let service = service(Side::Legacy, &["10.0.0.1", "10.0.0.2"]);
    let target = Arc::clone(&service.targets().all()[0]);
    assert_eq!(service.due(100 * S).0.len(), 0, "nobody is looked at without a reason");
    service.failed(&target, Ejected::Connect, 100 * S);
    // Requests that meet it meanwhile change nothing.
    service.failed(&target, Ejected::Connect, 100 * S);
    let mut now = 100 * S;
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let (due, next) = service.due(now);
        assert_eq!((due.len(), next), (0, now + pause * S));
        now = next;
        assert_eq!(service.due(now).0.len(), 1);
        service.probed(&target, Some(Ejected::Connect), now);
    }
    assert_eq!(picked(&service, &[]), ["10.0.0.2:80"]);
    service.probed(&target, None, now);
    assert_eq!(picked(&service, &[]).len(), 2);
    // Whoever fails again at once goes on where it was; whoever was well for long begins anew.
    service.failed(&target, Ejected::Connect, now + S);
    assert_eq!(service.due(now + S).1, now + 31 * S);
    service.connected(&target, now + 2 * S);
    service.failed(&target, Ejected::Connect, now + 100 * S);
    assert_eq!(service.due(now + 100 * S).1, now + 101 * S);
    assert_eq!(service.tally.ejections.value(Ejected::Connect), 3);
}

#[test]
fn the_only_address_stays_unless_it_is_news_and_silent() {
    for (side, why, stays) in [
        (Side::Legacy, Ejected::Timeout, true),
        (Side::Legacy, Ejected::Connect, true),
        (Side::New, Ejected::Connect, true),
        (Side::New, Ejected::Timeout, false),
    ] {
        let service = service(side, &["10.0.0.1"]);
        let target = Arc::clone(&service.targets().all()[0]);
        service.failed(&target, why, S);
        let given_up = matches!(service.pick(&[], || 0), Pick::Nobody { silent: true });
        assert_eq!(given_up, !stays, "{side:?} {why:?}");
        service.probed(&target, None, 2 * S);
        assert_eq!(picked(&service, &[]).len(), 1);
    }
}

#[test]
fn where_nobody_is_in_service_all_are_tried() {
    let service = service(Side::Legacy, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    for target in service.targets().all() {
        service.failed(target, Ejected::Timeout, S);
    }
    assert_eq!(picked(&service, &[]).len(), 3);
    let tried: Vec<u64> = service.targets().all().iter().map(|target| target.id).collect();
    assert_eq!(picked(&service, &tried[..2]), ["10.0.0.3:80"]);
    assert!(matches!(service.pick(&tried, || 0), Pick::Nobody { silent: false }));
}

#[test]
fn a_look_up_that_fails_changes_nothing_and_one_that_succeeds_keeps_who_stays() {
    let service = service(Side::Legacy, &["shop.internal"]);
    assert!(matches!(service.pick(&[], || 0), Pick::Unknown));
    service.found(0, None);
    assert!(matches!(service.pick(&[], || 0), Pick::Nobody { silent: false }));
    service.found(0, addresses(&["10.0.0.2", "10.0.0.1"]));
    assert_eq!(places(&service), ["10.0.0.1:80", "10.0.0.2:80"]);
    let stays = service.targets().all()[1].id;
    service.found(0, None);
    service.found(0, Some(Vec::new()));
    assert_eq!(places(&service).len(), 2);
    service.found(0, addresses(&["10.0.0.3", "10.0.0.2"]));
    assert_eq!(places(&service), ["10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(service.targets().all()[0].id, stays);
    assert_eq!(
        (
            service.tally.lookups.value(Found::Good),
            service.tally.lookups.value(Found::Bad)
        ),
        (2, 3)
    );
}

#[test]
fn of_two_families_the_second_one_is_for_when_the_first_is_out() {
    let service = service(Side::Legacy, &["shop.internal"]);
    service.found(0, addresses(&["::1", "127.0.0.1"]));
    assert_eq!(picked(&service, &[]), ["[::1]:80"]);
    let first = Arc::clone(&service.targets().all()[0]);
    service.failed(&first, Ejected::Connect, S);
    assert_eq!(picked(&service, &[]), ["127.0.0.1:80"]);
}

#[test]
fn health_takes_several_checks_to_change_its_mind() {
    let service = Service::new(
        spec(Side::Legacy, &["10.0.0.1", "10.0.0.2"], true),
        None,
        Arc::default(),
    );
    let target = Arc::clone(&service.targets().all()[0]);
    assert_eq!(service.due(Duration::ZERO).0.len(), 2, "all are asked at once");
    for (at, good, out) in [
        (1, false, false),
        (2, false, false),
        (3, true, false),
        (4, false, false),
        (5, false, false),
        (6, false, true),
        (7, true, true),
        (8, false, true),
        (9, true, true),
        (10, true, false),
    ] {
        service.checked(&target, good, at * S);
        assert_eq!(target.is_out(), out, "{at}");
    }
    assert_eq!(service.due(10 * S).1, 15 * S);
}

#[test]
fn what_is_known_outlives_a_configuration_that_names_the_same_endpoints() {
    let before = service(Side::Legacy, &["shop.internal", "10.0.0.9"]);
    before.found(0, addresses(&["10.0.0.1"]));
    let after = Service::new(
        spec(Side::Legacy, &["10.0.0.9", "shop.internal", "other.internal"], false),
        Some(&before),
        Arc::default(),
    );
    assert_eq!(places(&after), ["10.0.0.9:80", "10.0.0.1:80"]);
    assert_eq!(after.targets().all()[0].id, before.targets().all()[1].id);
}

#[test]
fn whoever_has_less_to_do_is_asked() {
    let service = service(Side::Legacy, &["10.0.0.1", "10.0.0.2"]);
    service.targets().all()[0].in_flight.store(3, Relaxed);
    assert_eq!(picked(&service, &[]), ["10.0.0.2:80"]);
}
