//! The end of the retention: the time from which on hits are kept, and opens whose hits are all deleted.
//!
//! Counts stay: those of hours, messages and images name nobody. So does a message's number of opens, although it then
//! has fewer rows of opens; a reader who fetches an old mail again after that counts as a new open.

use time::OffsetDateTime;

use super::{ChangeError, Changes};

/// Maximum opens that one transaction deletes.
const CHUNK_OPENS_MAX: i64 = 10_000;

impl Changes {
    /// Records that hits are kept only from `from` on: opens that began before are frozen. Pending batches are rolled
    /// up first, so that all hits before it are counted.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`].
    pub async fn retain_from(&mut self, from: OffsetDateTime) -> Result<(), ChangeError> {
        self.begin().await?;
        let update = "UPDATE rollup_state SET retained_from = GREATEST(retained_from, $1)";
        self.tally.execute("writing rollup_state", update, &[&from]).await?;
        Ok(self.tally.commit().await?)
    }

    /// Deletes opens whose last hit is beyond the retention, chunk by chunk, without changing counts. Returns how many.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`].
    pub async fn forget_opens(&mut self) -> Result<u64, ChangeError> {
        let find = "SELECT o.ctid::text FROM opens o \
                    WHERE o.ctid > $1::text::tid AND o.last_at < (SELECT retained_from FROM rollup_state) \
                    ORDER BY o.ctid LIMIT $2";
        let (mut forgotten, mut last) = (0, "(0,0)".to_owned());
        loop {
            let rows = self.search(find, &[&last, &CHUNK_OPENS_MAX]).await?;
            let tids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let Some(end) = tids.last() else { return Ok(forgotten) };
            last.clone_from(end);
            self.begin().await?;
            // Checked again under the lock: a hit that came in between keeps its open.
            let delete = "DELETE FROM opens o USING rollup_state s \
                          WHERE o.ctid = ANY($1::text[]::tid[]) AND o.last_at < s.retained_from";
            forgotten += self.tally.execute("forgetting opens", delete, &[&tids]).await?;
            self.tally.commit().await?;
        }
    }
}
