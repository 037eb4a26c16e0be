//! The program of the node in the DMZ; everything is in its library, so that `pair` can be it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_node::cli(std::env::args_os())
}
