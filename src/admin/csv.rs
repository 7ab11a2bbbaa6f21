//! A list of recipients comes as CSV, and goes back with columns of ours behind its own.
//!
//! Guarantees: a list of any length needs bounded memory; nothing of it is stored: the answer waits in a file that has no name from the
//! start, and whose room is free again when the answer is sent, given up, or pixeld dies. Browsers send the
//! whole list before they read, so the answer cannot go back while it is made: nothing of it is sent before its last row was found right. What a list may
//! be, and how it comes back, is [`crate::lists`]'s.
//!
//! # Layout
//! - [`answer_file`]: where the answer waits.

pub mod answer_file;

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use maud::{Markup, html};

use super::Admin;
use super::answer::{self, Answer};
use super::asked::Fields;
use super::gate::Place;
use super::refusal::Refusal;
use super::upload::{Part, Upload};
use super::view::{Tone, notice};
use crate::lists::Problem;
use crate::lists::header::{Header, Ours};
use crate::lists::reader::{Came, Reader};
use crate::lists::rows::Batch;
use answer_file::AnswerFile;

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
        header: &Header,
        rows: &Batch,
        cells: &mut Vec<Cow<'static, str>>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The name of the answer, once all rows are filled: it tells how many there are.
    ///
    /// # Errors
    /// Where the rows together look wrong.
    fn end(&mut self, header: &Header) -> impl Future<Output = Result<String, Refusal>> + Send;
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

/// Takes the list in `part`, the last of its form, and answers it.
///
/// # Errors
/// Where the list is not as it should be, does not come whole, there is no room for its answer, or `columns` cannot be filled.
pub async fn answered<C: Columns>(
    admin: &Admin,
    upload: &mut Upload,
    mut part: Part,
    columns: C,
    place: Place,
) -> Result<Answer, Refusal> {
    let file = AnswerFile::create(&admin.data_dir).await?;
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
    /// Answers the rows that came.
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
            // Others have a turn, too: all of this is one thread's.
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
