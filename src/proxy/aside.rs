//! What is waited for beside a connection, polled only when it has something to say.
//!
//! A `select!` polls all of its branches whenever its task runs, and a connection's task runs three times for a request. A
//! connection waits for a drain, for its patrol and for a shortage of memory, which come once in fifteen seconds or never:
//! to ask all of them each time is a thirtieth of what a request costs outside of the kernel.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

pin_project! {
    /// Polls `inner` when it was woken, and not whenever its task runs.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub(super) struct Aside<F> {
        #[pin]
        inner: F,
        // `None`: it was never polled.
        bell: Option<Arc<Bell>>,
    }
}

/// What `inner` wakes.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

// === impl Aside ===

impl<F> Aside<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner, bell: None }
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let bell = match this.bell {
            Some(bell) if bell.task.will_wake(cx.waker()) => {
                // A look first: this is what nearly every poll comes to, and a swap would cost it a locked bus.
                if !bell.rung.load(Ordering::Relaxed) || !bell.rung.swap(false, Ordering::Acquire) {
                    return Poll::Pending;
                }
                Arc::clone(bell)
            }
            // The first poll, or one by another task than the last: nobody would wake this one.
            bell => Arc::clone(bell.insert(Arc::new(Bell {
                rung: AtomicBool::new(false),
                task: cx.waker().clone(),
            }))),
        };
        // What rings from here on wakes the task once more.
        this.inner
            .poll(&mut Context::from_waker(&Waker::from(bell)))
    }
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;

    use futures_util::task::noop_waker;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_was_not_woken_is_not_polled_again() {
        let polls = AtomicU32::new(0);
        let mut aside = pin!(Aside::new(poll_fn(|_| {
            polls.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        })));
        let waker = noop_waker();
        for _ in 0..3 {
            assert!(
                aside
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_woken_wakes_its_task_and_is_heard() {
        let notify = Notify::new();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut aside = pin!(Aside::new(notify.notified()));
        assert!(aside.as_mut().poll(&mut cx).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        notify.notify_one();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(aside.poll(&mut cx).is_ready());
    }

    #[test]
    fn a_task_that_comes_later_is_woken_too() {
        let notify = Notify::new();
        let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
        let mut aside = pin!(Aside::new(notify.notified()));
        for wakes in [&first, &second] {
            let waker = Waker::from(Arc::clone(wakes));
            let mut cx = Context::from_waker(&waker);
            assert!(aside.as_mut().poll(&mut cx).is_pending());
        }
        notify.notify_one();
        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }
}
