//! How much memory a leader needs: `sidescale lead` before 200 members and 14 days of history, with everything that learns.
//!
//! `cargo bench --bench memory` (`-- SECONDS` to look for longer than four minutes), on Linux. The members are this process: each
//! has an address of its own, speaks the member channel, and has an hour of its past to tell. API server and controllers are the
//! embedded ones, by a socket.

#![expect(clippy::print_stdout, reason = "its output is the figures")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sidescale::clock::{Clock, Instant, Timestamp};
use sidescale::fleet::member::{HEARD_BOUND, Member, Source, Verdict, Verify};
use sidescale::history::{History, Sections, encode};
use sidescale::lifecycle::Tasks;
use sidescale::local::kubelet::{Addresses, Kubelet, Running, Runtime, Settings, Start};
use sidescale::local::{self, Identity};
use sidescale::report::{Hello, Load, Past, Report, WIRE_VERSION};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

const MEMBERS: u64 = 200;
const DAYS: u64 = 14;
const DAY: u64 = 86_400;
/// Requests a second of one member, each of which takes half a second.
const RATE: f64 = 10.0;
const MEMBER: u16 = 9190;
const ADMIN: u16 = 9090;
const TOKEN: &str = "lead";
/// What the leader is promised to stay below, MiB.
const BOUND: f64 = 96.0;

const POLICY: &str = "mode: observe
maxReplicas: 400
metrics: [{type: concurrency, averageValue: 6.4}]
prediction: {history: 14d}
";

/// A pod without a server, which says what it has to.
struct Fleet {
    clock: Clock,
    epochs: AtomicU64,
    tasks: Tasks,
}

struct Says {
    clock: Clock,
    pod: String,
    epoch: u64,
    seq: AtomicU64,
}

struct Believes;

struct Lead {
    child: Child,
    folder: PathBuf,
}

// === impl Fleet ===

impl Runtime for Fleet {
    fn start(&self, start: Start<'_>) -> Running {
        let says = Says {
            clock: self.clock.clone(),
            pod: start.pod.metadata.name.clone().unwrap_or_default(),
            epoch: self.epochs.fetch_add(1, Ordering::Relaxed),
            seq: AtomicU64::new(0),
        };
        let (clock, ip) = (self.clock.clone(), start.ip);
        let (heard, mut hears) = mpsc::channel(HEARD_BOUND);
        let member = Member::new(clock, says, Believes, heard, Arc::new(Notify::new()));
        let children = self.tasks.handle();
        self.tasks.spawn(async move {
            let listener = tokio::net::TcpListener::bind((ip, MEMBER)).await;
            let listener = listener.expect("the address is this pod's");
            tokio::join!(member.serve(listener, children), async {
                while hears.recv().await.is_some() {}
            });
        });
        Running::new(std::future::pending(), |_signal| {})
    }
}

// === impl Says ===

impl Source for Says {
    fn report(&self) -> Report {
        let now = self.clock.instant().since(Instant::default());
        Report {
            v: WIRE_VERSION,
            pod: self.pod.clone(),
            epoch: self.epoch,
            seq: self.seq.fetch_add(1, Ordering::Relaxed),
            at_millis: u64::try_from(now.as_millis()).expect("a short run"),
            total: load(now.as_secs_f64()),
            in_flight: 5,
            ready: true,
            connections: Some(20),
            ..Report::default()
        }
    }

    /// An hour, whatever was asked for.
    fn past(&self, _since: Timestamp) -> Past {
        let hour = Duration::from_secs(3_600);
        let start = self.clock.now().timestamp.as_millis() - 3_600_000;
        let slots = (0..hour.as_secs() / 10).map(|_slot| load(10.0));
        Past {
            start_millis: start,
            step_seconds: 10,
            slots: slots.collect(),
        }
    }
}

impl Verify for Believes {
    async fn verify(&self, _hello: &Hello) -> Verdict {
        Verdict::Genuine
    }
}

/// What one member does in so many seconds.
fn load(seconds: f64) -> Load {
    Load {
        pod_seconds: seconds,
        arrivals: seconds * RATE,
        completions: seconds * RATE,
        busy_seconds: seconds * RATE / 2.0,
        service_seconds: seconds * RATE / 2.0,
        ..Load::default()
    }
}

/// Minutes with a day's course and bursts, up to an hour ago: the members know the rest.
fn history(clock: &Clock) -> History {
    let end = clock.now().timestamp.as_secs() / 60 * 60 - 3_600;
    let start = end - i64::try_from(DAYS * DAY).expect("days");
    let slots = (0..DAYS * 1_440).map(|minute| {
        let day = (minute as f64 / 1_440.0 * std::f64::consts::TAU).sin();
        let burst = if minute % 117 < 2 { 1.6 } else { 1.0 };
        load(60.0 * MEMBERS as f64).scaled((1.0 + 0.6 * day) * burst)
    });
    let past = Past {
        start_millis: start * 1_000,
        step_seconds: 60,
        slots: slots.collect(),
    };
    let mut history = History::new(Duration::from_secs(DAYS * DAY));
    let window = Timestamp::from_secs(start)..Timestamp::from_secs(end);
    history.merge_past(&past, window);
    for start in 0..40 {
        history.record_start(Duration::from_secs(120 + start));
    }
    history
}

async fn create<K>(client: &kube::Client, object: Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).expect("an object of this kind");
    let created = Api::<K>::default_namespaced(client.clone())
        .create(&PostParams::default(), &object)
        .await;
    created.expect("it is new");
}

async fn deploy(client: &kube::Client, clock: &Clock) {
    create::<Lease>(
        client,
        json!({"metadata": {"name": "sidescale-bert"}, "spec": {}}),
    )
    .await;
    let checkpoint = ByteString(encode(&history(clock), &Sections::default()));
    println!("checkpoint: {} KiB", checkpoint.0.len() / 1_024);
    let map = json!({
        "metadata": {"name": "sidescale-bert-history"}, "binaryData": {"history": checkpoint},
    });
    create::<ConfigMap>(client, map).await;
    let deployment = json!({"metadata": {"name": "bert"}, "spec": {
        "replicas": MEMBERS,
        "selector": {"matchLabels": {"app": "bert"}},
        "template": {
            "metadata": {"labels": {"app": "bert"}},
            "spec": {"containers": [{"name": "sidescale", "image": "sidescale"}]},
        },
    }});
    create::<Deployment>(client, deployment).await;
}

// === impl Lead ===

impl Lead {
    fn start(server: SocketAddr, ip: Ipv4Addr) -> Self {
        let folder = std::env::temp_dir().join(format!("sidescale-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for such files");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("the folder is ours");
            path
        };
        let kubeconfig = local::Cluster::kubeconfig(server, Some(TOKEN), "default");
        let kubeconfig = write("kubeconfig", &kubeconfig);
        let policy = write("policy.yaml", POLICY);
        let child = Command::new(env!("CARGO_BIN_EXE_sidescale"))
            .args(["lead", "--target", "bert", "--log", "warn"])
            .args(["--admin", &format!("{ip}:{ADMIN}")])
            .args(["--member", &format!("{ip}:{MEMBER}")])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--policy")
            .arg(policy)
            .spawn();
        Self {
            child: child.expect("the program starts"),
            folder,
        }
    }

    /// A figure of its memory, MiB: `VmRSS` now, `VmHWM` the most so far.
    fn memory(&self, figure: &str) -> f64 {
        let path = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(path.join("status")).expect("it runs");
        let mut lines = status.lines();
        let kib = lines.find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u32>().ok());
        f64::from(kib.expect("Linux says so")) / 1_024.0
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The leader's plan, once it has one.
async fn plan(admin: SocketAddr) -> Option<Value> {
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<&[u8]>>(TokioIo::new(stream))
            .await
            .ok()?;
    let tasks = Tasks::here();
    tasks.spawn(async move {
        connection.await.ok();
    });
    let request = http::Request::get("/api/v1/plan").header("host", "lead");
    let request = request.body(Empty::new()).expect("a request");
    let body = requests.send_request(request).await.ok()?.into_body();
    serde_json::from_slice(&body.collect().await.ok()?.to_bytes()).ok()
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let seconds: u64 = seconds.unwrap_or(240);
    let clock = Clock::real();
    let cluster = local::Cluster::start(local::Settings::new(clock.clone(), 1));
    let server = cluster.serve().await.expect("a free port");
    cluster.admit(TOKEN, Identity::administrator());
    let client = cluster.client("memory");
    deploy(&client, &clock).await;
    let addresses = Addresses::claim(&mut StdRng::seed_from_u64(std::process::id().into()));
    let addresses = addresses.expect("some loopback network is free");
    let own = addresses.take().expect("the first of them");
    let tasks = Tasks::here();
    let fleet = Fleet {
        clock: clock.clone(),
        epochs: AtomicU64::new(1),
        tasks: tasks.clone(),
    };
    let settings = Settings {
        node: "node".to_owned(),
        namespace: Some("default".to_owned()),
    };
    let _kubelet = Kubelet::start(client, clock.clone(), Arc::new(fleet), addresses, settings);
    let lead = Lead::start(server, own.ip());
    let mut ready_at = None;
    let mut reasons = Value::Null;
    let start = clock.instant();
    while ready_at.is_none_or(|ready: Instant| clock.instant().since(ready).as_secs() < seconds) {
        clock.sleep(Duration::from_secs(1)).await;
        let now = clock.instant();
        let plan = plan((own.ip(), ADMIN).into()).await.unwrap_or_default();
        let replicas = &plan["replicas"];
        if ready_at.is_none() && replicas["ready"] == MEMBERS && replicas["unknown"] == 0 {
            ready_at = Some(now);
        }
        assert!(now.since(start).as_secs() < seconds + 300, "{replicas}");
        reasons = plan["plan"]["reasons"].clone();
    }
    // What it has learnt stands in its reasons.
    println!("{reasons:#}");
    let (now, peak) = (lead.memory("VmRSS"), lead.memory("VmHWM"));
    println!(
        "a leader of {MEMBERS} members with {DAYS} days of history: {now:.1} MiB, at most {peak:.1} MiB"
    );
    assert!(peak < BOUND, "more than {BOUND} MiB");
}
