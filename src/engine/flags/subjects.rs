//! A set of subject keys that answers in constant time and is small for a million of them.
//!
//! Pure. Built once from a denylist or an allowlist, then only read.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::engine::vocab::SUBJECT_LIMIT_BYTES;

/// Bits of a slot that say where in the text an id begins; the other 24 repeat its hash, so that a miss rarely reads text.
const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// Subject keys, each once, compared exactly; a clone shares them.
///
/// Memory: the ids' own bytes and two more for each, and 16 to 32 bytes of table per id: about 34 MB for a million ids of
/// fifteen bytes.
#[derive(Clone, Default)]
pub struct SubjectSet {
    /// Each id: its length in two bytes, then its text; in the order of insertion.
    text: Arc<[u8]>,
    /// Open addressing: 0 is free, else the offset of an id plus one, and 24 bits of its hash above. A power of two long.
    slots: Arc<[u64]>,
    count: usize,
}

impl SubjectSet {
    /// The set of these ids. Empty ids and ids over [`SUBJECT_LIMIT_BYTES`] are left out: no subject has such a key.
    pub fn collect<'s>(ids: impl ExactSizeIterator<Item = &'s str> + Clone) -> Self {
        let usable = |id: &&str| !id.is_empty() && id.len() <= SUBJECT_LIMIT_BYTES;
        let bytes = ids.clone().filter(usable).map(|id| id.len() + 2).sum();
        let mut text = Vec::with_capacity(bytes);
        // At most half full, so that runs of taken slots stay short.
        let mut slots = vec![0_u64; (ids.len() * 2).next_power_of_two().max(2)].into_boxed_slice();
        let mut count = 0;
        for id in ids.filter(usable) {
            let hash = xxh64(id.as_bytes(), 0);
            if let Err(free) = probe(&slots, &text, hash, id) {
                let tag = hash & !OFFSET_MASK;
                slots[free] = tag | (text.len() as u64 + 1);
                text.extend_from_slice(&(id.len() as u16).to_le_bytes());
                text.extend_from_slice(id.as_bytes());
                count += 1;
            }
        }
        Self {
            text: text.into(),
            slots: slots.into(),
            count,
        }
    }

    /// Whether `id` is in the set.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.count > 0 && probe(&self.slots, &self.text, xxh64(id.as_bytes(), 0), id).is_ok()
    }

    /// The number of different ids.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ids in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let id = id_at(&self.text, offset)?;
            offset += id.len() + 2;
            std::str::from_utf8(id).ok()
        })
    }

    /// The bytes that the set occupies.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.text.len() + self.slots.len() * size_of::<u64>()
    }
}

impl std::fmt::Debug for SubjectSet {
    /// The size alone: whom it lists does not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubjectSet({})", self.count)
    }
}

impl PartialEq for SubjectSet {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().all(|id| other.contains(id))
    }
}

impl Eq for SubjectSet {}

/// The slot that holds `id`, or else the free one where it would go. `slots` is never full.
fn probe(slots: &[u64], text: &[u8], hash: u64, id: &str) -> Result<usize, usize> {
    let mask = slots.len() - 1;
    let mut index = hash as usize & mask;
    loop {
        let slot = slots[index];
        if slot == 0 {
            return Err(index);
        }
        let same_tag = (slot ^ hash) & !OFFSET_MASK == 0;
        if same_tag && id_at(text, (slot & OFFSET_MASK) as usize - 1) == Some(id.as_bytes()) {
            return Ok(index);
        }
        index = (index + 1) & mask;
    }
}

fn id_at(text: &[u8], offset: usize) -> Option<&[u8]> {
    let (length, rest) = text.get(offset..)?.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_le_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn nobody_is_in_an_empty_set() {
        for set in [SubjectSet::default(), SubjectSet::collect([].into_iter())] {
            assert!(set.is_empty());
            assert!(!set.contains("") && !set.contains("a"));
        }
    }

    #[test]
    fn ids_that_no_subject_can_have_are_left_out() {
        let long = "x".repeat(SUBJECT_LIMIT_BYTES + 1);
        let set = SubjectSet::collect(["", &long, "a", "a"].into_iter());
        assert_eq!((set.len(), set.iter().collect::<Vec<_>>()), (1, vec!["a"]));
        assert!(!set.contains("") && !set.contains(&long));
    }

    #[test]
    fn a_million_ids_fit_into_forty_megabytes() {
        let ids: Vec<String> = (0..1_000_000_u64)
            .map(|n| (336_000_000_000_000 + n * 7).to_string())
            .collect();
        let set = SubjectSet::collect(ids.iter().map(String::as_str));
        assert_eq!(set.len(), ids.len());
        assert!(set.size_bytes() <= 40_000_000, "{}", set.size_bytes());
        assert!(ids.iter().step_by(997).all(|id| set.contains(id)));
        assert!(!(0..10_000_u64).any(|n| set.contains(&(336_000_000_000_001 + n * 7).to_string())));
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_an_ordinary_one(ids in prop::collection::vec("[a-c]{0,3}", 0..60), asked in "[a-c]{0,3}") {
            let set = SubjectSet::collect(ids.iter().map(String::as_str));
            let plain: BTreeSet<&str> = ids.iter().map(String::as_str).filter(|id| !id.is_empty()).collect();
            prop_assert_eq!(set.len(), plain.len());
            prop_assert_eq!(set.contains(&asked), plain.contains(asked.as_str()));
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), plain);
        }
    }
}
