//! Fingerprints of replicated state: 64 bits, the same on every node and in every build.
//!
//! A service keeps its fingerprint *running*: it adds the digest of what appears and subtracts the digest of what goes, in
//! wrapping arithmetic, so that the order of what is unordered does not matter and nothing is ever hashed twice. The
//! functions find divergence by accident or by defect. They are not cryptographic: whoever chooses the input can make two
//! states collide.

/// Digits of the golden ratio and of the square root of two, made odd: no structure of their own.
const FOLD_A: u64 = 0x9E37_79B9_7F4A_7C15;
const FOLD_B: u64 = 0x6A09_E667_F3BC_C909;

/// Multiplies to 128 bits and folds the halves: every bit of the words reaches every bit of the result.
#[must_use]
pub const fn mix(left: u64, right: u64) -> u64 {
    let product = (left ^ FOLD_A) as u128 * (right ^ FOLD_B) as u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// A fingerprint in the making.
///
/// ```
/// use quorate::service::hash::Fingerprint;
/// let digest = Fingerprint::new(1).word(7).bytes(b"seven").finish();
/// assert_ne!(digest, Fingerprint::new(1).word(7).bytes(b"seve").word(u64::from(b'n')).finish());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// A start that differs by `domain`, so that equal words of unlike things differ.
    #[must_use]
    pub const fn new(domain: u64) -> Self {
        Self(mix(domain, 0))
    }
    /// Takes in a word.
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        Self(mix(self.0 ^ word, FOLD_A.rotate_left(32)))
    }
    /// Takes in two words at the price of one.
    #[must_use]
    pub const fn pair(self, first: u64, second: u64) -> Self {
        Self(mix(self.0 ^ first, second))
    }
    /// Takes in bytes, and how many they are.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut state = self.word(bytes.len() as u64);
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let (first, second) = words_of(pair);
            state = state.pair(first, second);
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            let (first, second) = words_of(&last);
            state = state.pair(first, second);
        }
        state
    }
    /// The digest.
    #[must_use]
    pub const fn finish(self) -> u64 {
        mix(self.0, self.0.rotate_left(29))
    }
}

fn words_of(pair: &[u8; 16]) -> (u64, u64) {
    let word = u128::from_le_bytes(*pair);
    (word as u64, (word >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_input_moves_about_half_of_the_digest() {
        let base = [0x5Au8; 40];
        let digest = Fingerprint::new(3).bytes(&base).finish();
        for bit in 0..base.len() * 8 {
            let mut changed = base;
            changed[bit / 8] ^= 1 << (bit % 8);
            let moved = (Fingerprint::new(3).bytes(&changed).finish() ^ digest).count_ones();
            assert!((12..=52).contains(&moved), "bit {bit} moves {moved} bits");
        }
    }

    #[test]
    fn length_and_domain_count() {
        let zeros = [0; 33];
        let mut seen: Vec<u64> =
            (0..=33).map(|n| Fingerprint::new(0).bytes(&zeros[..n]).finish()).collect();
        seen.push(Fingerprint::new(1).bytes(&zeros).finish());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 35);
    }

    /// The fingerprint is part of what nodes of different builds compare: its values are fixed.
    #[test]
    fn values_are_fixed() {
        assert_eq!(Fingerprint::new(0).finish(), 0x06A0_137A_4E0B_4372);
        let named = Fingerprint::new(1).word(2).bytes(b"quorate");
        assert_eq!(named.finish(), 0xDD32_9373_429E_9CF7);
    }
}
