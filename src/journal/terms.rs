//! Where each leadership's frames begin: what two nodes compare to find out where their logs part.

use std::collections::VecDeque;

use crate::limits::TERM_STARTS_MAX;
use crate::types::{Leadership, Position};

/// The first frame of a leadership. That is its term start, or the padding its leader had to write in front of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TermStartAt {
    /// Generation and term.
    pub leadership: Leadership,
    /// Where its first frame stands.
    pub base: Position,
}

/// The frames of one leadership, `base..end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TermSpan {
    /// Generation and term.
    pub leadership: Leadership,
    /// Where they begin.
    pub base: Position,
    /// Where they end: the next leadership's base, or the end of the log.
    pub end: Position,
}

/// The newest starts of terms in a log, oldest first. Bounded: when it is full the oldest goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TermTable {
    starts: VecDeque<TermStartAt>,
    /// How many, at most.
    most: usize,
    /// There were older ones: they are in the durable files alone, or have left the log.
    forgot: bool,
    /// A leader of a newer term has written padding, but its term start, which names the generation, is not here yet.
    unnamed: Option<Position>,
}

impl TermTable {
    /// A table of these starts (the newest of them, if there are too many), which must ascend.
    #[must_use]
    pub fn new(starts: impl IntoIterator<Item = TermStartAt>) -> Self {
        let mut table = Self {
            starts: VecDeque::with_capacity(TERM_STARTS_MAX),
            most: TERM_STARTS_MAX,
            forgot: false,
            unnamed: None,
        };
        for start in starts {
            table.push(start.leadership, start.base);
        }
        table
    }

    /// Takes note of padding at `position` of a term without a start so far.
    pub fn pad(&mut self, position: Position) {
        self.unnamed.get_or_insert(position);
    }

    /// Padding whose term is not known by its start yet.
    #[must_use]
    pub fn unnamed(&self) -> Option<Position> {
        self.unnamed
    }

    /// Takes note of a term start at `position`. One that is not above the last is already known.
    pub fn push(&mut self, leadership: Leadership, position: Position) {
        let base = self.unnamed.take().unwrap_or(position);
        if self.starts.back().is_some_and(|last| last.base >= base || last.leadership >= leadership)
        {
            return;
        }
        // The first frame of a log opens its first term.
        self.forgot |= self.starts.is_empty() && base > Position(0);
        if self.starts.len() == self.most {
            self.starts.pop_front();
            self.forgot = true;
        }
        self.starts.push_back(TermStartAt { leadership, base });
    }

    /// Remembers no more than so many, from now on.
    #[cfg(any(test, feature = "sim"))]
    pub fn set_most(&mut self, most: usize) {
        self.most = most.clamp(1, TERM_STARTS_MAX);
        while self.starts.len() > self.most {
            self.starts.pop_front();
            self.forgot = true;
        }
    }

    /// From where on it knows all starts of a log that ends at `end`. None: it knows all that there are.
    #[must_use]
    pub fn forgot_below(&self, end: Position) -> Option<Position> {
        let first = self.starts.front().map(|start| start.base);
        self.forgot.then(|| first.or(self.unnamed).unwrap_or(end))
    }

    /// Forgets every start at or above `position`.
    pub fn cut(&mut self, position: Position) {
        let keep = self.starts.partition_point(|start| start.base < position);
        self.starts.truncate(keep);
        self.unnamed = self.unnamed.filter(|&unnamed| unnamed < position);
    }

    /// The newest leadership at or below `leadership` in a log that ends at `end`. None: it has none so old, or has
    /// forgotten it.
    #[must_use]
    pub fn latest_at_or_below(&self, leadership: Leadership, end: Position) -> Option<TermSpan> {
        let above = self.starts.partition_point(|start| start.leadership <= leadership);
        let found = self.starts.get(above.checked_sub(1)?)?;
        let next = self.starts.get(above).map(|start| start.base);
        let end = next.or(self.unnamed).unwrap_or(end);
        Some(TermSpan { leadership: found.leadership, base: found.base, end })
    }

    /// The newest leadership.
    #[must_use]
    pub fn last(&self) -> Option<TermStartAt> {
        self.starts.back().copied()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = TermStartAt> + '_ {
        self.starts.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Generation, Term};

    fn leadership(counter: u32, term: u32) -> Leadership {
        Leadership { generation: Generation { counter, random: 7 }, term: Term(term) }
    }

    #[test]
    fn finds_the_newest_at_or_below_and_its_end() {
        let mut table = TermTable::new([]);
        assert_eq!(table.latest_at_or_below(leadership(9, 9), Position(0)), None);
        table.push(leadership(1, 2), Position(0));
        table.push(leadership(1, 5), Position(96));
        table.push(leadership(2, 6), Position(320));
        let end = Position(640);
        let span = |l, base, end| {
            Some(TermSpan { leadership: l, base: Position(base), end: Position(end) })
        };
        assert_eq!(table.latest_at_or_below(leadership(1, 1), end), None);
        assert_eq!(table.latest_at_or_below(leadership(1, 2), end), span(leadership(1, 2), 0, 96));
        assert_eq!(table.latest_at_or_below(leadership(1, 4), end), span(leadership(1, 2), 0, 96));
        assert_eq!(
            table.latest_at_or_below(leadership(1, 9), end),
            span(leadership(1, 5), 96, 320)
        );
        assert_eq!(
            table.latest_at_or_below(leadership(3, 1), end),
            span(leadership(2, 6), 320, 640)
        );
        table.cut(Position(320));
        assert_eq!(
            table.latest_at_or_below(leadership(3, 1), Position(320)),
            span(leadership(1, 5), 96, 320)
        );
    }

    #[test]
    fn padding_of_a_new_term_belongs_to_it_before_its_start_is_here() {
        let mut table = TermTable::new([]);
        table.push(leadership(1, 1), Position(0));
        table.pad(Position(224));
        let old = table.latest_at_or_below(leadership(1, 1), Position(256)).unwrap();
        assert_eq!(old.end, Position(224));
        table.push(leadership(1, 2), Position(256));
        assert_eq!(table.last().unwrap().base, Position(224));
        table.cut(Position(256));
        assert_eq!(table.last().unwrap().leadership, leadership(1, 2));
        table.cut(Position(224));
        assert_eq!(table.last().unwrap().leadership, leadership(1, 1));
    }

    #[test]
    fn what_is_forgotten_stays_so_when_all_that_is_known_is_cut() {
        let mut table = TermTable::new([]);
        table.set_most(2);
        table.push(leadership(1, 1), Position(0));
        table.push(leadership(1, 2), Position(128));
        assert_eq!(table.forgot_below(Position(512)), None);
        table.push(leadership(1, 3), Position(256));
        assert_eq!(table.forgot_below(Position(512)), Some(Position(128)));
        table.cut(Position(64));
        assert_eq!(table.forgot_below(Position(64)), Some(Position(64)));
        // A log that begins above the first frame of all begins with a term that others began.
        let start = TermStartAt { leadership: leadership(1, 4), base: Position(4064) };
        assert_eq!(TermTable::new([start]).forgot_below(Position(8192)), Some(Position(4064)));
    }

    #[test]
    fn forgets_the_oldest_when_full_and_never_grows() {
        let mut table = TermTable::new([]);
        let capacity = table.starts.capacity();
        for term in 1..=TERM_STARTS_MAX as u32 + 3 {
            table.push(leadership(1, term), Position(u64::from(term) * 64));
        }
        assert_eq!(table.starts.capacity(), capacity);
        assert_eq!(table.iter().count(), TERM_STARTS_MAX);
        assert_eq!(table.latest_at_or_below(leadership(1, 3), Position(1 << 20)), None);
        assert_eq!(table.forgot_below(Position(1 << 20)), Some(Position(4 * 64)));
        assert!(table.latest_at_or_below(leadership(1, 4), Position(1 << 20)).is_some());
    }
}
