//! Rebuilds the program when a migration is added: the macro that builds them in only sees those that it knows.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
