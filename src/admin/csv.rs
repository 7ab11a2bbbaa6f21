//! A list of recipients comes as CSV, and goes back with columns of ours behind its own.
//!
//! Guarantees: a list of any length needs bounded memory; nothing of it is stored: the answer waits in a file that has no name from the
//! start, and whose room is free again when the answer is sent, given up, or pixeld dies; no cell of the answer is a formula. Browsers send the
//! whole list before they read, so the answer cannot go back while it is made. Gives up: the quoting of the list; empty lines.
//!
//! # Layout
//! - [`rows`]: bytes to rows, as they come. [`cells`]: what a cell says, and how it is written. Both pure.
//! - [`answer_file`]: where the answer waits.

pub mod answer_file;
pub mod cells;
pub mod rows;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maud::{Markup, html};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Admin;
use super::answer::{self, Answer};
use super::asked::Fields;
use super::refusal::Refusal;
use super::upload::{Part, Upload};
use super::view::{Tone, notice};
use answer_file::AnswerFile;
use cells::Header;
use rows::{Batch, Dialect, Problem, Rows};

/// Lists that are taken, or whose answers are sent, at a time.
pub const LISTS_MAX: usize = 2;

/// How long a list may stop coming.
pub const CHUNK_WAIT: Duration = Duration::from_secs(60);

/// Fields of a form besides its file.
const FIELDS_MAX: usize = 16;

/// The name of a form's file.
pub const FILE: &str = "file";

/// The media type of the answer.
const MEDIA_TYPE: &str = "text/csv; charset=utf-8";

/// Who may send a list now.
pub struct Places(Arc<Semaphore>);

/// A list's place, until its answer is sent.
pub struct Place(#[expect(dead_code, reason = "it is held, not looked at")] OwnedSemaphorePermit);

impl Default for Places {
    fn default() -> Self {
        Places(Arc::new(Semaphore::new(LISTS_MAX)))
    }
}

impl Places {
    /// A place.
    ///
    /// # Errors
    /// Where all are taken.
    pub fn take(&self) -> Result<Place, Refusal> {
        Arc::clone(&self.0).try_acquire_owned().map(Place).map_err(|_| Refusal::Busy)
    }
}

/// The columns that an answer has more than the list.
pub trait Columns: Send {
    /// What they are called. Columns of the list that are called so, from an earlier answer, make room for them.
    const NAMES: &'static [&'static str];

    /// Chooses the columns of the list that it looks at.
    ///
    /// # Errors
    /// Where one is not there.
    fn choose(&mut self, header: &Header) -> Result<(), Problem>;

    /// Appends to `cells`, for each row in turn, as many as there are names.
    fn fill(
        &mut self,
        rows: &Batch,
        cells: &mut Vec<Cow<'static, str>>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Reads a form up to its file. Its fields come before it, so that they say what to do with it.
///
/// # Errors
/// Where there is no file, or too many fields.
pub async fn fields(upload: &mut Upload, fields: &mut Fields) -> Result<Part, Refusal> {
    let mut count = 0;
    while let Some(part) = upload.next().await? {
        if part.name() == FILE {
            return match part.file_name() {
                Some(_) => Ok(part),
                None => Err(Refusal::Upload("Choose a file.".to_owned())),
            };
        }
        count += 1;
        if count > FIELDS_MAX {
            return Err(Refusal::NoForm);
        }
        let name = part.name().to_owned();
        fields.add(name, part.text().await?);
    }
    Err(Refusal::Upload("Choose a file.".to_owned()))
}

/// The answer; or, where what was sent is not as it should be, a notice that says so for the form's page.
///
/// # Errors
/// Every other refusal.
pub async fn answer_or_words(
    answered: Result<Answer, Refusal>,
    mut upload: Upload,
) -> Result<Result<Answer, Markup>, Refusal> {
    let refusal = match answered {
        Ok(answer) => return Ok(Ok(answer)),
        Err(refusal) => refusal,
    };
    // The rest is read and forgotten: a browser shows no answer before it has sent everything.
    while let Ok(Some(part)) = upload.next().await {
        drop(part);
    }
    match refusal {
        Refusal::Upload(words) => Ok(Err(notice(Tone::Bad, html! { p { (words) } }))),
        refusal => Err(refusal),
    }
}

/// Takes the list in `part`, the last of its form, and answers it under a name.
///
/// # Errors
/// Where the list is not as it should be, does not come whole, there is no room for its answer, or `columns` cannot be filled.
pub async fn answered<C: Columns>(
    admin: &Admin,
    upload: &mut Upload,
    mut part: Part,
    columns: C,
    name: &str,
    place: Place,
) -> Result<Answer, Refusal> {
    let mut job = Job::new(columns, AnswerFile::create(&admin.data_dir).await?);
    while let Some(chunk) = chunk(&mut part).await? {
        job.take(&chunk).await?;
    }
    drop(part);
    while let Some(part) = upload.next().await? {
        if !part.text().await?.is_empty() {
            return Err(Refusal::Upload("A form's fields come before its file.".to_owned()));
        }
    }
    let file = job.end().await?;
    Ok(answer::sized(file.length(), answer::download(MEDIA_TYPE, name, file.body(place))))
}

async fn chunk(part: &mut Part) -> Result<Option<Bytes>, Refusal> {
    let stopped = || Refusal::Upload("The file stopped coming, and was given up. Try again.".to_owned());
    tokio::time::timeout(CHUNK_WAIT, part.chunk()).await.map_err(|_| stopped())?
}

/// A list that is being answered.
struct Job<C> {
    columns: C,
    /// The beginning, until it says how the list is written.
    start: Vec<u8>,
    rows: Option<(Dialect, Rows)>,
    header: Option<Header>,
    batch: Batch,
    cells: Vec<Cow<'static, str>>,
    file: AnswerFile,
}

impl<C: Columns> Job<C> {
    fn new(columns: C, file: AnswerFile) -> Job<C> {
        let (batch, cells) = (Batch::default(), Vec::new());
        Job { columns, start: Vec::new(), rows: None, header: None, batch, cells, file }
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        if self.rows.is_some() {
            return self.read(chunk).await;
        }
        self.start.extend_from_slice(chunk);
        self.begin(false).await
    }

    /// Looks how the list is written, and reads what has come of it.
    async fn begin(&mut self, is_end: bool) -> Result<(), Refusal> {
        let Some((dialect, skipped)) = Dialect::of(&self.start, is_end)? else { return Ok(()) };
        self.rows = Some((dialect, Rows::new(dialect.delimiter)));
        let start = std::mem::take(&mut self.start);
        self.read(&start[skipped..]).await
    }

    async fn read(&mut self, mut input: &[u8]) -> Result<(), Refusal> {
        loop {
            let Some((_, rows)) = &mut self.rows else { return Ok(()) };
            let most = if self.header.is_none() { 1 } else { Batch::ROWS_MAX };
            if !rows.read(&mut input, &mut self.batch, most)? {
                return Ok(());
            }
            self.answer_batch().await?;
        }
    }

    async fn end(mut self) -> Result<AnswerFile, Refusal> {
        if self.rows.is_none() {
            self.begin(true).await?;
        }
        if let Some((_, rows)) = &mut self.rows {
            rows.end(&mut self.batch)?;
        }
        self.answer_batch().await?;
        if self.header.is_none() {
            return Err(Problem::Empty.into());
        }
        self.file.end().await?;
        Ok(self.file)
    }

    /// Answers the rows at hand; the first of all is the header.
    async fn answer_batch(&mut self) -> Result<(), Refusal> {
        let Some((dialect, _)) = self.rows else { return Ok(()) };
        if self.batch.is_empty() {
            return Ok(());
        }
        self.cells.clear();
        let header = match &self.header {
            Some(header) => {
                self.columns.fill(&self.batch, &mut self.cells).await?;
                header
            }
            None => {
                let header = Header::read(&self.batch, C::NAMES)?;
                self.columns.choose(&header)?;
                self.cells.extend(C::NAMES.iter().map(|name| Cow::Borrowed(*name)));
                if dialect.has_mark {
                    self.file.block().extend_from_slice(rows::MARK);
                }
                self.header.insert(header)
            }
        };
        let ours = self.cells.chunks_exact(C::NAMES.len());
        for (row, ours) in self.batch.rows().zip(ours) {
            header.write(self.file.block(), dialect, row, ours);
        }
        self.batch.clear();
        self.file.write_if_full().await?;
        // Others have a turn, too: all of this is one thread's.
        tokio::task::yield_now().await;
        Ok(())
    }
}
