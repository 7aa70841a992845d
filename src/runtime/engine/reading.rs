//! Questions to this node alone.

use std::sync::PoisonError;

use super::Engine;
use crate::client::Demand;
use crate::runtime::environment::Environment;
use crate::runtime::host_client::ConnectOptions;
use crate::runtime::host_reader::{HostReader, Read, ReadError};

impl<E: Environment> Engine<E> {
    /// Asks the service of this node, whoever leads, and says how old the answer may be. One at a time, as with
    /// [`Engine::execute`]; a [`HostReader`] of one's own asks any node, and many things at once.
    ///
    /// # Errors
    /// [`ReadError`]: of a node that hears no leader what must be fresh cannot be had.
    pub fn query_local(&self, question: &[u8], demand: Demand) -> Result<Read, ReadError> {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = if let Some(reader) = slot.take() {
            reader
        } else {
            let options = ConnectOptions::of(&self.settings, "engine");
            HostReader::new_in(&self.environment, &options).map_err(ReadError::Connect)?
        };
        let answer = reader.ask(self.settings.node.id, question, demand);
        *slot = Some(reader);
        answer
    }
}
