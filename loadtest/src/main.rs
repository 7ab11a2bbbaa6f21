//! `loadtest`: the commands of [`loadtest`] for the command line.

fn main() {}
