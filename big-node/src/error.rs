//! Why something asked of big was refused.

use shared::store::StoreError;

/// A refusal for a person: what is wrong, and the mend.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// What was asked cannot be done.
    #[error("{0}")]
    Asked(String),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// A refusal with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self::Asked(text.into())
    }
}
