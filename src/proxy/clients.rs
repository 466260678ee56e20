//! What one client may have at once: its connections, and its requests per second.
//!
//! In: addresses, and the time. Out: whether one more is within the limit. A client is an IPv4 address or a /64 of IPv6, in
//! which everybody has as many addresses as he likes. Shared by all workers, behind locks that are held for a lookup; where
//! no limit is set nothing is looked up. Tables are bounded: connections by their number, requests by `BUCKETS`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SHARDS: usize = 16;

/// Clients of one shard whose requests are remembered. Beyond it one is forgotten, which is to its advantage.
const BUCKETS: usize = 4_096;

/// How often a full shard is looked over for clients that need not be remembered.
const PURGE_EVERY: Duration = Duration::from_millis(100);

/// Requests that were saved up: as many as come in this time.
const BURST: Duration = Duration::from_secs(1);

/// The clients of an instance.
#[derive(Debug)]
pub struct Clients {
    connections: Option<usize>,
    /// The pause between requests at the highest rate.
    pause: Option<Duration>,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    open: HashMap<u128, usize>,
    /// When the last request would have come, had all come at the highest rate.
    due: HashMap<u128, Duration>,
    purged: Duration,
}

impl Clients {
    /// Limits on the connections of a client, and on its requests per second.
    #[must_use]
    pub fn new(connections: Option<usize>, requests_per_second: Option<usize>) -> Arc<Self> {
        let per_second = requests_per_second.map(|count| u32::try_from(count).unwrap_or(u32::MAX).max(1));
        Arc::new(Self {
            connections,
            pause: per_second.map(|count| BURST / count),
            shards: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// Whether there is a limit on requests: otherwise nobody need be asked about.
    #[must_use]
    pub const fn limits_requests(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether there is a limit on connections.
    #[must_use]
    pub const fn limits_connections(&self) -> bool {
        self.connections.is_some()
    }

    /// Counts a connection for as long as the answer is kept; none, if it is one too many.
    #[must_use]
    pub fn connect(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Connected> {
        let (Some(limit), Some(address)) = (self.connections, address) else {
            return Some(Connected(None));
        };
        let client = client(address);
        let mut shard = self.shard(client);
        let open = shard.open.entry(client).or_default();
        if *open >= limit {
            return None;
        }
        *open += 1;
        drop(shard);
        Some(Connected(Some((Arc::clone(self), client))))
    }

    /// Whether a request at this time, by a clock that only rises, is within the limit; counts it if it is.
    #[must_use]
    pub fn may_ask(&self, address: IpAddr, now: Duration) -> bool {
        let Some(pause) = self.pause else { return true };
        let client = client(address);
        let mut shard = self.shard(client);
        let due = shard.due.get(&client).copied().unwrap_or_default().max(now) + pause;
        if due > now + BURST {
            return false;
        }
        if shard.due.len() >= BUCKETS && !shard.due.contains_key(&client) {
            shard.make_room(now);
        }
        shard.due.insert(client, due);
        true
    }

    fn shard(&self, client: u128) -> MutexGuard<'_, Shard> {
        // The bits that differ between neighbours: the last of IPv4, the last of the /64.
        #[allow(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
        let bits = (client ^ (client >> 64)) as usize;
        let shard = &self.shards[bits % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn make_room(&mut self, now: Duration) {
        if now >= self.purged + PURGE_EVERY {
            self.purged = now;
            // Who is due no later than now has everything saved up that can be.
            self.due.retain(|_, due| *due > now);
        }
        if self.due.len() >= BUCKETS
            && let Some(any) = self.due.keys().next().copied()
        {
            self.due.remove(&any);
        }
    }
}

/// One connection of a client, counted until it is dropped.
#[derive(Debug)]
pub struct Connected(Option<(Arc<Clients>, u128)>);

impl Drop for Connected {
    fn drop(&mut self) {
        let Some((clients, client)) = &self.0 else { return };
        let mut shard = clients.shard(*client);
        if let Some(open) = shard.open.get_mut(client) {
            *open -= 1;
            if *open == 0 {
                shard.open.remove(client);
            }
        }
    }
}

fn client(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_by_address_and_by_network_of_ipv6() {
        let clients = Clients::new(Some(2), None);
        let first = clients.connect(Some(at("192.0.2.1"))).unwrap();
        let second = clients.connect(Some(at("::ffff:192.0.2.1"))).unwrap();
        assert!(clients.connect(Some(at("192.0.2.1"))).is_none());
        assert!(clients.connect(Some(at("192.0.2.2"))).is_some());
        drop(first);
        let third = clients.connect(Some(at("192.0.2.1"))).unwrap();
        let of_one_network = ["2001:db8::1", "2001:db8::ffff:2"].map(|text| clients.connect(Some(at(text))).unwrap());
        assert!(clients.connect(Some(at("2001:db8::3"))).is_none());
        assert!(clients.connect(Some(at("2001:db8:0:1::3"))).is_some());
        let nobody: Vec<_> = (0..9).map(|_| clients.connect(None).unwrap()).collect();
        drop((second, third, of_one_network, nobody));
        assert!(clients.shards.iter().all(|shard| shard.lock().unwrap().open.is_empty()));
    }

    #[test]
    fn requests_over_the_rate_are_refused_until_time_has_passed() {
        let clients = Clients::new(None, Some(10));
        let ms = Duration::from_millis;
        let ask = |now| clients.may_ask(at("192.0.2.1"), now);
        let start = ms(50_000);
        assert_eq!((0..30).filter(|_| ask(start)).count(), 10);
        assert!(!ask(start + ms(99)));
        assert!(ask(start + ms(100)));
        assert!(!ask(start + ms(150)));
        assert!(clients.may_ask(at("192.0.2.2"), start));
        assert_eq!((0..30).filter(|_| ask(start + ms(5_000))).count(), 10);
    }

    #[test]
    fn a_flood_of_addresses_fills_no_memory_and_frees_nobody_who_asks_all_the_time() {
        let clients = Clients::new(None, Some(1));
        let now = Duration::from_secs(100);
        for n in 0..200_000_u32 {
            assert!(clients.may_ask(IpAddr::from(n.to_be_bytes()), now));
        }
        let remembered: usize = clients.shards.iter().map(|shard| shard.lock().unwrap().due.len()).sum();
        assert!(remembered <= SHARDS * BUCKETS, "{remembered}");
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let clients = Clients::new(None, None);
        assert!(!clients.limits_requests());
        let _open = clients.connect(Some(at("192.0.2.1"))).unwrap();
        assert!(clients.may_ask(at("192.0.2.1"), Duration::ZERO));
        assert!(clients.shards.iter().all(|shard| {
            let shard = shard.lock().unwrap();
            shard.open.is_empty() && shard.due.is_empty()
        }));
    }
}
