//! One conversation with one member: dial, hello, beacons down, reports up, until either side ends it.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::channel::{Channel as ChannelBody, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::clock::{Clock, Elapsed};
use crate::fleet::channel::{BEAT, MemberLine, Said};
use crate::fleet::lines::{LONGEST_LINE, LONGEST_PAST, LineError, Lines, line};
use crate::lifecycle::Tasks;
use crate::report::{Beacon, Down, Hello, Report, Up, WIRE_VERSION};

/// How long dialling and the member's first answer may take. In one cluster both take milliseconds; doubled, a pod whose
/// address is gone holds its dial (and nothing else) twice as long.
const DIAL_WITHIN: Duration = Duration::from_secs(3);

/// Without a line for this long a stream counts as broken, whatever TCP believes: a node that lost its network resets
/// nothing. Longer than a member's check of the term, which it makes before it speaks.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// What all conversations share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) clock: Clock,
    pub(super) port: u16,
    pub(super) hello: Hello,
}

/// The member at the other end, and what leads to and from it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pod: String,
    pub(super) ip: String,
    pub(super) link: Arc<Link>,
    pub(super) beacon: watch::Receiver<Beacon>,
    pub(super) orders: mpsc::Receiver<Down>,
    pub(super) lines: mpsc::Sender<MemberLine>,
    pub(super) is_open: Arc<AtomicBool>,
    /// Asked for until it has come, then never again: the history would count it twice.
    pub(super) past_since_millis: Option<i64>,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By us: the leadership is over.
    LeaderGoes,
    /// By the member, the network or a line that made no sense.
    Broken {
        /// Whether the member has said anything.
        was_heard: bool,
    },
}

/// Why a conversation did not go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("pod address `{0}` is no IP address")]
    Address(String),
    #[error("dialling took too long")]
    Slow(#[source] Elapsed),
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the member does not speak HTTP/2")]
    Http(#[source] hyper::Error),
    #[error("the member answered {0}")]
    Refused(StatusCode),
    #[error("the member fell silent")]
    Silent(#[source] Elapsed),
    #[error("cannot read on")]
    Line(#[source] LineError),
    #[error("the address belongs to pod `{0}` now")]
    Misdirected(String),
}

/// The part of a line that every version has.
#[derive(Deserialize)]
struct AnyVersion {
    #[serde(alias = "overrun")]
    report: Version,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The listening half of a conversation.
struct Ear<'a> {
    pod: &'a str,
    clock: &'a Clock,
    lines: &'a mpsc::Sender<MemberLine>,
    past_since_millis: &'a mut Option<i64>,
    was_heard: bool,
}

// === impl Peer ===

impl Peer {
    /// Dials and talks until one side ends it.
    pub(super) async fn converse(&mut self) -> End {
        // The connection's own tasks end with the conversation.
        let tasks = Tasks::here();
        let dialled = match self
            .link
            .clock
            .timeout(DIAL_WITHIN, self.dial(&tasks))
            .await
        {
            Ok(dialled) => dialled,
            Err(elapsed) => Err(Trouble::Slow(elapsed)),
        };
        let (sender, body) = match dialled {
            Ok(opened) => opened,
            Err(trouble) => {
                note(&self.pod, &trouble);
                return End::Broken { was_heard: false };
            }
        };
        // What was meant for an earlier stream is out of date.
        while self.orders.try_recv().is_ok() {}
        self.is_open.store(true, Ordering::Release);
        let end = self.talk(sender, body).await;
        self.is_open.store(false, Ordering::Release);
        let ended = MemberLine {
            pod: self.pod.clone(),
            said: Said::Ended,
        };
        // Nobody left to tell is no trouble: then the leadership is over.
        self.lines.send(ended).await.ok();
        end
    }

    async fn dial(&self, tasks: &Tasks) -> Result<(Sender<Bytes>, Incoming), Trouble> {
        let ip: IpAddr = self
            .ip
            .parse()
            .map_err(|_not_an_ip| Trouble::Address(self.ip.clone()))?;
        let address = SocketAddr::new(ip, self.link.port);
        let tcp = TcpStream::connect(address)
            .await
            .map_err(Trouble::Connect)?;
        // A beacon is a hundred bytes: waiting for more to send with it would only delay it.
        tcp.set_nodelay(true).map_err(Trouble::Connect)?;
        let (mut requests, connection) = http2::Builder::new(tasks.handle())
            .initial_stream_window_size(u32::try_from(LONGEST_LINE).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(tcp))
            .await
            .map_err(Trouble::Http)?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "member channel's connection ended");
            }
        });
        // Two lines of room: what does not fit waits for the member to read.
        let (mut sender, body) = ChannelBody::new(2);
        let hello = Down::Hello(Hello {
            v: WIRE_VERSION,
            past_since_millis: self.past_since_millis,
            ..self.link.hello.clone()
        });
        sender
            .send_data(line(&hello))
            .await
            .expect("the body that would take it is held right here");
        let request = Request::builder()
            .method(Method::POST)
            .uri(report_uri(address))
            .header(http::header::CONTENT_TYPE, "application/x-ndjson")
            .body(body)
            .expect("a constant path behind a socket address is a valid URI");
        let response = requests
            .send_request(request)
            .await
            .map_err(Trouble::Http)?;
        if response.status() == StatusCode::OK {
            Ok((sender, response.into_body()))
        } else {
            Err(Trouble::Refused(response.status()))
        }
    }

    async fn talk(&mut self, sender: Sender<Bytes>, body: Incoming) -> End {
        let Self {
            pod,
            ip: _,
            link,
            beacon,
            orders,
            lines,
            is_open: _,
            past_since_millis,
        } = self;
        let ear = Ear {
            pod,
            clock: &link.clock,
            lines,
            past_since_millis,
            was_heard: false,
        };
        let mut listening = std::pin::pin!(ear.listen(Lines::new(body)));
        tokio::select! {
            (was_heard, ended) = &mut listening => {
                if let Err(trouble) = ended {
                    note(pod, &trouble);
                }
                return End::Broken { was_heard };
            }
            () = speak(&link.clock, sender, beacon, orders) => {}
        }
        // The request's body has ended, behind the goodbye if there was one. The member ends its own when it has read
        // that, and only then may the connection go.
        let (_was_heard, _ended) = listening.await;
        End::LeaderGoes
    }
}

// === impl Ear ===

impl Ear<'_> {
    /// Hands lines on until the stream ends. Says whether there was any.
    async fn listen(mut self, mut lines: Lines<Incoming>) -> (bool, Result<(), Trouble>) {
        let ended = self.hear(&mut lines).await;
        (self.was_heard, ended)
    }

    async fn hear(&mut self, lines: &mut Lines<Incoming>) -> Result<(), Trouble> {
        loop {
            let longest = if self.past_since_millis.is_some() {
                LONGEST_PAST
            } else {
                LONGEST_LINE
            };
            let next = self.clock.timeout(HEARD_WITHIN, lines.next(longest)).await;
            let Some(text) = next.map_err(Trouble::Silent)?.map_err(Trouble::Line)? else {
                return Ok(());
            };
            self.was_heard = true;
            let Some(said) = self.understand(&text)? else {
                continue;
            };
            let line = MemberLine {
                pod: self.pod.to_owned(),
                said,
            };
            if self.lines.send(line).await.is_err() {
                return Ok(());
            }
        }
    }

    fn understand(&mut self, text: &[u8]) -> Result<Option<Said>, Trouble> {
        // The version first: a report of another major version need not look like ours at all.
        if let Ok(AnyVersion {
            report: Version { v },
        }) = serde_json::from_slice(text)
            && v != WIRE_VERSION
        {
            return Ok(Some(Said::Foreign { v }));
        }
        let up = match serde_json::from_slice(text) {
            Ok(up) => up,
            Err(error) => {
                // A newer member may have more to say than this leader knows.
                tracing::debug!(pod = self.pod, %error, "a line of a member was not understood");
                return Ok(None);
            }
        };
        match up {
            Up::Report(report) => self.own(&report).map(|()| Some(Said::Report(report))),
            Up::Overrun(report) => self.own(&report).map(|()| Some(Said::Overrun(report))),
            // Nobody asked: counted, it would stand in the history twice.
            Up::Past(_) if self.past_since_millis.is_none() => Ok(None),
            Up::Past(past) => {
                *self.past_since_millis = None;
                Ok(Some(Said::Past(past)))
            }
        }
    }

    /// An address is given to the next pod as soon as its owner has gone. A sidecar that was not told its pod's name
    /// cannot be checked.
    fn own(&self, report: &Report) -> Result<(), Trouble> {
        if report.pod.is_empty() || report.pod == self.pod {
            Ok(())
        } else {
            Err(Trouble::Misdirected(report.pod.clone()))
        }
    }
}

/// Sends beacons and orders until the leadership is over. A stream that takes nothing any more is left to the listening
/// side, which knows whether it is over.
async fn speak(
    clock: &Clock,
    mut sender: Sender<Bytes>,
    beacon: &mut watch::Receiver<Beacon>,
    orders: &mut mpsc::Receiver<Down>,
) {
    loop {
        let text = line(&Down::Beacon(beacon.borrow_and_update().clone()));
        if sender.send_data(text).await.is_err() {
            return std::future::pending().await;
        }
        let next_beat = clock.instant() + BEAT;
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => return,
                Some(order) => {
                    let is_last = matches!(order, Down::Goodbye { .. });
                    let is_taken = sender.send_data(line(&order)).await.is_ok();
                    if is_last && is_taken {
                        return;
                    }
                }
            },
            news = beacon.changed() => {
                if news.is_err() {
                    return;
                }
            }
            () = clock.sleep_until(next_beat) => {}
        }
    }
}

fn note(pod: &str, trouble: &Trouble) {
    let error: &(dyn Error + 'static) = trouble;
    match trouble {
        // Not what a pod of ours does: somebody should look.
        Trouble::Line(LineError::TooLong { .. }) | Trouble::Misdirected(_) => {
            tracing::warn!(pod, error, "member channel closed");
        }
        // A starting pod refuses connections for minutes; that is no news.
        Trouble::Address(_)
        | Trouble::Slow(_)
        | Trouble::Connect(_)
        | Trouble::Http(_)
        | Trouble::Refused(_)
        | Trouble::Silent(_)
        | Trouble::Line(LineError::Broken(_)) => {
            tracing::debug!(pod, error, "no member channel");
        }
    }
}

fn report_uri(address: SocketAddr) -> Uri {
    Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/v1/report")
        .build()
        .expect("a socket address is an authority")
}
