//! A runtime of tasks for the kubelet: containers that listen on their pod's address and write down what befalls them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidescale::clock::Clock;
use sidescale::lifecycle::Tasks;
use sidescale::local::kubelet::{Running, Runtime, Signal, Start};
use tokio::sync::{oneshot, watch};

/// What the sidecar takes to answer the server's preStop hook: its drain.
const DRAIN: Duration = Duration::from_secs(3);

/// A container's exit code, once it has one.
type Exit = watch::Sender<Option<i32>>;

/// The containers of a fleet. The name of a container says how it behaves: `server` and `sidescale` listen on 8000 and
/// 8080, `stubborn` does not end for SIGTERM.
pub(crate) struct Containers {
    clock: Clock,
    log: watch::Sender<Vec<String>>,
    /// Pods whose server is not ready, by name.
    unready: Mutex<Vec<String>>,
    /// By pod and container: lets a test end it.
    exits: Mutex<BTreeMap<(String, String), Exit>>,
}

impl Containers {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            log: watch::Sender::new(Vec::new()),
            unready: Mutex::default(),
            exits: Mutex::default(),
        })
    }

    /// What befell the containers of `pod`, in order.
    pub(crate) fn log_of(&self, pod: &str) -> Vec<String> {
        let of_pod = |line: &String| line.strip_prefix(&format!("{pod} ")).map(str::to_owned);
        self.log.borrow().iter().filter_map(of_pod).collect()
    }

    /// Waits until `line` is in the log of `pod`.
    pub(crate) async fn wait_for(&self, pod: &str, line: &str) {
        let line = format!("{pod} {line}");
        let mut log = self.log.subscribe();
        log.wait_for(|log| log.contains(&line))
            .await
            .expect("the log lives");
    }

    /// Makes the readiness of a pod's server fail from now on.
    pub(crate) fn make_unready(&self, pod: &str) {
        self.unready
            .lock()
            .expect("no test panics with it")
            .push(pod.to_owned());
    }

    /// Ends a container with `code`, as a crash does.
    pub(crate) fn crash(&self, pod: &str, container: &str, code: i32) {
        let exits = self.exits.lock().expect("no test panics with it");
        exits[&(pod.to_owned(), container.to_owned())].send_replace(Some(code));
    }

    fn note(&self, pod: &str, line: &str) {
        self.log
            .send_modify(|log| log.push(format!("{pod} {line}")));
    }

    async fn answer(&self, pod: &str, container: &str, path: &str) -> u16 {
        match path {
            "/ready"
                if self
                    .unready
                    .lock()
                    .expect("no test panics with it")
                    .iter()
                    .any(|unready| unready == pod) =>
            {
                503
            }
            "/ready" => 200,
            "/drain" => {
                self.note(pod, &format!("{container} is asked to drain"));
                self.clock.sleep(DRAIN).await;
                self.note(pod, &format!("{container} has drained"));
                200
            }
            _ => 404,
        }
    }
}

/// The runtime is a handle of its own, because a container must be able to hold it.
pub(crate) struct Handle(pub(crate) Arc<Containers>);

impl Runtime for Handle {
    fn start(&self, start: Start<'_>) -> Running {
        let containers = Arc::clone(&self.0);
        let pod = start.env["POD_NAME"].clone();
        let name = start.container.name.clone();
        containers.note(&pod, &format!("{name} starts"));
        let exit = watch::Sender::new(None);
        let mut ended = exit.subscribe();
        containers
            .exits
            .lock()
            .expect("no test panics with it")
            .insert((pod.clone(), name.clone()), exit.clone());
        let port = if name == "sidescale" { 8080 } else { 8000 };
        let listener = StdListener::bind((start.ip, port)).expect("a pod's address is its own");
        let tasks = Tasks::here();
        let (listens, gone) = oneshot::channel();
        tasks.spawn(listen(
            Arc::clone(&containers),
            (listens, listener),
            pod.clone(),
            name.clone(),
            &tasks,
        ));
        let signal = move |signal| match signal {
            Signal::Terminate => {
                containers.note(&pod, &format!("{name} gets SIGTERM"));
                if name != "stubborn" {
                    exit.send_replace(Some(0));
                }
            }
            Signal::Kill => {
                containers.note(&pod, &format!("{name} is killed"));
                exit.send_replace(Some(137));
            }
        };
        let exited = async move {
            let code = ended.wait_for(Option::is_some).await.map(|code| *code);
            drop(tasks);
            // A container that has ended has left its port: the next one takes it at once.
            gone.await.ok();
            code.ok().flatten().unwrap_or(1)
        };
        Running::new(exited, signal)
    }
}

/// Whoever waits for the other end of `listens` learns when the port is free again.
fn listen(
    containers: Arc<Containers>,
    (listens, listener): (oneshot::Sender<()>, StdListener),
    pod: String,
    name: String,
    tasks: &Tasks,
) -> impl Future<Output = ()> + Send + 'static {
    let children = tasks.handle();
    listener
        .set_nonblocking(true)
        .expect("a listener can be asynchronous");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime is there");
    async move {
        // In this order: the listener goes first.
        let _listens = listens;
        let listener = listener;
        while let Ok((stream, _peer)) = listener.accept().await {
            let (containers, pod, name) = (Arc::clone(&containers), pod.clone(), name.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (containers, pod, name) = (Arc::clone(&containers), pod.clone(), name.clone());
                async move {
                    let code = containers.answer(&pod, &name, request.uri().path()).await;
                    let mut response = Response::new(Full::new(Bytes::new()));
                    *response.status_mut() = code.try_into().expect("the code is valid");
                    Ok::<_, Infallible>(response)
                }
            });
            children.spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                // A prober that goes away in the middle is no failure of the container.
                drop(
                    connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    }
}
