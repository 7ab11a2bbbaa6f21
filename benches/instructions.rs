//! Sends a number of requests to the spool, and does nothing else, for an instruction counter:
//! `scripts/instructions.sh`.
//!
//! Usage: `instructions COUNT`. The difference between two counts does not contain the program's start.

mod in_memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let Some(count) = count else {
        // `cargo bench` runs every bench with its own arguments.
        eprintln!("counted by scripts/instructions.sh");
        return;
    };
    in_memory::InMemory::new().requests(count);
}
