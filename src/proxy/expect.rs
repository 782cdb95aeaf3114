//! `Expect: 100-continue`: a client that has a large body asks first, and the server is asked.
//!
//! A server that needs no body to refuse a request (401, 413) then saves the upload. The body stays at the client until the
//! server says `100 Continue`; one that says nothing gets the body after [`PATIENCE`], as clients do it themselves, since a
//! server may not know the word. Over HTTP/2 to the server the body is asked for at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::StatusCode;

use crate::clock::Clock;

/// How long a server has for its word: curl waits as long. Half of it sends bodies to servers that were about to refuse
/// them; twice of it is added to each large request to a server that knows no `Expect`.
const PATIENCE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const WANTED: u8 = 1;
const REFUSED: u8 = 2;

/// What the server has said of a body.
#[derive(Debug, Default)]
pub(super) struct Word {
    said: AtomicU8,
    waker: AtomicWaker,
}

/// A body that waits for the word.
pub(super) struct Waiting {
    word: Arc<Word>,
    patience: Pin<Box<dyn Future<Output = ()> + Send>>,
}

// === impl Word ===

impl Word {
    /// An interim response came.
    pub(super) fn hear(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.say(WANTED);
        }
    }

    /// The response itself came, with this status. Says whether the body is no longer wanted. A server may answer well
    /// before it reads, as an echo does; one that refuses has no use for what it has not asked for.
    pub(super) fn answered(&self, status: StatusCode) -> bool {
        let refused = !status.is_success();
        self.say(if refused { REFUSED } else { WANTED }) && refused
    }

    fn say(&self, word: u8) -> bool {
        let said = self.said.compare_exchange(WAITING, word, AcqRel, Acquire);
        self.waker.wake();
        said.is_ok()
    }
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn new(clock: &Clock) -> Self {
        let clock = clock.clone();
        Self {
            word: Arc::default(),
            patience: Box::pin(async move { clock.sleep(PATIENCE).await }),
        }
    }

    pub(super) fn word(&self) -> &Arc<Word> {
        &self.word
    }

    /// Waits until the body should be read. A refused one waits for ever: an error would break the response off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.word.waker.register(cx.waker());
        if self.word.said.load(Acquire) == WAITING && self.patience.as_mut().poll(cx).is_ready() {
            self.word.say(WANTED);
        }
        match self.word.said.load(Acquire) {
            WANTED => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}
