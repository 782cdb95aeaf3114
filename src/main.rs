//! The program: everything is in the library.

use std::process::ExitCode;

use sidescale::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    sidescale::cli::main()
}
