//! Two sessions back to back, on a virtual clock and a wire of bytes, over stores that can crash.

mod cuts;
mod hostile;
mod opening;
mod sim;
