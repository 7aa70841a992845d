//! Giving committed entries to the state machine, in order, each once; the leader answers.

use core::sync::atomic::Ordering::Relaxed;

use super::core::{Core, Now, Work};
use crate::frame::Kind;
use crate::journal::SegmentMemory;
use crate::link::CoreToControl;
use crate::service::Service;
use crate::session::Outcome;
use crate::stream::network::Network;
use crate::types::{Applied, Position};

/// Entries applied in one duty cycle, at most: bounds the cycle, not the rate.
const APPLY_ENTRIES_MAX: usize = 256;

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Applies what is committed and verified here. Returns how many entries.
    pub(super) fn apply_committed(&mut self, now: Now) -> usize {
        let end = self.commit.0.min(self.log.tail().position);
        if self.applied.0 >= end {
            return 0;
        }
        let leads = matches!(self.work, Work::Leader(_));
        let mut applied = 0;
        let mut at = self.applied.0;
        let mut hash_due = None;
        let mut session_outcome = None;
        let mut setting = None;
        let mut term = self.locals.applied_term;
        for (position, header, payload) in self.log.frames(at, end).take(APPLY_ENTRIES_MAX) {
            assert_eq!(position, at, "frames follow one another");
            at = position.plus(header.span());
            applied += 1;
            term = header.term();
            let kind = header.kind().expect("only verified frames are applied");
            let done = self.state.apply_frame(kind, &header, payload);
            match done.outcome {
                Outcome::Replied { .. } => self.counters.commands_applied += 1,
                Outcome::Repeated { .. } => self.counters.duplicates += 1,
                Outcome::Refused { .. } => self.counters.gaps_refused += 1,
                _ => {}
            }
            if kind == Kind::GroupSetting {
                setting = Some(done.sequence);
            }
            if leads {
                self.clients.answer(&self.state, &done.outcome);
                if let Outcome::SessionOpened { .. } | Outcome::SessionsFull { .. } = done.outcome {
                    session_outcome = Some(done.outcome);
                }
            }
            if kind != Kind::Padding && done.sequence.0.is_multiple_of(self.settings.hash_interval)
            {
                // At most one per cycle is worth telling; the position of each is the same on all nodes.
                hash_due = Some((done.sequence, self.state.state_hash()));
                break;
            }
            if session_outcome.is_some() {
                break; // its client is told before the next entry, which may be of that session
            }
        }
        assert!(applied > 0, "committed entries are held until they are applied");
        self.applied = Applied(at);
        self.locals.applied_term = term;
        self.share_applied();
        if let Some((sequence, hash)) = hash_due {
            let words = self.shared.words();
            words.state_hash.store(hash, Relaxed);
            words.hash_sequence.store(sequence.0, Relaxed);
            self.tell(CoreToControl::StateHash { sequence, hash });
        }
        if let Some(sequence) = setting {
            self.durability_applied(at, sequence);
        }
        if let Some(outcome) = session_outcome {
            self.on_session_outcome(now, &outcome);
        }
        self.open_for_clients(now, at);
        applied
    }

    /// New sessions and queries are served once the term's own entry is applied: everything before it is known then.
    fn open_for_clients(&mut self, now: Now, applied: Position) {
        if let Work::Leader(leading) = &mut self.work
            && !leading.opened
            && applied >= leading.term_opened
        {
            leading.opened = true;
            self.open_outgoing();
            self.state.sessions_mut().name_again();
            while let Some((from, hello)) = self.clients.early.take() {
                self.on_hello(now, from, &hello);
            }
        }
    }
}
