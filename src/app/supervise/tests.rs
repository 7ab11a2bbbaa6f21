use std::sync::atomic::AtomicUsize;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn supervisor() -> (Arc<Metrics>, Supervisor) {
    let metrics = Metrics::new(1);
    (Arc::clone(&metrics), Supervisor::new(metrics, None))
}

fn ended(metrics: &Metrics) -> Vec<(Task, u64)> {
    let counted = Task::ALL.iter().map(|&task| (task, metrics.tasks_ended[task as usize].get()));
    counted.filter(|&(_, count)| count > 0).collect()
}

#[test]
fn the_response_to_an_ended_task_is_the_tables() {
    let panicked = Ending::Panicked("x".to_owned());
    for &task in Task::ALL {
        let [returns, panics] = match if_it_ends(task) {
            IfItEnds::Exit => [Next::Exit; 2],
            IfItEnds::Restart => [Next::Restart; 2],
            IfItEnds::RestartUnlessDone => [Next::Nothing, Next::Restart],
        };
        assert_eq!(next(task, &Ending::Returned, false), returns, "{task:?}");
        assert_eq!(next(task, &panicked, false), panics, "{task:?}");
        assert_eq!(next(task, &Ending::Returned, true), Next::Nothing, "{task:?}");
        assert_eq!(next(task, &panicked, true), Next::Nothing, "{task:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_or_returns_is_counted_and_runs_again_until_the_drain() {
    let (metrics, supervisor) = supervisor();
    let (runs, reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let work = {
        let (runs, reached) = (Arc::clone(&runs), Arc::clone(&reached));
        move || {
            let (run, reached) = (runs.fetch_add(1, Ordering::Relaxed), Arc::clone(&reached));
            async move {
                match run {
                    0 => panic!("the first"),
                    1 => {}
                    _ => {
                        reached.notify_one();
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    };
    let running = supervisor.restarted(Task::Rollup, work);
    timeout(PATIENCE, reached.notified()).await.unwrap();
    assert_eq!(ended(&metrics), [(Task::Rollup, 2)]);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // One that waits for its restart ends with the drain.
    let waiting = supervisor.restarted(Task::Images, || async { panic!("always") });
    tokio::task::yield_now().await;
    supervisor.begin_drain();
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(ended(&metrics), [(Task::Images, 1), (Task::Rollup, 2)]);
}

#[tokio::test]
async fn one_that_is_done_is_not_counted() {
    let (metrics, supervisor) = supervisor();
    let done = supervisor.restarted(Task::Namespace, || async {});
    timeout(PATIENCE, done).await.unwrap().unwrap();
    supervisor.begin_drain();
    timeout(PATIENCE, supervisor.restarted(Task::Rollup, || async {})).await.unwrap().unwrap();
    supervisor.thread(Task::Writer, "writer", || {}).unwrap().join().unwrap();
    assert_eq!(ended(&metrics), []);
}

#[tokio::test]
async fn threads_and_tasks_that_cannot_be_restarted_make_it_exit_whether_they_panic_or_return() {
    let (metrics, first) = supervisor();
    let written = first.thread(Task::Writer, "writer", || panic!("no disk")).unwrap();
    assert_eq!(timeout(PATIENCE, first.lost()).await.unwrap(), Task::Writer);
    let joined: std::thread::Result<()> = written.join();
    assert_eq!(Ending::of_panic(&*joined.unwrap_err()), Ending::Panicked("no disk".to_owned()));
    let loaded = first.background_thread(Task::Loader, async { 7 }).unwrap();
    assert_eq!(loaded.join().unwrap(), 7);
    // The first is the reason.
    assert_eq!(timeout(PATIENCE, first.lost()).await.unwrap(), Task::Writer);
    assert_eq!(ended(&metrics), [(Task::Writer, 1), (Task::Loader, 1)]);
    let (metrics, second) = supervisor();
    let kept = second.once(Task::Database, async { panic!("{} words", "formatted") });
    assert_eq!(timeout(PATIENCE, second.lost()).await.unwrap(), Task::Database);
    let kept: Result<(), _> = kept.await;
    let payload = kept.unwrap_err().into_panic();
    assert_eq!(Ending::of_panic(&*payload), Ending::Panicked("formatted words".to_owned()));
    assert_eq!(ended(&metrics), [(Task::Database, 1)]);
}
