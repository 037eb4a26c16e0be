//! The link's keys, as they lie in this node's state.

use link_proto::driver::{Key, KeyRing, KeyStore, Keys};
use link_proto::host::HostError;
use shared::lane::PartnerRow;
use shared::report::KeysView;
use shared::state::{State, StateError};

use crate::serve::ServeError;

/// The key's name, and what those beside it begin with.
const NAME: &str = "link";

struct Stored(State);

impl KeyStore for Stored {
    fn write_next(&self, pkcs8: &[u8]) -> Result<(), HostError> {
        self.0.write_key(&State::names_beside(NAME).0, pkcs8).map_err(failed)
    }

    fn turn(&self) -> Result<(), HostError> {
        self.0.turn_key(NAME).map_err(failed)
    }
}

fn failed(error: StateError) -> HostError {
    HostError(error.to_string())
}

/// Reads them.
pub fn open(state: &State) -> Result<KeyRing, ServeError> {
    let (next, former) = State::names_beside(NAME);
    let beside = |name: &str| -> Result<Option<Key>, ServeError> {
        state.key_if_there(name)?.map(|key| Key::from_pkcs8(&key).map_err(ServeError::Key)).transpose()
    };
    let present = Key::from_pkcs8(&state.key(NAME)?)?;
    let keys = Keys { present, next: beside(&next)?, former: beside(&former)? };
    Ok(KeyRing::new(keys, Stored(state.clone())))
}

/// They and the partner's, for `link status`.
pub fn view(ring: &KeyRing, partner: Option<&PartnerRow>) -> KeysView {
    let Keys { present, next, former } = ring.keys();
    let [next, former] = [&next, &former].map(|key| key.as_ref().map(Key::public));
    KeysView::of(present.public(), next, former, partner)
}
