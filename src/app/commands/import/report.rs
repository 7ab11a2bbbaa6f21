//! What an import prints, while it works and at its end.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Completeness;
use super::marks::Totals;
use super::row::Refusal;
use super::source::{LogRow, Picture};
use crate::images::upload;

/// Maximum failed rows that are named; the others are counted.
const ROWS_NAMED_MAX: usize = 20;

/// Without a terminal for a bar, a line is printed at this interval.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// Why a picture could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureProblem {
    /// The name of its file is not UTF-8.
    #[error("its file name has bytes that the database cannot return as UTF-8 (another encoding)")]
    Unnamed,
    /// The app has no file of it.
    #[error("the app has no file for it")]
    NoFile,
    /// Its file is not below the media directory.
    #[error("its file is outside the media directory")]
    Outside,
    /// Its file cannot be read.
    #[error("its file is missing or cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is not an image, or too large.
    #[error(transparent)]
    Refused(#[from] upload::Refusal),
    /// The nil UUID means "none" in links.
    #[error("the nil UUID cannot be the id of an image")]
    Nil,
    /// Its id is another image's.
    #[error("another image already has its id here and stays")]
    Another,
}

/// What happened to a picture.
pub(super) enum Became {
    /// It is added, or would be.
    Added,
    /// It exists already.
    Here,
    /// It exists and is deleted; it stays deleted.
    Deleted,
}

/// The result of an import.
#[derive(Debug, Default)]
pub(super) struct Report {
    is_dry_run: bool,
    pictures_added: u64,
    pictures_here: u64,
    pictures_deleted: u64,
    pictures_not_taken: Vec<String>,
    /// Of this run.
    pub rows: Rows,
    /// Of all runs.
    pub totals: Totals,
}

/// What happened to the log rows of a run.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Rows that are hits now, or would be.
    pub taken: u64,
    /// Rows without a valid address.
    pub without_address: u64,
    /// Rows that are older than the retention time.
    pub expired: u64,
    /// Rows of people who opted out.
    pub suppressed: u64,
    /// Rows of people who were erased.
    pub erased: u64,
    /// Rows that could not be imported.
    pub refused: u64,
    named: Vec<String>,
}

impl Rows {
    /// Counts a row that cannot be imported.
    pub(super) fn refuse(&mut self, row: &LogRow, refusal: Refusal) {
        self.refused += 1;
        if self.named.len() < ROWS_NAMED_MAX {
            self.named.push(format!("row {} of images_userinfo: {refusal}", row.id));
        }
    }
}

impl Report {
    /// An empty report.
    pub(super) fn new(is_dry_run: bool) -> Report {
        Report { is_dry_run, ..Report::default() }
    }

    /// Counts a picture.
    pub(super) fn picture(&mut self, became: &Became) {
        match became {
            Became::Added => self.pictures_added += 1,
            Became::Here => self.pictures_here += 1,
            Became::Deleted => self.pictures_deleted += 1,
        }
    }

    /// Counts a picture that could not be imported, with what to do.
    pub(super) fn picture_not_taken(&mut self, picture: &Picture, problem: PictureProblem) {
        let what_to_do = match problem {
            PictureProblem::Refused(upload::Refusal::TooLarge | upload::Refusal::Pixels(..)) => {
                "make a smaller one, and add it with"
            }
            PictureProblem::Nil | PictureProblem::Another => "",
            _ => "if old emails show it, add another image under its id with",
        };
        let mut said = format!("{} {:?} ({}): {problem}", picture.uuid, picture.title, picture.file);
        if !what_to_do.is_empty() {
            said.push_str(&format!("; {what_to_do}: pixeld image add FILE --id {}", picture.uuid));
        }
        self.pictures_not_taken.push(said);
    }

    /// Whether everything was imported, in this run and in those before. What the settings leave out (retention,
    /// opt-outs) counts as imported.
    pub(super) fn completeness(&self) -> Completeness {
        let refused = self.totals.refused.max(self.rows.refused);
        if self.pictures_not_taken.is_empty() && refused == 0 { Completeness::Whole } else { Completeness::Partly }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.is_dry_run { "to be " } else { "" };
        writeln!(f, "images: {} {would}added, {} already here", self.pictures_added, self.pictures_here)?;
        if self.pictures_deleted > 0 {
            writeln!(f, "  {} deleted here; they stay deleted", self.pictures_deleted)?;
        }
        if !self.pictures_not_taken.is_empty() {
            writeln!(f, "  {} not imported; their links return 404:", self.pictures_not_taken.len())?;
            self.pictures_not_taken.iter().try_for_each(|said| writeln!(f, "    {said}"))?;
        }
        let Rows { taken, without_address, expired, suppressed, erased, refused, named } = &self.rows;
        writeln!(f, "log rows: {taken} {would}imported")?;
        if *without_address > 0 {
            writeln!(
                f,
                "  {without_address} have no address because the app's value is not an address (for example \"unknown\")"
            )?;
        }
        for (count, why) in [
            (expired, "are older than PIXELD_RETENTION_DAYS"),
            (suppressed, "belong to people who opted out"),
            (erased, "belong to people who were erased"),
        ] {
            if *count > 0 {
                writeln!(f, "  {count} left out: they {why}")?;
            }
        }
        if *refused > 0 {
            writeln!(f, "  {refused} not imported because they cannot be read:")?;
            named.iter().try_for_each(|said| writeln!(f, "    {said}"))?;
            let unnamed = refused - named.len() as u64;
            if unnamed > 0 {
                writeln!(f, "    and {unnamed} more")?;
            }
        }
        let Totals { loaded, suppressed, expired, refused } = self.totals;
        writeln!(f, "all runs: {loaded} log rows imported, {} left out, {refused} not imported", suppressed + expired)?;
        if self.is_dry_run {
            writeln!(f, "nothing changed (--dry-run)")?;
        }
        Ok(())
    }
}

/// Shows the progress: a bar on a terminal, otherwise a line now and then.
pub(super) struct Shown {
    what: &'static str,
    length: u64,
    position: u64,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Shown {
    /// No progress yet.
    pub(super) fn new() -> Shown {
        Shown { what: "", length: 0, position: 0, bar: None, told: Instant::now() }
    }

    /// Starts with a total of `length`.
    pub(super) fn begin(&mut self, what: &'static str, length: u64) {
        (self.what, self.length, self.position) = (what, length, 0);
        self.told = Instant::now();
        self.bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg}  {wide_bar}  {human_pos} of {human_len}  {eta} left");
            let bar = ProgressBar::new(length.max(1)).with_message(what);
            style.map_or(bar.clone(), |style| bar.with_style(style))
        });
    }

    /// Shows that `position` are done.
    pub(super) fn at(&mut self, position: u64) {
        self.position = position;
        match &self.bar {
            Some(bar) => bar.set_position(position),
            None if self.told.elapsed() >= LINE_PAUSE => self.tell(),
            None => {}
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        match self.bar.take() {
            Some(bar) => bar.finish_and_clear(),
            None => self.tell(),
        }
    }

    fn tell(&mut self) {
        eprintln!("{}: {} of {}", self.what, self.position, self.length);
        self.told = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_everything_and_names_the_first_of_what_was_not_taken() {
        let mut report = Report::new(false);
        assert_eq!(report.completeness(), Completeness::Whole);
        for id in 1..=25 {
            report.rows.refuse(&LogRow { id, ..LogRow::default() }, Refusal::Time);
        }
        let text = report.to_string();
        assert!(
            text.contains("25 not imported") && text.contains("row 20 of") && text.contains("and 5 more"),
            "{text}"
        );
        assert!(!text.contains("row 21 of"), "{text}");
        assert_eq!(report.completeness(), Completeness::Partly);
        let earlier = Report { totals: Totals { refused: 1, ..Totals::default() }, ..Report::new(false) };
        assert_eq!(earlier.completeness(), Completeness::Partly, "an earlier run's count, too");
        let by_settings = Report { rows: Rows { expired: 3, suppressed: 2, ..Rows::default() }, ..Report::new(true) };
        assert_eq!(by_settings.completeness(), Completeness::Whole);
        let text = by_settings.to_string();
        assert!(text.contains("3 left out") && text.contains("2 left out") && text.contains("--dry-run"), "{text}");
    }
}
