//! Raw protocol clients for tests: they send what they are told, right or wrong, and report exactly
//! what came back.

pub mod load;
pub mod pop3;
pub mod scram;
pub mod smtp;
