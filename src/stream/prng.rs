//! A small deterministic generator of random numbers: the same seed gives the same numbers, on every host and for ever.
//!
//! `xoshiro256**`, seeded by `SplitMix64`, both as published by David Blackman and Sebastiano Vigna ("Scrambled linear
//! pseudorandom number generators", ACM Transactions on Mathematical Software 47, 2021; placed in the public domain). For
//! jitter, back-off and planned faults; not for secrets.

/// The generator.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Prng([u64; 4]);

/// A chance between 0 and 1 as an integer threshold, so that nothing is decided with floats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Share(u64);

impl Share {
    /// This share; `None` if it is not within 0 to 1.
    #[must_use]
    #[allow(clippy::cast_sign_loss)] // just checked
    pub fn new(share: f64) -> Option<Self> {
        // A float that large rounds to 2^64, and the cast saturates: 1 happens practically always.
        (0.0..=1.0).contains(&share).then_some(Self((share * u64::MAX as f64) as u64))
    }
    /// It never happens.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Prng {
    /// Seeded; any seed is as good as any other.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| split_mix(&mut state)))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.0;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number below `bound`, which is above 0. The bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this chance.
    pub fn chance(&mut self, share: Share) -> bool {
        let drawn = self.next_u64();
        drawn < share.0 || share.0 == u64::MAX
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequences_come_out() {
        let mut state = 1_234_567;
        let first = [(); 3].map(|()| split_mix(&mut state));
        let known =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, known);
        let mut prng = Prng([1, 2, 3, 4]);
        let first = [(); 5].map(|()| prng.next_u64());
        assert_eq!(
            first,
            [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360]
        );
    }

    #[test]
    fn shares_and_bounds_hold() {
        let mut prng = Prng::new(7);
        let share = Share::new(0.05).unwrap();
        let hits = (0..100_000).filter(|_| prng.chance(share)).count();
        assert!((4_500..5_500).contains(&hits), "{hits} of 100,000 at 5 %");
        assert!((0..1_000).all(|_| !prng.chance(Share::new(0.0).unwrap())));
        assert!((0..1_000).all(|_| prng.chance(Share::new(1.0).unwrap())));
        assert!((0..1_000).all(|_| prng.below(3) < 3));
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Share::new(wrong), None);
        }
    }
}
