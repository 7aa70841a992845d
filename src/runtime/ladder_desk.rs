//! Orders for another durability, and what is in force.

use serde_json::{Value, json};

use super::config::RungName;
use crate::control::election::Election;
use crate::link::Durability;

/// `durability LEADER FOLLOWERS`: whether it was asked for. When it is in force the status says so.
pub(super) fn set_durability(machine: &mut Election, order: &str) -> String {
    let mut rungs = order.split_whitespace().skip(1).map(RungName::from_name);
    let wanted = match (rungs.next(), rungs.next(), rungs.next()) {
        (Some(Some(leader)), Some(Some(follower)), None) => {
            Durability { leader: leader.into(), follower: follower.into() }
        }
        _ => return json!({"error": "durability takes two of memory and disk"}).to_string(),
    };
    match machine.set_durability(wanted) {
        Ok(()) => json!({"asked": json(wanted)}),
        Err(refusal) => json!({"error": refusal.to_string(), "refused": true}),
    }
    .to_string()
}

/// For the status.
pub(super) fn json(of: Durability) -> Value {
    json!({"leader": of.leader.name(), "follower": of.follower.name()})
}
