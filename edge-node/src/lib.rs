//! (being written)

pub mod delivery;
