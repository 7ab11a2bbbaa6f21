//! So many requests to the spool, and nothing else, for an instruction counter: `scripts/instructions.sh`.
//!
//! Usage: `instructions COUNT`. The difference between two counts is free of the program's start.

mod in_memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let Some(count) = count else {
        // `cargo bench` runs every bench with words of its own.
        eprintln!("counted by scripts/instructions.sh");
        return;
    };
    in_memory::InMemory::new().requests(count);
}
