//! The proxy's accounts for a server that is written in Rust: a tower layer instead of a second hop.
//!
//! [`CountLayer`] wraps an HTTP service. Each request is counted from the moment the service is called until the last byte
//! of its response was taken, and ends as it does in the proxy: completed, left by its client (whose connection drops the
//! response), or failed (the service or its body gave an error). A [`Sidecar`](crate::app::Sidecar) that is given the same
//! [`Accounts`] reports, elects and scales on them without a proxy; `examples/embedded_server.rs` is a whole one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::proxy::{Accounts, InFlight, Outcome, Promise, Uncounted};

/// Counts the requests of the service it is put around.
#[derive(Clone, Debug)]
pub struct CountLayer {
    accounts: Arc<Accounts>,
    uncounted: Arc<Uncounted>,
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Count<S> {
    inner: S,
    layer: CountLayer,
}

pin_project! {
    /// A response on its way. Dropping it is the client's leaving.
    #[derive(Debug)]
    pub struct CountedResponse<F> {
        #[pin]
        inner: F,
        of_head: bool,
        in_flight: Option<InFlight>,
    }
}

pin_project! {
    /// A response body whose end is the request's.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        promise: Promise,
        in_flight: Option<InFlight>,
    }
}

// === impl CountLayer ===

impl CountLayer {
    /// Counts in `accounts`, but for what is no load.
    pub fn new(accounts: Arc<Accounts>, uncounted: Uncounted) -> Self {
        Self {
            accounts,
            uncounted: Arc::new(uncounted),
        }
    }
}

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count {
            inner,
            layer: self.clone(),
        }
    }
}

// === impl Count ===

impl<S, A, B> Service<Request<A>> for Count<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let in_flight = if self.layer.uncounted.contains(request.uri().path()) {
            InFlight::uncounted()
        } else {
            self.layer.accounts.arrive()
        };
        CountedResponse {
            of_head: request.method() == Method::HEAD,
            inner: self.inner.call(request),
            in_flight: Some(in_flight),
        }
    }
}

// === impl CountedResponse ===

impl<F, B, E> Future for CountedResponse<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.inner.poll(cx));
        let mut in_flight = this.in_flight.take();
        match answered {
            Ok(response) => {
                if let Some(in_flight) = &mut in_flight {
                    in_flight.first_byte();
                    in_flight.answered(response.status());
                }
                let promise = Promise::of(*this.of_head, response.status(), response.headers());
                Poll::Ready(Ok(
                    response.map(|body| CountedBody::new(body, promise, in_flight))
                ))
            }
            Err(error) => {
                if let Some(in_flight) = &mut in_flight {
                    in_flight.will_end(Outcome::UpstreamFailed);
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

// === impl CountedBody ===

impl<B: Body> CountedBody<B> {
    fn new(inner: B, promise: Promise, mut in_flight: Option<InFlight>) -> Self {
        // Servers never poll a body that says it has ended, or that nobody is to get.
        if (promise.is_kept() || inner.is_end_stream())
            && let Some(in_flight) = &mut in_flight
        {
            in_flight.will_end(Outcome::Completed);
        }
        Self {
            inner,
            promise,
            in_flight,
        }
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(in_flight) = this.in_flight {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        in_flight.sent(data.remaining());
                    }
                    // Nobody need poll for the `None` after this.
                    if this.promise.hand_on(frame) || this.inner.is_end_stream() {
                        in_flight.will_end(Outcome::Completed);
                    }
                }
                Some(Err(_)) if this.promise.is_kept() => {}
                Some(Err(_)) => in_flight.will_end(Outcome::UpstreamFailed),
                None => in_flight.will_end(Outcome::Completed),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
