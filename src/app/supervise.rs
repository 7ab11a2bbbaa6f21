//! What happens when a task of `pixeld serve` ends or panics unexpectedly: the log says which and why,
//! `pixeld_tasks_ended_total` counts it, and it is restarted, or pixeld drains and exits with an error.
//!
//! | task | when it ends |
//! |---|---|
//! | edge core, writer, loader, eraser, housekeeper, database | drain, then exit with `the {task} ended; the log says why` |
//! | images, rollup, retention, opt-outs, networks, admin, cleaning | restart |
//! | namespace, systemd | restart after a panic; they end by themselves when they are done |
//!
//! Guarantees: pixeld is never half alive. It restarts only tasks that read their state again from PostgreSQL or disk
//! and whose work is one transaction at a time. The others own hits or files that a second one could not take over in
//! the middle; the next start does ([`pixeld_spool::recovery`]). A restart waits 1 s, then twice as long each time, up
//! to a minute. Gives up: detecting a task that hangs; its own metrics show that.
//!
//! [`if_it_ends`] is that table. A task can only be started through a [`Supervisor`], under its name in [`Task`], and
//! `tests/it/faults/supervise.rs` ends each of [`Task::ALL`] in a real `serve`, so that every name belongs to a started
//! task.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, thread};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use pixeld_core::metrics::{Metrics, Task};

/// The wait before a first restart, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The niceness of the loader and the eraser, so that the threads that serve go first (0 is none, 19 the most).
const LOADER_NICE: i32 = 10;

/// When a task that a test ends on purpose panics: it is in the middle of its work by then.
const ON_PURPOSE_AFTER: Duration = Duration::from_millis(200);

/// What happens after a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfItEnds {
    /// pixeld drains, and exits with an error.
    Exit,
    /// It is started again.
    Restart,
    /// As `Restart` after a panic. It may end by itself: then it is done.
    RestartUnlessDone,
}

/// The table.
pub fn if_it_ends(task: Task) -> IfItEnds {
    match task {
        Task::EdgeCore | Task::Writer | Task::Loader | Task::Eraser | Task::Housekeeper | Task::Database => {
            IfItEnds::Exit
        }
        Task::Images
        | Task::Rollup
        | Task::Retention
        | Task::OptOuts
        | Task::Networks
        | Task::Admin
        | Task::Cleaning => IfItEnds::Restart,
        Task::Namespace | Task::Systemd => IfItEnds::RestartUnlessDone,
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Returned,
    Panicked(String),
}

impl Ending {
    fn of_panic(payload: &(dyn Any + Send)) -> Ending {
        let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
        Ending::Panicked(words.unwrap_or_else(|| "a panic without words".to_owned()))
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: the end is normal.
    Nothing,
    Restart,
    Exit,
}

/// Pure. `is_drained`: the drain has begun.
fn next(task: Task, ending: &Ending, is_drained: bool) -> Next {
    match (if_it_ends(task), ending) {
        _ if is_drained => Next::Nothing,
        (IfItEnds::Exit, _) => Next::Exit,
        (IfItEnds::RestartUnlessDone, Ending::Returned) => Next::Nothing,
        (IfItEnds::Restart | IfItEnds::RestartUnlessDone, _) => Next::Restart,
    }
}

/// Starts tasks, and notices when one ends.
#[derive(Debug, Clone)]
pub(super) struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    /// The first indispensable task that ended.
    lost: watch::Sender<Option<Task>>,
    /// Whether the drain has begun.
    is_drained: watch::Sender<bool>,
    ends_on_purpose: Option<Task>,
    has_ended_on_purpose: AtomicBool,
}

impl Supervisor {
    /// Counts in `metrics`. A test names a task that panics once; `pixeld serve` names none.
    pub(super) fn new(metrics: Arc<Metrics>, ends_on_purpose: Option<Task>) -> Supervisor {
        Supervisor(Arc::new(Shared {
            metrics,
            lost: watch::Sender::new(None),
            is_drained: watch::Sender::new(false),
            ends_on_purpose,
            has_ended_on_purpose: AtomicBool::new(false),
        }))
    }

    /// From now on tasks may end, and none is restarted.
    pub(super) fn begin_drain(&self) {
        self.0.is_drained.send_replace(true);
    }

    /// Resolves with the task that ended when pixeld cannot go on.
    pub(super) async fn lost(&self) -> Task {
        let mut lost = self.0.lost.subscribe();
        let lost = lost.wait_for(Option::is_some).await.ok().and_then(|lost| *lost);
        match lost {
            Some(task) => task,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Runs a task on a thread of its own.
    ///
    /// # Errors
    /// If the operating system refuses the thread.
    pub(super) fn thread<T: Send + 'static>(
        &self,
        task: Task,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<T>> {
        let supervisor = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                if supervisor.is_to_end(task) {
                    end_on_purpose(task);
                }
                work()
            }));
            supervisor.ended(task, &outcome);
            outcome.unwrap_or_else(|payload| resume_unwind(payload))
        })
    }

    /// The same for tasks that read files and encode rows, with a runtime of their own: they must not delay a pixel.
    ///
    /// # Errors
    /// If the operating system refuses the thread or the runtime.
    pub(super) fn background_thread<T: Send + 'static>(
        &self,
        task: Task,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<thread::JoinHandle<T>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.thread(task, task.label(), move || {
            // Pixels first: a batch takes milliseconds of a core that may be serving.
            if let Err(error) = rustix::process::nice(LOADER_NICE) {
                tracing::debug!(%error, "a thread keeps its priority");
            }
            let outcome = runtime.block_on(work);
            // A name that is being resolved must not delay the end.
            runtime.shutdown_background();
            outcome
        })
    }

    /// Runs a task on this runtime that cannot be restarted.
    #[expect(clippy::disallowed_methods, reason = "the supervisor owns it")]
    pub(super) fn once<T: Send + 'static>(
        &self,
        task: Task,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let outcome = supervisor.run(task, work).await;
            supervisor.ended(task, &outcome);
            outcome.unwrap_or_else(|payload| resume_unwind(payload))
        })
    }

    /// Runs a task on this runtime, and restarts it when it ends: `work` makes it.
    #[expect(clippy::disallowed_methods, reason = "the supervisor owns it")]
    pub(super) fn restarted<W: Future<Output = ()> + Send + 'static>(
        &self,
        task: Task,
        mut work: impl FnMut() -> W + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
            loop {
                let began = Instant::now();
                let outcome = supervisor.run(task, async { work().await }).await;
                if supervisor.ended(task, &outcome) != Next::Restart {
                    return;
                }
                let pause = backoff.end(began.elapsed());
                let mut drain = supervisor.0.is_drained.subscribe();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = drain.wait_for(|&is_drained| is_drained) => return,
                }
                tracing::info!(task = task.label(), "a task is started again");
            }
        })
    }

    async fn run<T>(&self, task: Task, work: impl Future<Output = T>) -> thread::Result<T> {
        let work = async {
            tokio::select! {
                outcome = work => outcome,
                () = self.moment_to_end(task) => end_on_purpose(task),
            }
        };
        // Tasks share only atomics and locks that a panic does not poison for others.
        AssertUnwindSafe(work).catch_unwind().await
    }

    /// Logs and counts an unexpected end, and makes pixeld exit if it must.
    fn ended<T>(&self, task: Task, outcome: &thread::Result<T>) -> Next {
        let ending = outcome.as_ref().map_or_else(|payload| Ending::of_panic(&**payload), |_| Ending::Returned);
        let next = next(task, &ending, *self.0.is_drained.borrow());
        let name = task.label();
        let why = match &ending {
            Ending::Panicked(words) => format!("it panicked: {words}"),
            Ending::Returned if next == Next::Nothing => return next,
            Ending::Returned => "it returned".to_owned(),
        };
        self.0.metrics.tasks_ended[task as usize].one();
        match next {
            Next::Nothing => tracing::error!(task = name, why, "a task did not end as it should"),
            Next::Restart => tracing::error!(task = name, why, "a task ended that should not; it is started again"),
            Next::Exit => {
                tracing::error!(task = name, why, "a task ended that should not; pixeld drains and exits");
                self.0.lost.send_if_modified(|lost| {
                    let is_first = lost.is_none();
                    *lost = lost.or(Some(task));
                    is_first
                });
            }
        }
        next
    }

    /// Whether a test wants this task to panic. Only once: after its restart it goes on.
    fn is_to_end(&self, task: Task) -> bool {
        self.0.ends_on_purpose == Some(task) && !self.0.has_ended_on_purpose.swap(true, Ordering::Relaxed)
    }

    async fn moment_to_end(&self, task: Task) {
        if !self.is_to_end(task) {
            return std::future::pending().await;
        }
        if if_it_ends(task) == IfItEnds::RestartUnlessDone {
            // It may be done soon.
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(ON_PURPOSE_AFTER).await;
        }
    }
}

fn end_on_purpose(task: Task) -> ! {
    panic!("the {} is ended on purpose", task.label())
}

#[cfg(test)]
mod tests;
