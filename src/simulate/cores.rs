//! Pieces of work that need nothing of each other, on as many threads as there are cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How often somebody who waits hears how far it is.
const SPOKEN: Duration = Duration::from_millis(200);

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Traces that are done.
    pub done: usize,
    /// Of so many.
    pub traces: usize,
    /// The share of all work that was done, 0 to 1.
    pub share: f64,
}

/// What `work` makes of each number below `count`, in their order. Each adds what it has done to the counter that it is
/// given; all together come to `total`. `speak` is told how far it is, on the caller's thread.
pub fn on_all_cores<T: Send>(
    count: usize,
    total: u64,
    work: impl Fn(usize, &AtomicU64) -> T + Sync,
    mut speak: impl FnMut(Progress),
) -> Vec<T> {
    let progress = AtomicU64::new(0);
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        for _thread in 0..threads.min(count) {
            let ended = ended.clone();
            let (next, made, progress, work) = (&next, &made, &progress, &work);
            scope.spawn(move || {
                // Held until the thread ends, however it ends.
                let _ended = ended;
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let one = work(index, progress);
                    if let Ok(mut made) = made.lock() {
                        made.push((index, one));
                    }
                }
            });
        }
        drop(ended);
        while end.recv_timeout(SPOKEN) == Err(mpsc::RecvTimeoutError::Timeout) {
            speak(Progress {
                done: made.lock().map_or(0, |made| made.len()),
                traces: count,
                share: progress.load(Ordering::Relaxed) as f64 / total.max(1) as f64,
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_default();
    made.sort_by_key(|(index, _one)| *index);
    made.into_iter().map(|(_index, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_made_once_and_given_back_in_its_place() {
        let work = |index: usize, progress: &AtomicU64| {
            progress.fetch_add(1, Ordering::Relaxed);
            10 * index
        };
        let made = on_all_cores(100, 100, work, |_progress| {});
        assert!(made.into_iter().eq((0..100).map(|index| 10 * index)));
        assert!(on_all_cores(0, 0, work, |_progress| {}).is_empty());
    }
}
