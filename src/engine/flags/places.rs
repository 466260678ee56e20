//! Where each flag stands, by its key: one look at a table, one comparison of the key found.
//!
//! Pure. Built once, then only read. Keys come from operators, so the hash needs no secret. Speed: bench `flags`.

use xxhash_rust::xxh64::xxh64;

/// Places by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Open addressing, at most half full, a power of two long: 0 is free, else the place plus one, and above it 32 bits of
    /// the key's hash, so that a key is compared with hardly any but its own.
    slots: Box<[u64]>,
}

const PLACE_BITS: u32 = 32;

impl Places {
    /// The places of keys, each once, in their order. `count` is below 2^32.
    pub(super) fn new<'k>(keys: impl ExactSizeIterator<Item = &'k str>) -> Self {
        let mut slots = vec![0_u64; (keys.len() * 2).next_power_of_two().max(2)].into_boxed_slice();
        let mask = slots.len() - 1;
        for (at, key) in (1_u64..).zip(keys) {
            let hash = xxh64(key.as_bytes(), 0);
            let mut index = hash as usize & mask;
            while slots[index] != 0 {
                index = (index + 1) & mask;
            }
            slots[index] = hash >> PLACE_BITS << PLACE_BITS | at;
        }
        Self { slots }
    }

    /// The place of a key. `is_at` says whether a place has this key.
    #[inline]
    pub(super) fn find(&self, key: &str, is_at: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().wrapping_sub(1);
        let hash = xxh64(key.as_bytes(), 0);
        let mut index = hash as usize & mask;
        loop {
            let slot = *self.slots.get(index)?;
            // The place is in the lower half, and free slots have none.
            let at = (slot as u32).checked_sub(1)?;
            if (slot ^ hash) >> PLACE_BITS == 0 && is_at(at) {
                return Some(at);
            }
            index = (index + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_at_its_place_and_no_other() {
        for count in [0, 1, 2, 3, 100, 5_000] {
            let keys: Vec<String> = (0..count).map(|n| format!("flag-{n}")).collect();
            let places = Places::new(keys.iter().map(String::as_str));
            let find = |key: &str| places.find(key, |at| keys[at as usize] == key);
            for (at, key) in keys.iter().enumerate() {
                assert_eq!(find(key), Some(at as u32), "{count} {key}");
            }
            assert!(
                (count..count + 1_000).all(|n| find(&format!("flag-{n}")).is_none()),
                "{count}"
            );
        }
        assert_eq!(Places::default().find("a", |_| true), None);
    }
}
