//! Whether learning holds requests up where a CPU limit makes them share: fifty streams of tokens through a sidecar that
//! may use a fifth of a core, while it learns nothing, while it learns the past anew all the time at its pace, and while
//! it does so at a stretch.
//!
//! `cargo bench --bench quota`, as root on Linux: it makes a control group of its own and removes it. Server and clients
//! are outside of it. Compare the rows of one run.

#![expect(
    clippy::print_stdout,
    reason = "its output is the figures, and its child's address"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{park, scope, spawn};
use std::time::Duration;

use sidescale::app::pace_under;
use sidescale::clock::{Clock, Instant, Now, Timestamp};
use sidescale::forecast::Forecaster;
use sidescale::history::History;
use sidescale::lifecycle::Lifecycle;
use sidescale::pace::Pace;
use sidescale::proxy::{Accounts, Settings, TrafficThread, Upstream, serve};
use sidescale::report::{Load, Past};

const CORES: f64 = 0.2;
const STREAMS: usize = 50;
/// Of one stream: twenty-five tokens a second.
const BETWEEN_TOKENS: Duration = Duration::from_millis(40);
const TOKENS: usize = 250;
const ROUNDS: usize = 3;
const MODES: [&str; 3] = ["nothing", "at its pace", "at a stretch"];
/// A token is the time at which it was sent, in nanoseconds of the parent.
const TOKEN: usize = 16;
const DAY: u64 = 86_400;

const BEGIN: Instant = Instant::from_offset(Duration::ZERO);

/// A control group that goes with this value.
struct Group(PathBuf);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--inside") {
        let upstream = arguments[at + 2].parse().expect("an address");
        return inside(&arguments[at + 1], upstream);
    }
    let clock = Clock::real();
    let upstream = tokens(&clock);
    let group = Group::new();
    let mut delays = MODES.map(|_| Vec::new());
    for _round in 0..ROUNDS {
        for (mode, delays) in MODES.iter().zip(&mut delays) {
            delays.append(&mut measure(mode, upstream, &group, &clock));
        }
    }
    println!("delay of a token, ms; {STREAMS} streams, {CORES} cores, {ROUNDS} rounds");
    println!(
        "{:>14} {:>8} {:>8} {:>8} {:>8}",
        "learning", "p50", "p99", "p99.9", "most"
    );
    for (mode, delays) in MODES.iter().zip(&mut delays) {
        delays.sort_unstable();
        let at = |per_mille: usize| {
            let index = per_mille * (delays.len() - 1) / 1_000;
            delays[index].as_secs_f64() * 1e3
        };
        let (p50, p99, p999, most) = (at(500), at(990), at(999), at(1_000));
        println!("{mode:>14} {p50:>8.3} {p99:>8.3} {p999:>8.3} {most:>8.3}");
    }
}

/// One sidecar in the group, and all delays of its tokens.
fn measure(mode: &str, upstream: SocketAddr, group: &Group, clock: &Clock) -> Vec<Duration> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--inside", mode, &upstream.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    group.take(&child);
    writeln!(child.stdin.as_mut().expect("a pipe")).expect("it waits");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    out.read_line(&mut line).expect("its address");
    let address: SocketAddr = line.trim().parse().expect("an address");
    let delays = scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_stream| scope.spawn(move || listen(address, clock)))
            .collect();
        let delays = streams
            .into_iter()
            .map(|stream| stream.join().expect("read"));
        delays.flatten().collect()
    });
    child.kill().expect("it ran");
    child.wait().expect("it ran");
    delays
}

fn listen(address: SocketAddr, clock: &Clock) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    let request = b"GET / HTTP/1.1\r\nhost: model\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("written");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a head");
    }
    let mut delays = Vec::with_capacity(TOKENS);
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a chunk's length");
        if line == "0\r\n" || line.is_empty() {
            return delays;
        }
        let mut token = [0; TOKEN + 2];
        stream.read_exact(&mut token).expect("a chunk");
        let sent = std::str::from_utf8(&token[..TOKEN]).expect("digits");
        let sent = Duration::from_nanos(sent.parse().expect("a number"));
        delays.push(passed(clock).saturating_sub(sent));
    }
}

fn passed(clock: &Clock) -> Duration {
    clock.instant().since(BEGIN)
}

/// A server that says what time it is.
fn tokens(clock: &Clock) -> SocketAddr {
    let clock = clock.clone();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    spawn(move || {
        for stream in listener.incoming() {
            let clock = clock.clone();
            spawn(move || speak(stream.expect("accepted"), &clock));
        }
    });
    address
}

fn speak(mut stream: TcpStream, clock: &Clock) {
    stream.set_nodelay(true).expect("set");
    let mut request = [0; 1_024];
    // The probe of readiness connects and says nothing.
    if stream.read(&mut request).is_ok_and(|bytes| bytes == 0) {
        return;
    }
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    if stream.write_all(head).is_err() {
        return;
    }
    for _token in 0..TOKENS {
        clock.block(BETWEEN_TOKENS);
        let now = passed(clock).as_nanos();
        let chunk = format!("{TOKEN:x}\r\n{now:0TOKEN$}\r\n");
        if stream.write_all(chunk.as_bytes()).is_err() {
            return;
        }
    }
    drop(stream.write_all(b"0\r\n\r\n"));
}

/// The sidecar's process: its traffic thread, and one that learns.
fn inside(mode: &str, upstream: SocketAddr) {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).expect("the word to go");
    let history = history();
    let traffic = TrafficThread::start().expect("a thread");
    let clock = Clock::real();
    let proxy = serve(
        Settings::new(Upstream::new(upstream)),
        TcpListener::bind("127.0.0.1:0").expect("a free port"),
        Arc::new(Accounts::new(clock.clone())),
        Lifecycle::default(),
        clock.clone(),
        traffic.tasks(),
    )
    .expect("the proxy starts");
    while !proxy.is_ready() {
        clock.block(Duration::from_millis(10));
    }
    println!("{}", proxy.address());
    let mut forecaster = Forecaster::default();
    match mode {
        "nothing" => loop {
            park();
        },
        "at its pace" => forecaster.set_pace(pace_under(Some(CORES))),
        _ => forecaster.set_pace(Pace::default()),
    }
    let now = Now::at(Timestamp::default(), Duration::from_secs(14 * DAY));
    loop {
        forecaster.forget();
        forecaster.observe(now, &history);
    }
}

/// Two weeks of minutes with a day's course.
fn history() -> History {
    let rate = |minute: u64| {
        let day = (minute as f64 / 1_440.0 * std::f64::consts::TAU).sin();
        30.0 + 18.0 * day
    };
    let slots = (0..14 * 1_440).map(|minute| Load {
        pod_seconds: 60.0 * 12.0,
        arrivals: 60.0 * rate(minute),
        ..Load::default()
    });
    let past = Past {
        start_millis: 0,
        step_seconds: 60,
        slots: slots.collect(),
    };
    let mut history = History::new(Duration::from_secs(14 * DAY));
    let end = Timestamp::from_secs(14 * DAY.cast_signed());
    history.merge_past(&past, Timestamp::default()..end);
    history
}

// === impl Group ===

impl Group {
    fn new() -> Self {
        let name = format!("sidescale-quota-{}", std::process::id());
        let (one, two) = (
            PathBuf::from("/sys/fs/cgroup/cpu"),
            PathBuf::from("/sys/fs/cgroup"),
        );
        let period = 100_000;
        let quota = CORES * f64::from(period);
        let (parent, file, text) = if one.exists() {
            (one, "cpu.cfs_quota_us", quota.to_string())
        } else {
            (two, "cpu.max", format!("{quota} {period}"))
        };
        let group = Self(parent.join(name));
        let made = fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(file), text));
        made.unwrap_or_else(|error| {
            panic!(
                "{}: {error} (run it as root, where control groups can be made)",
                group.0.display()
            )
        });
        group
    }

    fn take(&self, child: &Child) {
        let procs = self.0.join("cgroup.procs");
        fs::write(procs, child.id().to_string()).expect("the group takes it");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).expect("the group is empty");
    }
}
