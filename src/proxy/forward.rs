//! One request: to the upstream, and its response back.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::accounts::{InFlight, Outcome};
use super::body::Body;
use super::exchange::{Client, Exchange};
use super::failed::Failed;
use super::headers::{
    Upgrading, closes, expects_continue, has_one_length, is_grpc, prepare_request,
};
use super::lease::Lease;
use super::refused::Reason;
use super::reply::{Head, Reply};
use super::request::RequestBody;
use super::stream::{self, Download};
use super::wire::Carrier;
use super::{Shared, limits, tunnel};

/// The upstream's response, by what it came.
enum Answered {
    Http1(Response<Incoming>, Lease),
    Http2(Response<Download>),
}

// === impl Answered ===

impl Answered {
    fn within_limits(self) -> Result<Self, Failed> {
        let excess = match &self {
            Self::Http1(response, _) => limits::of_response(response),
            Self::Http2(response) => limits::of_response(response),
        };
        excess.map_or(Ok(self), |excess| Err(Failed::Excess(excess)))
    }
}

/// Answers one request of `client`. Dropping this future cancels the upstream's part of it.
pub(super) async fn forward(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let shared = &client.shared;
    // Of HTTP/1, hyper has refused it.
    if client.carrier == Carrier::Http2
        && let Some(excess) = limits::of_request(&request)
    {
        return Ok(refuse(&client, request, excess.into()));
    }
    let is_load = !shared.settings.uncounted.contains(request.uri().path());
    let in_flight = if is_load {
        shared.accounts.arrive()
    } else {
        InFlight::uncounted()
    };
    let mut exchange = client.begin(in_flight, request.version());
    let (mut parts, body) = request.into_parts();
    let grpc = is_grpc(&parts);
    let of_head = parts.method == Method::HEAD;
    let mut body = RequestBody::of(&client, body, exchange.in_flight.accounts());
    let bodiless = body.is_end_stream();
    if !bodiless && expects_continue(&parts) {
        body.wait_for_word(&shared.clock);
    }
    let upgrading = match prepare_request(&mut parts, bodiless, &client.peer, &shared.host) {
        Ok(upgrading) => upgrading,
        Err(refusal) => {
            shared.accounts.refuse_head(refusal.into());
            return Ok(Reply::refusal(refusal).into_response(exchange, grpc));
        }
    };
    if is_load {
        // A health check that waited behind the load would call a busy server dead.
        match shared.settings.admission.admit(&shared.clock).await {
            Ok(permit) => exchange.permit = permit,
            Err(away) => return Ok(Reply::turned_away(away).into_response(exchange, grpc)),
        }
    }
    let from_client = parts
        .extensions
        .remove::<OnUpgrade>()
        .filter(|_ours| upgrading == Upgrading::Asked);
    let answered = answer(shared, client.carrier, parts, body).await;
    match answered.and_then(Answered::within_limits) {
        Ok(Answered::Http2(response)) => {
            let (head, download) = response.into_parts();
            let head = Head::of(head, of_head, &mut exchange);
            let body = Body::stream(download, head.promise, exchange);
            Ok(head.with(body))
        }
        Ok(Answered::Http1(response, lease))
            if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
        {
            Ok(switch(shared, response, lease, from_client, exchange))
        }
        Ok(Answered::Http1(mut response, lease)) => {
            if !has_one_length(response.headers_mut()) {
                let text = "the upstream's response has two lengths".to_owned();
                let reply = Reply::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed);
                return Ok(reply.into_response(exchange, grpc));
            }
            let spent = lease.is_spent(|| closes(response.headers()));
            let (head, incoming) = response.into_parts();
            let mut head = Head::of(head, of_head, &mut exchange);
            head.last |= spent;
            let body = Body::upstream(incoming, head.promise, exchange, lease);
            Ok(head.with(body))
        }
        Err(failed) => Ok(Reply::of(shared, &failed).into_response(exchange, grpc)),
    }
}

/// Answers a head that is none to pass on, and no load.
fn refuse(client: &Arc<Client>, request: Request<Incoming>, reason: Reason) -> Response<Body> {
    client.shared.accounts.refuse_head(reason);
    let exchange = client.begin(InFlight::uncounted(), request.version());
    let grpc = is_grpc(&request.into_parts().0);
    Reply::refused(reason).into_response(exchange, grpc)
}

/// Sends a prepared request of a `client` by what the server speaks.
async fn answer(
    shared: &Shared,
    client: Carrier,
    head: request::Parts,
    body: RequestBody,
) -> Result<Answered, Failed> {
    let carrier = match client {
        // Nothing of the many is held up for the few: until the server is known, it is one of HTTP/1.
        Carrier::Http1 => shared.watchman.carrier(client),
        Carrier::Http2 => shared.watchman.carrier_asked(client, &shared.clock).await,
    };
    let body = match carrier {
        Carrier::Http1 => body,
        Carrier::Http2 => match Box::pin(stream::exchange(shared, &head, body.at_once())).await {
            Ok(response) => return Ok(Answered::Http2(response)),
            Err(Failed::Misheard { source, unsent }) => {
                shared.watchman.misheard();
                let asked = shared.watchman.carrier_asked(client, &shared.clock);
                if asked.await == Carrier::Http2 {
                    return Err(Failed::Connect(source));
                }
                unsent
            }
            Err(failed) => return Err(failed),
        },
    };
    let (response, lease) = send(shared, body.into_request(head)).await?;
    Ok(Answered::Http1(response, lease))
}

/// Sends `request`, a second time if the first connection turns out never to have taken it.
async fn send(
    shared: &Shared,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let mut lease = shared.pool.check_out().await.map_err(Failed::Connect)?;
    let mut error = match lease.send(request).await {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    match error.take_message() {
        // hyper hands a request back only if not a byte of it was written: the upstream had closed the idle
        // connection. Anything else may have been acted on there, and is not ours to repeat.
        Some(request) if lease.reused => {
            shared.pool.clear();
            Box::pin(send_anew(shared, request)).await
        }
        Some(_) | None => Err(Failed::awaiting(lease, error.into_error())),
    }
}

async fn send_anew(
    shared: &Shared,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let mut lease = shared.pool.open().await.map_err(Failed::Connect)?;
    match lease.send(request).await {
        Ok(response) => Ok((response, lease)),
        Err(error) => Err(Failed::awaiting(lease, error.into_error())),
    }
}

/// Joins client and upstream, which has left HTTP.
fn switch(
    shared: &Shared,
    response: Response<Incoming>,
    lease: Lease,
    from_client: Option<OnUpgrade>,
    mut exchange: Exchange,
) -> Response<Body> {
    let (Some(from_client), Some(upstream)) = (from_client, lease.into_parts()) else {
        let text = "the upstream switched protocols unasked".to_owned();
        let reply = Reply::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed);
        return reply.into_response(exchange, false);
    };
    let (head, _body) = response.into_parts();
    let head = Head::of_switch(head, &mut exchange);
    exchange.leaves_http();
    tunnel::start(shared, from_client, upstream, exchange);
    head.with(Body::Empty)
}
