//! Looking after the replicas of both backends, away from the workers: names looked up, replicas that are out of
//! service tried again, health asked for.
//!
//! One task per service, ended when no configuration names it any more. What it finds it says to
//! [`Service`], where workers see it with their next request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Method, Request};
use tokio::task::JoinHandle;

use super::connect::{Opened, open};
use super::reach::ejected;
use crate::live::Live;
use crate::live::service::{ADDRESSES, Ejected, Health, Service, Target};
use crate::live::tally::RunFailure;
use crate::proxy::body::Outgoing;
use crate::telemetry::{clock, spawn};

/// The shortest time between two look-ups of a name that cannot be found, or whose addresses cannot be connected to.
const HURRY: Duration = Duration::from_secs(1);

/// Looks after the services of every configuration that comes into force. Does not end.
pub async fn look_after(live: Arc<Live>) {
    let mut tended: Vec<(Arc<Service>, JoinHandle<()>)> = Vec::new();
    loop {
        let services: Vec<Arc<Service>> = live.snapshot().map_or_else(Vec::new, |snapshot| {
            snapshot
                .backends
                .iter()
                .map(|backend| Arc::clone(&backend.service))
                .collect()
        });
        tended.retain(|(tended, task)| {
            let stays = services.iter().any(|service| Arc::ptr_eq(service, tended));
            if !stays {
                task.abort();
            }
            stays
        });
        for service in services {
            if !tended.iter().any(|(tended, _)| Arc::ptr_eq(&service, tended)) {
                let task = spawn::task("replicas", tend(Arc::clone(&service)));
                tended.push((service, task));
            }
        }
        live.published.notified().await;
    }
}

async fn tend(service: Arc<Service>) {
    let names = service.names();
    let looking = Arc::new(AtomicUsize::new(0));
    let mut next_lookup = Duration::ZERO;
    let mut last_lookup = Duration::ZERO;
    loop {
        let now = clock::monotonic();
        if service.wants_lookup() || service.targets().all().is_empty() {
            next_lookup = next_lookup.min(last_lookup + HURRY);
        }
        if !names.is_empty() && next_lookup <= now && looking.load(Relaxed) == 0 {
            looking.store(names.len(), Relaxed);
            for (at, name, port) in names.clone() {
                let (service, looking) = (Arc::clone(&service), Arc::clone(&looking));
                drop(spawn::task("look-up", async move {
                    service.found(at, look_up(&name, port).await);
                    looking.fetch_sub(1, Relaxed);
                    service.nudge();
                }));
            }
            last_lookup = now;
            next_lookup = now + service.spec.dns_refresh;
        }
        let (due, next_look) = service.due(now);
        for target in due {
            drop(spawn::task("probe", probe(Arc::clone(&service), target)));
        }
        let lookup = match (names.is_empty(), looking.load(Relaxed)) {
            // The end of one that is under way nudges.
            (true, _) | (false, 1..) => Duration::MAX,
            (false, 0) => next_lookup,
        };
        let pause = next_look.min(lookup).saturating_sub(clock::monotonic());
        // In time or before: both are reasons to look.
        let _ = tokio::time::timeout(pause, service.nudged()).await;
    }
}

async fn look_up(name: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, port)).await.ok()?;
    Some(found.take(2 * ADDRESSES).collect())
}

/// Asks one replica, by its health path or by connecting alone.
async fn probe(service: Arc<Service>, target: Arc<Target>) {
    let limit = match &service.spec.health {
        Some(health) => health.timeout,
        None => service.spec.connect_timeout,
    };
    let asked = async {
        let connection = open(&service, &target, false).await;
        match (connection, &service.spec.health) {
            (Ok(opened), Some(health)) => {
                let request = check(health, &target);
                let answer = match opened {
                    Opened::One(mut connection) => connection.sender.send_request(request).await.map(|a| a.status()),
                    Opened::Two(two) => {
                        let (head, body) = request.into_parts();
                        let Ok(head) = two.head(head, &target) else {
                            return Err(None);
                        };
                        let request = Request::from_parts(head, body);
                        two.sender().send_request(request).await.map(|a| a.status())
                    }
                };
                Ok(answer.is_ok_and(|status| matches!(status.as_u16(), 200..=399)))
            }
            (Ok(_), None) => Ok(true),
            (Err(RunFailure::Local), _) => Err(None),
            (Err(why), _) => Err(Some(ejected(why))),
        }
    };
    let asked = tokio::time::timeout(limit, asked).await;
    let now = clock::monotonic();
    let checked = service.spec.health.is_some();
    match asked {
        // What we could not even try says nothing.
        Ok(Err(None)) => service.unanswered(&target, now),
        Ok(Err(Some(why))) => {
            if checked {
                service.checked(&target, false, now);
            }
            service.probed(&target, Some(why), now);
        }
        Ok(Ok(good)) if checked => service.checked(&target, good, now),
        Ok(Ok(_)) => service.probed(&target, None, now),
        Err(_) if checked => service.checked(&target, false, now),
        Err(_) => service.probed(&target, Some(Ejected::Timeout), now),
    }
    // The next look has its time now.
    service.nudge();
}

fn check(health: &Health, target: &Target) -> Request<Outgoing> {
    let mut request = Request::new(Outgoing::Whole(None));
    *request.method_mut() = Method::GET;
    // The configuration takes no other.
    *request.uri_mut() = health.path.parse().unwrap_or_default();
    let host = HeaderValue::from_str(&target.authority()).unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static("understudy-health"));
    request
}
