//! A PostgreSQL session that makes others wait.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use pixeld_testkit::postgres::Postgres;

/// What a transaction has locked, for as long as this is held.
pub struct Holder(Child);

impl Holder {
    /// Runs a statement in a transaction that stays open.
    pub fn take(postgres: &Postgres, statement: &str) -> Holder {
        let mut psql = postgres.client("psql", &["--no-psqlrc", "--set=ON_ERROR_STOP=1"]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.as_mut().unwrap();
        // psql ends at an error, and prints the word only after the lock is held.
        writeln!(input, "SET lock_timeout = '60s'; BEGIN; {statement};\n\\! echo held").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "held"), "{statement} failed");
        Holder(child)
    }

    /// Ends the transaction.
    pub fn let_go(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
