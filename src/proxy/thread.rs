//! A thread for requests alone.
//!
//! Nothing of the control half runs here, so nothing of it can hold a request up. One thread with a runtime of its own
//! also costs a tenth less CPU per request than a pool of threads, and one core carries more requests than a pod's GPU
//! answers.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::oneshot;

use crate::lifecycle::Tasks;

/// A running thread. Its drop ends the tasks and the thread.
#[derive(Debug)]
pub struct TrafficThread {
    tasks: Tasks,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

// === impl TrafficThread ===

impl TrafficThread {
    /// Starts the thread, with nothing to do yet.
    pub fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = Tasks::on(runtime.handle().clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("sidescale-traffic".to_owned())
            .spawn(move || {
                // An error would say that the sender is gone, which means stop as well.
                runtime.block_on(async { stopped.await.unwrap_or_default() });
            })?;
        Ok(Self {
            tasks,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The tasks of this thread: give them to [`serve`](super::serve).
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl Drop for TrafficThread {
    fn drop(&mut self) {
        self.tasks.abort();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the traffic thread panicked");
        }
    }
}
