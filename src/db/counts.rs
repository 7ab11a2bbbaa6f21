//! Opens over all messages, from the counts by slot: the time of a query does not grow with the number of hits.
//!
//! Guarantees: bounds at whole quarters of an hour are exact, and midnight is one in every zone. Gives up: hits that
//! were counted by hour (before [`quarters_from`]). All hits of such an hour count at its beginning, which in a zone at
//! half hours may be the day before.
//!
//! An open is counted in the slot of its first hit, by that hit's class, and, if it is confirmed, in the slot in which
//! it was. A recipient who was first fetched by a machine and read later is therefore in two of the three numbers, at
//! two times.
use pixeld_core::ids::ImageId;
use pixeld_core::opens::class::{Certainty, Class};
use time::OffsetDateTime;
use tokio_postgres::{Client, Error, Row};

/// The three numbers of a time range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opens {
    /// Recipients whose first confirmed open was in the range.
    pub confirmed: i64,
    /// Recipients whose first fetch was in the range, and was perhaps an open.
    pub possible: i64,
    /// Recipients whose first fetch was in the range, and was a machine's.
    pub machine: i64,
    /// All hits, with and without a recipient.
    pub hits: i64,
}

/// Opens since each of these times, the earliest last.
pub(crate) async fn since(client: &Client, times: [OffsetDateTime; 3]) -> Result<[Opens; 3], Error> {
    let select = include_str!("counts/since.sql");
    let mut opens = [Opens::default(); 3];
    for row in client.query(select, &[&times[0], &times[1], &times[2]]).await? {
        // A class of a newer program that this one does not know.
        let class = Class::of(row.get(0)).unwrap_or(Class::Unknown);
        for (at, opens) in opens.iter_mut().enumerate() {
            let [first, confirmed, hits]: [i64; 3] = [1, 2, 3].map(|column| row.get(column + 3 * at));
            opens.confirmed += confirmed;
            opens.hits += hits;
            match class.certainty() {
                Certainty::Confirmed => {}
                Certainty::Possible => opens.possible += first,
                Certainty::Machine => opens.machine += first,
            }
        }
    }
    Ok(opens)
}

/// Hits between each of these times and the next: confirmed, possible, machine. A slot counts at its beginning.
pub(crate) async fn hits_between(client: &Client, times: &[OffsetDateTime]) -> Result<Vec<[i64; 3]>, Error> {
    let select = "SELECT width_bucket(hour, $1::timestamptz[]) - 1, class, sum(hits)::bigint \
         FROM site_hours WHERE hour >= $2 AND hour < $3 GROUP BY 1, 2";
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(Vec::new()) };
    let rows = client.query(select, &[&times, first, last]).await?;
    Ok(by_certainty(&rows, times.len() - 1))
}

/// Hits of one image between each of these times and the next.
pub(crate) async fn image_hits_between(
    client: &Client,
    image: ImageId,
    times: &[OffsetDateTime],
) -> Result<Vec<i64>, Error> {
    let select = "SELECT width_bucket(hour, $2::timestamptz[]) - 1, sum(hits)::bigint \
         FROM image_hours WHERE image = $1 AND hour >= $3 AND hour < $4 GROUP BY 1";
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(Vec::new()) };
    let mut sums = vec![0; times.len() - 1];
    for row in client.query(select, &[&image, &times, first, last]).await? {
        let place = usize::try_from(row.get::<_, i32>(0)).ok().and_then(|place| sums.get_mut(place));
        place.into_iter().for_each(|sum| *sum += row.get::<_, i64>(1));
    }
    Ok(sums)
}

/// Hits of each of these images since a time, including images without hits.
pub(crate) async fn image_hits_since(
    client: &Client,
    images: &[ImageId],
    since: OffsetDateTime,
) -> Result<Vec<i64>, Error> {
    let select = "SELECT coalesce(sum(hits), 0)::bigint FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place) \
         LEFT JOIN image_hours ON image = id AND hour >= $2 GROUP BY place ORDER BY place";
    let rows = client.query(select, &[&images, &since]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Sums up rows of (index, class, number).
fn by_certainty(rows: &[Row], places: usize) -> Vec<[i64; 3]> {
    let mut sums = vec![[0; 3]; places];
    for row in rows {
        let Some(sum) = usize::try_from(row.get::<_, i32>(0)).ok().and_then(|place| sums.get_mut(place)) else {
            continue;
        };
        let series = match Class::of(row.get(1)).unwrap_or(Class::Unknown).certainty() {
            Certainty::Confirmed => 0,
            Certainty::Possible => 1,
            Certainty::Machine => 2,
        };
        sum[series] += row.get::<_, i64>(2);
    }
    sums
}

/// The time from which on hits are counted by quarter of an hour instead of by hour.
pub(crate) async fn quarters_from(client: &Client) -> Result<OffsetDateTime, Error> {
    Ok(client.query_one("SELECT quarters_from FROM counting", &[]).await?.get(0))
}

/// Whether any hit was ever loaded.
pub(crate) async fn any_loaded(client: &Client) -> Result<bool, Error> {
    Ok(client.query_one("SELECT EXISTS (SELECT FROM batches WHERE loaded > 0)", &[]).await?.get(0))
}
