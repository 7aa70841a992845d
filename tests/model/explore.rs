//! Breadth first through every state that can be reached, with the shortest schedule to a broken one.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What is explored.
pub(crate) trait Model {
    type State: Clone + Hash;
    type Step: Clone + Debug;
    fn begin(&self) -> Self::State;
    /// Every step that can be taken now, with what comes of it.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;
    /// The invariant that is broken.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Found<S> {
    /// Every state was seen.
    Holds { states: usize, depth: usize },
    /// The bounds were not reached.
    NotComplete { states: usize, depth: usize },
    /// The shortest schedule.
    Broken { rule: &'static str, schedule: Vec<S>, states: usize },
}

/// States are told apart by 64 bits.
pub(crate) fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = Quick::default();
    state.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn explore<M: Model>(model: &M, states_max: usize, time: Duration) -> Found<M::Step> {
    let begin = Instant::now();
    let first = model.begin();
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut came: Vec<(usize, Option<M::Step>)> = vec![(0, None)];
    let mut level = vec![(0, first)];
    let mut depth = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for (index, state) in level {
            for (step, after) in model.steps(&state) {
                if !seen.insert(fingerprint(&after)) {
                    continue;
                }
                came.push((index, Some(step)));
                let at = came.len() - 1;
                if let Some(rule) = model.broken(&after) {
                    let schedule = schedule(&came, at);
                    return Found::Broken { rule, schedule, states: seen.len() };
                }
                next.push((at, after));
            }
            if seen.len() >= states_max || begin.elapsed() > time {
                return Found::NotComplete { states: seen.len(), depth };
            }
        }
        level = next;
        depth += 1;
    }
    Found::Holds { states: seen.len(), depth }
}

fn schedule<S: Clone>(came: &[(usize, Option<S>)], mut at: usize) -> Vec<S> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = &came[at] {
        steps.push(step.clone());
        at = *before;
    }
    steps.reverse();
    steps
}

/// A part of a state that most steps leave alone: copied when it is written, and its fingerprint kept until then.
#[derive(Clone, Debug)]
pub(crate) struct Part<T>(Rc<(T, OnceCell<u64>)>);

impl<T> Part<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Rc::new((value, OnceCell::new())))
    }
}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T: Clone> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut T {
        let (value, print) = Rc::make_mut(&mut self.0);
        print.take();
        value
    }
}

impl<T: Hash> Hash for Part<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(*self.0.1.get_or_init(|| fingerprint(&self.0.0)));
    }
}

/// Multiply and rotate: states are many, and nobody chooses them to collide.
#[derive(Clone, Copy, Default)]
pub(crate) struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }
    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (self.0 >> 32)
    }
}
