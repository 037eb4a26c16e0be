//! The program of the node inside; everything is in its library, so that `pair` can be it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    big_node::cli(std::env::args_os())
}
