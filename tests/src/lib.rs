//! Sallypost's harness: everything that stands around the two nodes while they are tried.
//!
//! The nodes run as real processes ([`nodes`], [`process`], [`control`], [`topology`]) inside a small Internet
//! that a test owns ([`internet`]): an authoritative DNS server and a receiving MTA, both on
//! loopback. [`site`] puts all of that together; [`ask`] asks the nodes without a process each time. Raw clients ([`client`]) speak to the nodes exactly what a test tells them to.
//! [`ledger`] keeps the books outside the nodes, [`messages`] makes the mail, [`netns`] makes networks
//! that may fail, and [`proc`] asks the kernel about a process.
//!
//! [`damage`] makes a disk lie, [`tampered`] lets system calls fail, [`world`] puts all of it together for one test; [`desk`] asks the nodes what their commands ask,
//! and [`services`] are the ways in for mail.
//!
//! [`dialogue`] holds a POP3 server to the conformance suite.
//!
//! [`fuzz`] is what a fuzzer runs and the plain tests replay. [`kinds`] says of every kind of unit what plays it.
//!
//! Nothing here waits by sleeping: a wait ends by an event, or fails by a deadline.

pub mod ask;
pub mod cable;
pub mod canary;
pub mod client;
pub mod control;
pub mod damage;
pub mod desk;
pub mod dialogue;
pub mod fuzz;
pub mod internet;
pub mod kinds;
pub mod ledger;
pub mod messages;
pub mod netns;
pub mod nodes;
pub mod proc;
pub mod process;
pub mod random;
pub mod ready;
pub mod road;
pub mod services;
pub mod site;
pub mod tampered;
pub mod tls;
pub mod topology;
pub mod wait;
pub mod wire;
pub mod world;
