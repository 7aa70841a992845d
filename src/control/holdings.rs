//! How far each node's log is on its disk, as far as it said so itself: what the others keep for it.
//!
//! It goes with the signs of life, and decides nothing about elections: whoever sends them fills it in, and whoever gets
//! them takes note.

use super::message::{Envelope, Message};
use crate::types::{Durable, NodeId, Position};

/// The other nodes, and where their logs end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    nodes: Vec<(NodeId, Option<Position>)>,
}

impl Holdings {
    /// Of the nodes of a group but `own`; nothing is known yet.
    #[must_use]
    pub fn new(own: NodeId, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let others = nodes.into_iter().filter(|node| *node != own);
        Self { nodes: others.map(|node| (node, None)).collect() }
    }

    /// The message as it is sent by a node whose log is on its disk up to `durable`.
    #[must_use]
    pub fn fill_in(mut envelope: Envelope, durable: Durable) -> Envelope {
        if let Message::Announce(announce) = &mut envelope.message {
            announce.holds = durable.position();
        }
        envelope
    }

    /// Takes note of what a node says of itself. It may be less than before: then it has lost its disk.
    pub fn hear(&mut self, envelope: &Envelope) {
        if let Message::Announce(announce) = envelope.message
            && let Some((_, known)) = self.nodes.iter_mut().find(|(node, _)| *node == envelope.from)
        {
            *known = Some(announce.holds);
        }
    }

    /// Each of them, and the end of its log. None: it has said nothing since this process started.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Option<Position>)> + '_ {
        self.nodes.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::disk::DiskState;
    use crate::control::message::{Announce, Standing};
    use crate::types::Leadership;

    #[test]
    fn a_sign_of_life_says_what_is_on_the_disk() {
        let mut holdings = Holdings::new(NodeId(1), (0..3).map(NodeId));
        let announce = Announce {
            standing: Standing::Clean,
            instance: 1,
            holds: Position(0),
            disk: DiskState::Good,
        };
        let say = |from, message| Envelope { from, leadership: Leadership::default(), message };
        let sent = say(NodeId(2), Message::Announce(announce));
        holdings.hear(&Holdings::fill_in(sent, Durable(Position(4096))));
        holdings.hear(&say(NodeId(0), Message::Stand));
        holdings.hear(&Holdings::fill_in(say(NodeId(9), Message::Stand), Durable(Position(1))));
        let known: Vec<_> = holdings.iter().collect();
        assert_eq!(known, [(NodeId(0), None), (NodeId(2), Some(Position(4096)))]);
        holdings.hear(&Holdings::fill_in(sent, Durable(Position(32))));
        assert_eq!(holdings.iter().nth(1), Some((NodeId(2), Some(Position(32)))));
    }
}
