//! Which requests were sent, and which were answered with 200 or 304: each of the latter must be in PostgreSQL.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const SENT: u8 = 1;
const ANSWERED: u8 = 2;

/// The state of each request of a load, by its number.
#[derive(Debug)]
pub struct Ledger {
    requests: Box<[AtomicU8]>,
    next: AtomicU64,
}

impl Ledger {
    /// A ledger of at most `requests_max` requests (a byte each).
    pub fn new(requests_max: usize) -> Ledger {
        Ledger { requests: (0..requests_max).map(|_| AtomicU8::new(0)).collect(), next: AtomicU64::new(0) }
    }

    /// The number of the next request; `None` if the ledger is full.
    pub fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests.len() as u64).then_some(number)
    }

    /// A request is being sent.
    pub fn sent(&self, number: u64) {
        self.requests[number as usize].fetch_or(SENT, Ordering::Relaxed);
    }

    /// Its answer has arrived.
    pub fn answered(&self, number: u64) {
        self.requests[number as usize].fetch_or(ANSWERED, Ordering::Relaxed);
    }

    /// The number after the last one that was taken.
    pub fn taken(&self) -> u64 {
        self.known().len() as u64
    }

    /// Requests sent so far.
    pub fn sent_count(&self) -> u64 {
        self.count(SENT)
    }

    /// Requests answered so far.
    pub fn answered_count(&self) -> u64 {
        self.count(ANSWERED)
    }

    fn count(&self, flag: u8) -> u64 {
        self.known().iter().filter(|request| request.load(Ordering::Relaxed) & flag != 0).count() as u64
    }

    fn known(&self) -> &[AtomicU8] {
        &self.requests[..self.requests.len().min(self.next.load(Ordering::Relaxed) as usize)]
    }

    /// Compares with the number of rows per request: `rows[number]`, 0 if it is shorter.
    pub fn compare(&self, rows: &[u8]) -> Comparison {
        let mut comparison = Comparison::default();
        for number in 0..self.known().len().max(rows.len()) {
            let flags = self.requests.get(number).map_or(0, |request| request.load(Ordering::Relaxed));
            let rows = rows.get(number).copied().unwrap_or(0);
            comparison.sent += u64::from(flags & SENT != 0);
            comparison.answered += u64::from(flags & ANSWERED != 0);
            comparison.rows += u64::from(rows);
            comparison.lost += u64::from(flags & ANSWERED != 0 && rows == 0);
            comparison.duplicated += u64::from(rows > 1);
            comparison.never_sent += u64::from(flags & SENT == 0 && rows > 0);
            comparison.unanswered_recorded += u64::from(flags == SENT && rows > 0);
        }
        comparison
    }
}

/// Answers against rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered 200 or 304.
    pub answered: u64,
    /// Rows of this load in PostgreSQL.
    pub rows: u64,
    /// Answered, but without a row.
    pub lost: u64,
    /// More than one row.
    pub duplicated: u64,
    /// A row that no request caused.
    pub never_sent: u64,
    /// A row without an answer: sent when the server died, and may or may not be recorded.
    pub unanswered_recorded: u64,
}

impl Comparison {
    /// Whether the promise was kept: nothing lost, duplicated or invented.
    pub fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.never_sent == 0
    }

    /// The sum with another load's comparison.
    #[must_use]
    pub fn plus(self, other: Comparison) -> Comparison {
        Comparison {
            sent: self.sent + other.sent,
            answered: self.answered + other.answered,
            rows: self.rows + other.rows,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            never_sent: self.never_sent + other.never_sent,
            unanswered_recorded: self.unanswered_recorded + other.unanswered_recorded,
        }
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Comparison { sent, answered, rows, lost, duplicated, never_sent, unanswered_recorded } = self;
        writeln!(f, "  sent        {sent:>12}")?;
        writeln!(f, "  answered    {answered:>12}")?;
        writeln!(f, "  rows        {rows:>12}   ({unanswered_recorded} of requests without an answer)")?;
        writeln!(f, "  lost        {lost:>12}")?;
        writeln!(f, "  duplicated  {duplicated:>12}")?;
        write!(f, "  never sent  {never_sent:>12}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_break_the_promise_is_reported() {
        let ledger = Ledger::new(8);
        for _ in 0..6 {
            ledger.take();
        }
        (0..5).for_each(|number| ledger.sent(number));
        (0..4).for_each(|number| ledger.answered(number));
        let comparison = ledger.compare(&[1, 0, 2, 1, 1, 1]);
        let expected =
            Comparison { sent: 5, answered: 4, rows: 6, lost: 1, duplicated: 1, never_sent: 1, unanswered_recorded: 1 };
        assert_eq!(comparison, expected);
        assert!(!comparison.is_exact() && ledger.compare(&[1, 1, 1, 1]).is_exact());
    }

    #[test]
    fn a_full_ledger_gives_no_number() {
        let ledger = Ledger::new(2);
        assert_eq!([ledger.take(), ledger.take(), ledger.take()], [Some(0), Some(1), None]);
        assert_eq!(ledger.compare(&[]), Comparison::default());
    }
}
