//! One client's connection, and one request on it.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{StatusCode, Version};
use tokio::sync::Notify;

use super::Shared;
use super::accounts::{InFlight, Outcome};
use super::admission::Permit;
use super::headers::Peer;
use super::promise::Promise;
use super::retirement::Connection;
use super::wire::{Carrier, WireState};

/// One client's connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    pub(super) carrier: Carrier,
    wire: Arc<WireState>,
    connection: Connection,
    /// It is one of HTTP/2, and retired.
    leave: Notify,
}

/// One request and its response. Its drop is their end.
#[derive(Debug)]
#[must_use = "dropping it is the end of the request"]
pub(super) struct Exchange {
    pub(super) in_flight: InFlight,
    /// A place at the server, once it has one.
    pub(super) permit: Option<Permit>,
    /// It is one of HTTP/1.0.
    is_old: bool,
    client: Arc<Client>,
}

// === impl Client ===

impl Client {
    pub(super) fn new(
        shared: &Arc<Shared>,
        peer: Peer,
        carrier: Carrier,
        wire: &Arc<WireState>,
    ) -> Self {
        Self {
            peer,
            carrier,
            wire: Arc::clone(wire),
            connection: Connection::open(&shared.settings.connections),
            leave: Notify::new(),
            shared: Arc::clone(shared),
        }
    }

    /// A request's head is read, in this version of HTTP.
    pub(super) fn begin(self: &Arc<Self>, in_flight: InFlight, version: Version) -> Exchange {
        self.wire.begin();
        Exchange {
            in_flight,
            permit: None,
            is_old: version == Version::HTTP_10,
            client: Arc::clone(self),
        }
    }

    /// What is known of its socket.
    pub(super) fn wire(&self) -> &Arc<WireState> {
        &self.wire
    }

    /// Tells the log what happened to one of its requests.
    pub(super) fn notice(&self, what: &str) {
        let shared = &self.shared;
        shared.notices.say(&shared.clock, &self.peer, what);
    }

    /// Waits until this connection of HTTP/2 should end.
    pub(super) async fn retired(&self) {
        self.leave.notified().await;
    }
}

// === impl Exchange ===

impl Exchange {
    /// The upstream's response head is here.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.in_flight.first_byte();
        self.in_flight.answered(status);
    }

    /// By which HTTP it came.
    pub(super) fn carrier(&self) -> Carrier {
        self.client.carrier
    }

    /// Whether it is one of HTTP/1.0, which has no chunks.
    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }

    /// Tells the log what happened to it.
    pub(super) fn notice(&self, what: &str) {
        self.client.notice(what);
    }

    /// Whether the response that begins now must say that it is its connection's last. A connection of HTTP/2 has its own
    /// word for that, which is said for it; in HTTP/1.0 a body of no known length ends with the connection.
    pub(super) fn is_last(&self, promise: Promise) -> bool {
        let client = &self.client;
        match client.carrier {
            Carrier::Http1 => {
                client.shared.is_draining()
                    || client.connection.is_called()
                    || self.is_old && promise == Promise::ToTheEnd
            }
            Carrier::Http2 => {
                if client.connection.is_called() {
                    client.leave.notify_one();
                }
                false
            }
        }
    }

    /// How often all that was written for this client had gone to its socket.
    pub(super) fn flushes(&self) -> usize {
        self.client.wire.flushes()
    }

    /// Waits until that has happened once more than `before`.
    pub(super) fn poll_flushed(&self, before: usize, cx: &Context<'_>) -> Poll<()> {
        self.client.wire.poll_flushed(before, cx)
    }

    /// The connection becomes a tunnel, one half of which may end before the other.
    pub(super) fn leaves_http(&self) {
        self.client.wire.leave_http();
    }

    /// The upstream broke off in the middle.
    pub(super) fn upstream_failed(&mut self) {
        self.in_flight.will_end(Outcome::UpstreamFailed);
        self.notice("the upstream broke its response off");
        self.client.shared.watchman.suspect();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.in_flight.outcome() == Outcome::ClientGone {
            self.notice("the client left before its response was whole");
        }
        self.client.wire.end();
    }
}
