//! The end of the retention: since when hits are kept, and opens whose hits are all gone.
//!
//! Counts stay: those of hours, messages and images name nobody. So does a message's number of opens, although it has fewer rows of
//! opens then; who fetches an old mail again after that is counted as a new open.

use time::OffsetDateTime;

use super::{ChangeError, Changes};

/// Opens that one transaction forgets at most.
const CHUNK_OPENS_MAX: i64 = 10_000;

impl Changes {
    /// Notes that hits are kept from then on only: opens that began before are frozen. Whatever is pending is rolled up first,
    /// so that the hits before it are all counted.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`].
    pub async fn retain_from(&mut self, from: OffsetDateTime) -> Result<(), ChangeError> {
        self.begin().await?;
        let update = "UPDATE rollup_state SET retained_from = GREATEST(retained_from, $1)";
        self.tally.execute("writing rollup_state", update, &[&from]).await?;
        Ok(self.tally.commit().await?)
    }

    /// Deletes opens whose last hit is not retained, chunk by chunk, without a change of counts. Returns how many.
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
            // Looked at again under the lock: a hit that came meanwhile keeps its open.
            let delete = "DELETE FROM opens o USING rollup_state s \
                          WHERE o.ctid = ANY($1::text[]::tid[]) AND o.last_at < s.retained_from";
            forgotten += self.tally.execute("forgetting opens", delete, &[&tids]).await?;
            self.tally.commit().await?;
        }
    }
}
