//! What has to hold over the whole story: the ledger of the sender against the books of both bots and the sidecar's
//! own counters.
//!
//! Pure, once everything is quiet.

use std::collections::{BTreeMap, BTreeSet};

use super::bots::Bot;
use super::checks::Promise;
use super::operator::Seen;
use super::sender::{Entry, Ledger};
use super::stage::failovers;
use crate::engine::vocab::Side;

/// The last five promises.
#[must_use]
pub fn verdicts(ledger: &Ledger, legacy: &Bot, new: &Bot, seen: &Seen) -> Vec<(Promise, Result<String, String>)> {
    let (by_legacy, by_new) = (legacy.book().acted.clone(), new.book().acted.clone());
    vec![
        (Promise::NoFailure, no_failure(ledger)),
        (Promise::Once, once(ledger, &by_legacy, &by_new)),
        (Promise::Signatures, signatures(legacy, new)),
        (Promise::Copies, copies(ledger, &by_new, new.copies(), legacy.copies())),
        (Promise::Counters, counters(ledger, legacy, new, seen)),
    ]
}

fn no_failure(ledger: &Ledger) -> Result<String, String> {
    let failed: Vec<&Entry> = ledger.iter().filter(|entry| !entry.is_good()).collect();
    match failed.first() {
        None if ledger.is_empty() => Err("nothing was sent".to_owned()),
        None => Ok(format!("{} requests", ledger.len())),
        Some(first) if first.status.is_ok() && !first.fits => Err(format!(
            "{} of {}; one got the answer to another",
            failed.len(),
            ledger.len()
        )),
        Some(first) => Err(format!(
            "{} of {}; the first: {:?}",
            failed.len(),
            ledger.len(),
            first.status
        )),
    }
}

type Acted = BTreeMap<String, u32>;

fn once(ledger: &Ledger, by_legacy: &Acted, by_new: &Acted) -> Result<String, String> {
    let sent: BTreeSet<&String> = ledger.iter().flat_map(|entry| &entry.keys).collect();
    let times = |key: &String| [by_legacy, by_new].iter().filter_map(|by| by.get(key)).sum::<u32>();
    if let Some(key) = sent.iter().find(|key| times(key) != 1) {
        return Err(format!("{key} was acted upon {} times", times(key)));
    }
    match by_legacy.keys().chain(by_new.keys()).find(|key| !sent.contains(key)) {
        Some(key) => Err(format!("{key} was acted upon and never sent")),
        None => Ok(format!("{} updates", sent.len())),
    }
}

fn signatures(legacy: &Bot, new: &Bot) -> Result<String, String> {
    let verified = legacy.served() + new.served() + new.copies();
    match legacy.forged() + new.forged() {
        0 => Ok(format!("{verified} verified")),
        some => Err(format!("{some} of {verified} did not")),
    }
}

/// New may have acted upon exactly what it answered to a shopper.
fn copies(ledger: &Ledger, by_new: &Acted, to_new: u64, to_legacy: u64) -> Result<String, String> {
    let served = ledger.iter().filter(|entry| entry.served_by == Some(Side::New));
    let may: BTreeSet<&String> = served.flat_map(|entry| &entry.keys).collect();
    match by_new.keys().find(|key| !may.contains(key)) {
        Some(key) => Err(format!("new acted upon {key}, which it did not serve")),
        None if to_legacy > 0 => Err(format!(
            "legacy got {to_legacy} copies, which it is not declared to take"
        )),
        None => Ok(format!(
            "{to_new} copies, {} updates acted upon by new when it served",
            by_new.len()
        )),
    }
}

fn counters(ledger: &Ledger, legacy: &Bot, new: &Bot, seen: &Seen) -> Result<String, String> {
    let traffic = &seen.route.traffic;
    let failed_over = failovers(seen);
    let requests = u64::try_from(ledger.len()).unwrap_or(u64::MAX);
    let process = &seen.status.process;
    let pairs = [
        // The subscription check is a request too, and is in no book.
        ("requests", traffic.assigned.legacy + traffic.assigned.new, requests + 1),
        (
            "requests to legacy",
            traffic.assigned.legacy + failed_over,
            legacy.served() + 1,
        ),
        ("requests to new", traffic.assigned.new, new.served() + failed_over),
        ("copies to new", traffic.copies.new.sent, new.copies()),
        ("answers made up", traffic.made.values().sum(), 0),
        ("outcomes lost", process.outcomes_lost, 0),
        ("panics", process.panics, 0),
    ];
    match pairs.iter().find(|(_, counted, received)| counted != received) {
        Some((what, counted, received)) => Err(format!("{what}: {counted} counted, {received} received")),
        None => Ok(format!(
            "{} copies skipped",
            traffic.copies.new.skipped.values().sum::<u64>()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(key: &str, status: Result<u16, String>, served_by: Side) -> Entry {
        Entry {
            sent: Duration::ZERO,
            took: Duration::ZERO,
            numbers: vec!["14155550142".to_owned()],
            keys: vec![key.to_owned()],
            fits: status.is_ok(),
            status,
            served_by: Some(served_by),
        }
    }

    fn acted(keys: &[(&str, u32)]) -> Acted {
        keys.iter().map(|(key, times)| ((*key).to_owned(), *times)).collect()
    }

    #[test]
    fn one_failure_among_many_requests_is_a_failure() {
        let mut ledger = vec![entry("a", Ok(200), Side::Legacy), entry("b", Ok(204), Side::New)];
        assert!(no_failure(&ledger).is_ok());
        ledger.push(entry("c", Ok(502), Side::New));
        assert!(no_failure(&ledger).is_err());
        ledger.pop();
        ledger.push(entry("c", Err("reset".to_owned()), Side::New));
        assert!(no_failure(&ledger).is_err());
        ledger.pop();
        ledger.push(Entry {
            fits: false,
            ..entry("c", Ok(200), Side::New)
        });
        assert!(no_failure(&ledger).is_err());
        assert!(no_failure(&Vec::new()).is_err());
    }

    #[test]
    fn lost_doubled_and_invented_updates_are_found() {
        let ledger = vec![entry("a", Ok(200), Side::Legacy), entry("b", Ok(200), Side::New)];
        assert!(once(&ledger, &acted(&[("a", 1)]), &acted(&[("b", 1)])).is_ok());
        assert!(once(&ledger, &acted(&[("a", 1)]), &acted(&[])).is_err());
        assert!(once(&ledger, &acted(&[("a", 2)]), &acted(&[("b", 1)])).is_err());
        assert!(once(&ledger, &acted(&[("a", 1), ("b", 1)]), &acted(&[("b", 1)])).is_err());
        assert!(once(&ledger, &acted(&[("a", 1), ("x", 1)]), &acted(&[("b", 1)])).is_err());
    }

    #[test]
    fn a_copy_that_was_acted_upon_is_found() {
        let ledger = vec![entry("a", Ok(200), Side::Legacy), entry("b", Ok(200), Side::New)];
        assert!(copies(&ledger, &acted(&[("b", 1)]), 9, 0).is_ok());
        assert!(copies(&ledger, &acted(&[("a", 1)]), 9, 0).is_err());
        assert!(copies(&ledger, &acted(&[("b", 1)]), 9, 1).is_err());
    }
}
