//! Two sessions back to back, on a virtual clock and a wire of bytes, over stores that can crash; and what
//! is written down of the protocol, held against the code.

mod cuts;
mod exposure;
mod golden;
mod hostile;
mod opening;
mod protocol;
mod rotation;
pub(crate) mod sim;
