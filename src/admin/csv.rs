//! Takes a list of recipients as CSV, and returns it with added columns.
//!
//! Guarantees: a list of any length needs bounded memory, and nothing of it is stored. The answer waits in a file that
//! never has a name; its room is free again when the answer is sent or abandoned, or when pixeld dies. Browsers send
//! the whole list before they read, so the answer cannot be sent while it is made: nothing is sent before the last row
//! was checked. [`crate::lists`] defines what a list may be, and how it is returned.
//!
//! # Layout
//! - [`answer_file`]: where the answer waits.

pub(crate) mod answer_file;

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use maud::{Markup, html};

use super::Admin;
use super::answer::{self, Answer};
use super::gate::Place;
use super::refusal::Refusal;
use super::request::Fields;
use super::upload::{Part, Upload};
use super::view::{Tone, notice};
use crate::lists::Problem;
use crate::lists::header::{Header, Ours};
use crate::lists::reader::{Came, Reader};
use crate::lists::rows::Batch;
use answer_file::AnswerFile;

/// Lists that are received, or whose answers are sent, at a time.
pub(crate) const LISTS_MAX: usize = 2;

/// Maximum pause of a client that sends a list.
pub(crate) const CHUNK_WAIT: Duration = Duration::from_secs(60);

/// Maximum number of fields of a form, without its file.
const FIELDS_MAX: usize = 16;

/// The name of a form's file.
pub(crate) const FILE: &str = "file";

/// The media type of the answer.
const MEDIA_TYPE: &str = "text/csv; charset=utf-8";

/// The columns that are added to a list.
pub(crate) trait Columns: Send {
    /// Their names. Columns of the list with the same names, from an earlier answer, are replaced.
    const NAMES: &'static [&'static str];

    /// Chooses the columns of the list that it needs.
    ///
    /// # Errors
    /// If one is missing.
    fn choose(&mut self, header: &Header) -> Result<(), Problem>;

    /// Appends to `cells`, for each row in turn, one cell per name.
    fn fill(
        &mut self,
        header: &Header,
        rows: &Batch,
        cells: &mut Vec<Cow<'static, str>>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The name of the answer, once all rows are filled; it includes how many there are.
    ///
    /// # Errors
    /// If the rows together look wrong.
    fn end(&mut self, header: &Header) -> impl Future<Output = Result<String, Refusal>> + Send;
}

/// Reads a form up to its file. The fields come first, since they say what to do with it.
///
/// # Errors
/// If there is no file, or too many fields.
pub(crate) async fn fields(upload: &mut Upload, fields: &mut Fields) -> Result<Part, Refusal> {
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

/// The answer; or, if the input is wrong, the page that `form` makes of a notice that says how.
///
/// # Errors
/// Every other refusal.
pub(crate) async fn answer_or_form<F: Future<Output = Result<Answer, Refusal>>>(
    answered: Result<Answer, Refusal>,
    mut upload: Upload,
    form: impl FnOnce(Markup) -> F,
) -> Result<Answer, Refusal> {
    let refusal = match answered {
        Ok(answer) => return Ok(answer),
        Err(refusal) => refusal,
    };
    // Read and discard the rest: a browser shows no answer before it has sent everything.
    while let Ok(Some(part)) = upload.next().await {
        drop(part);
    }
    match refusal {
        Refusal::Upload(words) => form(notice(Tone::Bad, html! { p { (words) } })).await,
        refusal => Err(refusal),
    }
}

/// Reads the list in `part`, the last of its form, and answers it.
///
/// # Errors
/// If the list is invalid or incomplete, if there is no room for its answer, or if `columns` cannot be filled.
pub(crate) async fn answered<C: Columns>(
    admin: &Admin,
    upload: &mut Upload,
    mut part: Part,
    columns: C,
    place: Place,
) -> Result<Answer, Refusal> {
    let file = AnswerFile::create(&admin.options.data_dir).await?;
    let mut job = Job { columns, reader: Reader::new(C::NAMES, Ours::Replace), cells: Vec::new(), file };
    while let Some(chunk) = chunk(&mut part).await? {
        job.reader.push(&chunk)?;
        job.answer_rows().await?;
    }
    drop(part);
    while let Some(part) = upload.next().await? {
        if !part.text().await?.is_empty() {
            return Err(Refusal::Upload("The fields of this form must come before its file.".to_owned()));
        }
    }
    let (file, name) = job.end().await?;
    Ok(answer::sized(file.length(), answer::download(MEDIA_TYPE, &name, file.body(place))))
}

async fn chunk(part: &mut Part) -> Result<Option<Bytes>, Refusal> {
    let stopped = || Refusal::Upload("The upload stopped before its end. Try again.".to_owned());
    tokio::time::timeout(CHUNK_WAIT, part.chunk()).await.map_err(|_| stopped())?
}

/// A list that is being answered.
struct Job<C> {
    columns: C,
    reader: Reader,
    cells: Vec<Cow<'static, str>>,
    file: AnswerFile,
}

impl<C: Columns> Job<C> {
    /// Answers the rows that have arrived.
    async fn answer_rows(&mut self) -> Result<(), Refusal> {
        loop {
            let came = self.reader.advance()?;
            let Some(header) = self.reader.header() else { return Ok(()) };
            match came {
                Came::Nothing => return Ok(()),
                Came::Header => {
                    self.columns.choose(header)?;
                    self.reader.write_header(self.file.block());
                }
                Came::Rows => {
                    self.cells.clear();
                    self.columns.fill(header, self.reader.batch(), &mut self.cells).await?;
                    self.reader.write_rows(self.file.block(), &self.cells);
                }
            }
            self.file.write_if_full().await?;
            // Let others run: all of this is on one thread.
            tokio::task::yield_now().await;
        }
    }

    /// The whole answer and its name.
    async fn end(mut self) -> Result<(AnswerFile, String), Refusal> {
        self.reader.end()?;
        self.answer_rows().await?;
        let name = self.columns.end(self.reader.header().ok_or(Problem::Empty)?).await?;
        self.file.end().await?;
        Ok((self.file, name))
    }
}
