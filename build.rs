//! Rebuilds the program when a migration is added, and notes the day of the build.

use std::time::{SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "the moment of the build")]
fn main() {
    // The macro that builds the migrations in only sees those that it knows.
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The start of the day, so that a clock a few minutes behind the builder's does not make hits look older than the
    // program.
    let day = given.unwrap_or_else(now) / 86_400 * 86_400;
    println!("cargo:rustc-env=PIXELD_BUILT={day}");
}
