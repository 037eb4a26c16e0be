//! Delivery to the Internet.

pub mod client;
