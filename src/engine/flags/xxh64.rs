//! XXH64 with seed 0 over two pieces as if they were one.
//!
//! Pure, without allocation. A subject's key and a flag's key lie in different places; joining them first costs more than the
//! hash itself, because every wide read then waits for the narrow writes before it. Source: the XXH64 specification, version
//! 0.2.0 (Collet). Its judges are the golden vectors and, in a test, another implementation. Speed: bench `decide`.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

const STRIPE_BYTES: usize = 32;

/// The hash of `head` followed by `tail`.
#[must_use]
pub fn hash(head: &[u8], tail: &[u8]) -> u64 {
    let bytes = Pieces { head, tail };
    let length = head.len() + tail.len();
    let mut at = 0;
    let mut hash = if length < STRIPE_BYTES {
        PRIME_5
    } else {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()];
        while length - at >= STRIPE_BYTES {
            for lane in &mut lanes {
                *lane = round(*lane, bytes.word(at));
                at += 8;
            }
        }
        let [a, b, c, d] = lanes;
        let mixed = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        let mixed = mixed.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        lanes.into_iter().fold(mixed, |mixed, lane| {
            (mixed ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
        })
    };

    hash = hash.wrapping_add(length as u64);
    while length - at >= 8 {
        hash = (hash ^ round(0, bytes.word(at)))
            .rotate_left(27)
            .wrapping_mul(PRIME_1)
            .wrapping_add(PRIME_4);
        at += 8;
    }
    if length - at >= 4 {
        let half = (0..4).rev().fold(0, |half, byte| half << 8 | bytes.byte(at + byte));
        hash = (hash ^ half.wrapping_mul(PRIME_1))
            .rotate_left(23)
            .wrapping_mul(PRIME_2)
            .wrapping_add(PRIME_3);
        at += 4;
    }
    while at < length {
        hash = (hash ^ bytes.byte(at).wrapping_mul(PRIME_5))
            .rotate_left(11)
            .wrapping_mul(PRIME_1);
        at += 1;
    }
    hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
    hash ^ hash >> 32
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

struct Pieces<'b> {
    head: &'b [u8],
    tail: &'b [u8],
}

impl Pieces<'_> {
    /// Eight bytes in little-endian order; at most one word of an input reaches over both pieces.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        let whole = match at.checked_sub(self.head.len()) {
            None => self.head.get(at..),
            Some(at) => self.tail.get(at..),
        };
        match whole.and_then(|piece| piece.first_chunk()) {
            Some(word) => u64::from_le_bytes(*word),
            None => (0..8).rev().fold(0, |word, byte| word << 8 | self.byte(at + byte)),
        }
    }

    /// One byte; what lies behind the end is 0 and never asked for.
    #[inline]
    fn byte(&self, at: usize) -> u64 {
        let byte = match at.checked_sub(self.head.len()) {
            None => self.head.get(at),
            Some(at) => self.tail.get(at),
        };
        byte.copied().map_or(0, u64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh64::xxh64;

    proptest! {
        #[test]
        fn two_pieces_hash_as_another_implementation_hashes_their_sum(
            head in prop::collection::vec(any::<u8>(), 0..100), tail in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert_eq!(hash(&head, &tail), xxh64(&[head, tail].concat(), 0));
        }
    }

    #[test]
    fn every_cut_through_every_length_gives_the_same_hash() {
        let bytes: Vec<u8> = (0..80).collect();
        for length in 0..=bytes.len() {
            let expected = xxh64(&bytes[..length], 0);
            for cut in 0..=length {
                assert_eq!(hash(&bytes[..cut], &bytes[cut..length]), expected, "{length} {cut}");
            }
        }
    }
}
