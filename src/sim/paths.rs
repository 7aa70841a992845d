//! Which ways are cut, and what becomes of a datagram on an open one.

use super::plan::{MILLION, Plan};
use super::wire::Endpoint;
use crate::stream::prng::Prng;

/// A way between two nodes, for one of their two kinds of traffic.
#[derive(Clone, Copy, Default)]
struct Cuts {
    data: u32,
    control: u32,
}

/// All ways of a world. Cuts are counted: faults overlap.
pub(super) struct Paths {
    nodes: usize,
    between: Vec<Cuts>,
    /// Clients by nodes.
    clients: Vec<u32>,
    calm: bool,
}

/// Which traffic a cut is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Traffic {
    Data,
    Control,
    Both,
}

impl Paths {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            nodes: plan.nodes,
            between: vec![Cuts::default(); plan.nodes * plan.nodes],
            clients: vec![0; (plan.clients + plan.askers) * plan.nodes],
            calm: false,
        }
    }

    /// Everything is open and nothing is lost any more.
    pub(super) fn heal(&mut self) {
        self.between.fill(Cuts::default());
        self.clients.fill(0);
        self.calm = true;
    }

    /// Cuts the way from one node to another, or opens it again.
    pub(super) fn cut(&mut self, from: usize, to: usize, traffic: Traffic, cut: bool) {
        let way = &mut self.between[from * self.nodes + to];
        let count = |count: &mut u32| {
            *count = if cut { *count + 1 } else { count.saturating_sub(1) };
        };
        if traffic != Traffic::Control {
            count(&mut way.data);
        }
        if traffic != Traffic::Data {
            count(&mut way.control);
        }
    }

    /// Cuts the way between a client and a node, or opens it again.
    pub(super) fn cut_client(&mut self, client: usize, node: usize, cut: bool) {
        let way = &mut self.clients[client * self.nodes + node];
        *way = if cut { *way + 1 } else { way.saturating_sub(1) };
    }

    fn is_open(&self, from: Endpoint, to: Endpoint, control: bool) -> bool {
        match (from, to) {
            (Endpoint::Node(from), Endpoint::Node(to)) => {
                let way = self.between[from * self.nodes + to];
                (if control { way.control } else { way.data }) == 0
            }
            (Endpoint::Client(client), Endpoint::Node(node))
            | (Endpoint::Node(node), Endpoint::Client(client)) => {
                self.clients[client * self.nodes + node] == 0
            }
            (Endpoint::Client(_), Endpoint::Client(_)) => false,
        }
    }

    /// Draws what becomes of a datagram: the ways that its copies take, ns, and whether a copy is changed.
    pub(super) fn fates(
        &self,
        random: &mut Prng,
        plan: &Plan,
        (from, to): (Endpoint, Endpoint),
        control: bool,
    ) -> [Option<Fate>; 2] {
        let mut fates = [None; 2];
        if !self.is_open(from, to, control) {
            return fates;
        }
        let chance = |random: &mut Prng, chance: u64| {
            !self.calm && chance > 0 && random.below(MILLION) < chance
        };
        let is_far = |end| matches!(end, Endpoint::Node(node) if plan.observers[node]);
        let far = if is_far(from) || is_far(to) { plan.far } else { (0, 0) };
        let copies = 1 + usize::from(chance(random, plan.duplicate));
        for fate in &mut fates[..copies] {
            // Distance stays when faults end.
            if chance(random, plan.loss) || (far.1 > 0 && random.below(MILLION) < far.1) {
                continue;
            }
            let (least, more) = plan.delay_ns;
            let detour =
                if chance(random, plan.detour.0) { random.below(plan.detour.1) } else { 0 };
            let corrupt = chance(random, plan.corrupt);
            let after_ns = least + random.below(more) + detour + far.0;
            *fate = Some(Fate { after_ns, corrupt });
        }
        fates
    }
}

/// What becomes of one copy of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fate {
    pub(super) after_ns: u64,
    pub(super) corrupt: bool,
}
