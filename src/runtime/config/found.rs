//! Founding a group: one configuration file for each of its nodes, which say the same about the group.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::error::ConfigErrors;
use super::layers::Layers;
use super::settings::Settings;
use super::show::chosen_toml;
use super::words::TransportKind;
use crate::types::GroupId;

/// A group to be founded.
#[derive(Clone, PartialEq, Debug)]
pub struct Founding {
    /// Its identity.
    pub group: GroupId,
    /// How its bytes travel.
    pub transport: TransportKind,
    /// Port of the multicast group.
    pub multicast_port: u16,
    /// Its nodes, in the order of leadership.
    pub members: Vec<FoundingMember>,
    /// What else is to stand in each file: keys, and their values as text.
    pub settings: Vec<(String, String)>,
}

/// One of its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundingMember {
    /// Where it takes datagrams.
    pub data: SocketAddr,
    /// Where its control thread is reached.
    pub control: SocketAddr,
}

impl Founding {
    /// The name of a node's file.
    #[must_use]
    pub fn file_name(node: usize) -> String {
        format!("node-{node}.toml")
    }

    /// The multicast group, drawn from the identity so that two groups on one network most likely differ: one of the
    /// addresses set aside for local use (239.255.0.0/16; `ff15::/16` for IPv6).
    #[must_use]
    pub fn multicast(&self) -> SocketAddr {
        let [.., a, b] = self.group.0.to_be_bytes();
        let ip: IpAddr = match self.members.first().map(|member| member.data) {
            Some(SocketAddr::V6(_)) => {
                [0xff15, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b])].into()
            }
            _ => Ipv4Addr::new(239, 255, a, b).into(),
        };
        SocketAddr::new(ip, self.multicast_port)
    }

    /// The settings of one node whose file will lie in `folder`, an absolute path. Its data folder is `node-<id>` there.
    ///
    /// # Errors
    /// What is wrong with what was asked for.
    pub fn settings(&self, folder: &Path, node: usize) -> Result<Settings, ConfigErrors> {
        let data_dir = folder.join(format!("node-{node}"));
        let mut layers = Layers::new()
            .set("group.id", &format!("{:016x}", self.group.0))
            .set("node.id", &node.to_string())
            .set("node.data_dir", &data_dir.to_string_lossy())
            .set("transport.kind", self.transport.name());
        if self.transport != TransportKind::Unicast {
            layers = layers.set("transport.group", &self.multicast().to_string());
        }
        for (place, member) in self.members.iter().enumerate() {
            layers = layers
                .set(&format!("members.{place}.id"), &place.to_string())
                .set(&format!("members.{place}.data"), &member.data.to_string())
                .set(&format!("members.{place}.control"), &member.control.to_string())
                .set(&format!("members.{place}.catch_up"), &member.control.to_string());
        }
        for (key, text) in &self.settings {
            layers = layers.flag(&format!("--set {key}"), key, text);
        }
        layers.check()
    }

    /// The text of one node's file: what was chosen; the defaults are left to the program.
    ///
    /// # Errors
    /// What is wrong with what was asked for.
    pub fn file(&self, folder: &Path, node: usize) -> Result<String, ConfigErrors> {
        let settings = self.settings(folder, node)?;
        let head = format!(
            "# Node {node} of {}. `quorate config reference` explains every key, `quorate config show` says what is in force.\n\n",
            self.members.len(),
        );
        Ok(head + &chosen_toml(&settings, folder))
    }
}
