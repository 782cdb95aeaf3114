//! One request and its response in a stream of HTTP/2 to the upstream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Response, request};
use http_body::Frame;

use super::Shared;
use super::broken::Broken;
use super::failed::Failed;
use super::multiplex::{Multiplex, SendError, Sent, Slot};
use super::pool::ConnectError;
use super::request::RequestBody;
use super::upload::{Rest, Upload};

/// How long a stream may stay open after the last byte of the length that its head has named. A frame takes as long as
/// the server's writer is busy with other streams.
const LAST_FRAME: Duration = Duration::from_secs(5);

/// A response's body, as it comes. Its drop before the end resets the stream, and so cancels the request.
#[derive(Debug)]
pub(super) struct Download {
    recv: RecvStream,
    /// All data is read, trailers may follow.
    data_read: bool,
    /// The rest of the request, where there is one.
    upload: Option<Rest>,
    /// `None` after the end.
    slot: Option<Arc<Slot>>,
    multiplex: Arc<Multiplex>,
}

// === impl Download ===

impl Download {
    pub(super) fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.data_read {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The client's connection has taken it: the server may send as much more.
                    let released = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(released.map(|()| Frame::data(data)).map_err(cut)));
                }
                Some(Err(error)) => return Poll::Ready(self.broken(error)),
                None => self.data_read = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(self.broken(error)),
        }
    }

    /// The response is whole. The rest of the request, if there is one, goes on.
    pub(super) fn complete(&mut self) {
        self.slot = None;
        if let Some(upload) = self.upload.take() {
            upload.detach();
        }
    }

    /// The client has all that it was promised, and asks for no more. A drop would reset the stream, which the server takes
    /// for a client that has left; its end is a frame away.
    pub(super) fn see_out(mut self) {
        if let Some(upload) = self.upload.take() {
            upload.detach();
        }
        let multiplex = Arc::clone(&self.multiplex);
        let tasks = multiplex.tasks().clone();
        tasks.spawn(async move {
            let end =
                async { while let Some(Ok(_frame)) = poll_fn(|cx| self.poll_frame(cx)).await {} };
            // A server that does not end its stream is told that nobody listens, by the drop.
            let _in_time = multiplex.clock().timeout(LAST_FRAME, end).await;
        });
    }

    /// A server that has answered in full may take no more of the request, and says so by a reset without an error
    /// (RFC 9113, 8.1), which overtakes the end. Nothing else is an end.
    fn broken(&self, error: h2::Error) -> Option<Result<Frame<Bytes>, Broken>> {
        let early = self.upload.as_ref().is_some_and(|rest| !rest.is_whole());
        if early && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
            None
        } else {
            Some(Err(cut(error)))
        }
    }
}

/// Sends a prepared request, a second time if the server says that it never took it.
pub(super) async fn exchange(
    shared: &Shared,
    head: &request::Parts,
    body: RequestBody,
) -> Result<Response<Download>, Failed> {
    let mut upload = Upload::new(body);
    let mut again = true;
    loop {
        let sent = shared.multiplex.send(head, upload.is_done()).await;
        let mut sent = match sent {
            Ok(sent) => sent,
            Err(SendError::Refused(refusal)) => return Err(Failed::Refused(refusal)),
            Err(SendError::Connect(
                source @ (ConnectError::Greeting(_) | ConnectError::Silent),
            )) if again => {
                let unsent = upload.into_body();
                return Err(Failed::Misheard { source, unsent });
            }
            Err(SendError::Connect(error)) => return Err(Failed::Connect(error)),
        };
        match answer(&mut sent, &mut upload).await {
            Ok(response) => return Ok(received(shared, response, sent, upload)),
            Err(Failed::Stream(error)) if again && was_never_taken(&error) && upload.rewind() => {
                tracing::debug!(%error, "a request that was not taken is sent again");
                again = false;
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// The response's head, while the request's body goes up.
async fn answer(sent: &mut Sent, upload: &mut Upload) -> Result<Response<RecvStream>, Failed> {
    let mut uploading = !upload.is_done();
    poll_fn(|cx| {
        if let Poll::Ready(answered) = Pin::new(&mut sent.response).poll(cx) {
            return Poll::Ready(answered.map_err(Failed::Stream));
        }
        if uploading
            && let Poll::Ready(uploaded) = upload.poll(&mut sent.stream, sent.slot.window(), cx)
        {
            uploading = false;
            if let Err(broken) = uploaded {
                sent.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Failed::Request(broken)));
            }
        }
        Poll::Pending
    })
    .await
}

fn received(
    shared: &Shared,
    response: Response<RecvStream>,
    sent: Sent,
    mut upload: Upload,
) -> Response<Download> {
    let Sent { stream, slot, .. } = sent;
    let rest = if upload.is_done() {
        None
    } else {
        upload.forget();
        // Not with the response's body: a client that sends first and reads later must not stop both.
        let (rest, task) = Rest::of(upload, stream, Arc::clone(&slot));
        shared.tasks.spawn(task);
        Some(rest)
    };
    response.map(|recv| Download {
        recv,
        data_read: false,
        upload: rest,
        slot: Some(slot),
        multiplex: Arc::clone(&shared.multiplex),
    })
}

/// Streams above the last one that a GOAWAY names fail with it, and a refused stream says so itself. Any other end may
/// have come after the request was acted on.
fn was_never_taken(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// The reason goes on to the client, but for the one that says that nothing is wrong.
fn cut(error: h2::Error) -> Broken {
    if error.reason() == Some(Reason::NO_ERROR) {
        Broken::Abandoned
    } else {
        Broken::Stream(error)
    }
}
