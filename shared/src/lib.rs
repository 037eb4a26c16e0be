//! The vocabulary and the engines that both Sallypost nodes use.
//!
//! Each module has one job and is named after it. Protocol servers ([`smtp`], [`pop3`]) are state
//! machines: bytes and answers in, actions out; they open no socket, read no clock and roll no dice.
//! [`store`] is the only module that knows redb. Nothing here knows the link.

pub mod address;
pub mod age;
pub mod aggregate;
pub mod chunk;
pub mod command;
pub mod containment;
pub mod control;
pub mod credential;
pub mod dkim;
pub mod doctor;
pub mod fault;
pub mod id;
pub mod inventory;
pub mod lane;
pub mod lifetime;
pub mod listener;
pub mod mime;
pub mod moment;
pub mod notify;
pub mod operator;
pub mod origin;
pub mod pop3;
pub mod pressure;
pub mod projection;
pub mod render;
pub mod report;
pub mod sandbox;
pub mod sasl;
pub mod seal;
pub mod smtp;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod tls_wish;
pub mod topology;
pub mod trace;
pub mod unit;
pub mod verdict;
pub mod wipe;
pub mod wire;

#[doc(hidden)]
pub use rkyv;
