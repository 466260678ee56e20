//! Small messages in one piece.
//!
//! A head and a short body are two pieces of memory. Writing several costs the kernel more than copying the few bytes
//! together costs us; long pieces are written from where they are.

use std::cell::RefCell;
use std::io::IoSlice;

/// Up to here copying is cheaper.
const GATHERED_BYTES: usize = 4 << 10;

thread_local! {
    static PIECE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(GATHERED_BYTES));
}

/// Hands these pieces to `write` as one, if there are several and they are small.
pub fn gathered<R>(pieces: &[IoSlice<'_>], write: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    if pieces.len() < 2 || bytes > GATHERED_BYTES {
        return pieces.first().filter(|_| pieces.len() == 1).map(|piece| write(piece));
    }
    PIECE.with_borrow_mut(|whole| {
        whole.clear();
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Some(write(whole))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_become_one_and_large_ones_stay() {
        let gather = |pieces: &[&[u8]]| {
            let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            gathered(&pieces, <[u8]>::to_vec)
        };
        assert_eq!(gather(&[b"head", b"", b"body"]).unwrap(), b"headbody");
        assert_eq!(gather(&[b"next"]).unwrap(), b"next");
        assert_eq!(gather(&[b"head", &[0; GATHERED_BYTES]]), None);
        assert_eq!(gather(&[&[0; GATHERED_BYTES + 1]]).unwrap().len(), GATHERED_BYTES + 1);
    }
}
