//! Randomness that can be repeated.

use std::sync::atomic::{AtomicU64, Ordering};

use queue_core::Entropy;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Random bits out of a seed (splitmix64): the same seed, the same bits, on every machine.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// A number below `bound`; zero when the bound is zero.
    pub fn below(&self, bound: u64) -> u64 {
        // The high half of the product: no bias that a test could notice, and no division.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// `true` in this many of a thousand cases.
    pub fn per_mille(&self, chances: u64) -> bool {
        self.below(1_000) < chances
    }

    /// One of these; `None` when there is none.
    pub fn choose<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        let mut bits = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        let entropy = SeededEntropy::new(1_234_567);
        // The first numbers of the reference implementation.
        assert_eq!(entropy.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(entropy.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn stays_in_bounds() {
        let entropy = SeededEntropy::new(7);
        let mut seen = [0; 3];
        for _ in 0..300 {
            seen[usize::try_from(entropy.below(3)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&times| times > 60), "{seen:?}");
        assert_eq!((entropy.below(0), entropy.choose::<u8>(&[]), entropy.choose(&[4])), (0, None, Some(&4)));
        assert!(entropy.per_mille(1_000) && !entropy.per_mille(0));
    }
}
