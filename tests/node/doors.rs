//! A way to one pod past its Service, whether it is ready or not: a Service of its own on the nodes, so that it is there
//! on any cluster, and while its API server is not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sidescale::clock::Clock;
use tokio::net::TcpStream;

use crate::cluster::Cluster;

/// What a Service of one pod selects it by.
const LABEL: &str = "sidescale.test/door";
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where one pod is reached.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) pod: String,
    /// Where it takes requests.
    pub(crate) traffic: String,
    /// Where it answers questions.
    pub(crate) admin: String,
    /// Where its leader finds it.
    pub(crate) member: String,
}

// === impl Door ===

impl Door {
    /// One for each pod of this name.
    pub(crate) async fn open_all(cluster: &Cluster, app: &str) -> Vec<Self> {
        let mut doors = Vec::new();
        for pod in cluster.pods_of(app).await {
            let name = pod.metadata.name.expect("a pod has a name");
            doors.push(Self::open(cluster, name).await);
        }
        doors
    }

    async fn open(cluster: &Cluster, pod: String) -> Self {
        let label = json!({"metadata": {"labels": {LABEL: pod}}});
        let params = PatchParams::default();
        let labelled = cluster
            .pods()
            .patch(&pod, &params, &Patch::Merge(label))
            .await;
        labelled.expect("the pod is there");
        let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port});
        let service = format!("door-{pod}");
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service},
            "spec": {
                "type": "NodePort",
                "selector": {LABEL: pod},
                "publishNotReadyAddresses": true,
                "ports": [port("traffic", 8080), port("admin", 9090), port("member", 9190)],
            },
        });
        cluster.apply(&[object]).await;
        let mut addresses = cluster.addresses(&service).await.into_iter();
        let mut next = || addresses.next().expect("three ports");
        Self {
            pod,
            traffic: next(),
            admin: next(),
            member: next(),
        }
    }

    /// What its admin port answers.
    pub(crate) async fn ask(&self, path: &str) -> Result<String, String> {
        let answer = Clock::real()
            .timeout(PATIENCE, get(&self.admin, path))
            .await;
        let answer = answer.map_err(|elapsed| elapsed.to_string())?;
        answer.map_err(|error| error.to_string())
    }

    /// The plan as this pod tells it.
    pub(crate) async fn plan(&self) -> Result<Value, String> {
        let text = self.ask("/api/v1/plan").await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// A number among its metrics; `None`: it has none of this name.
    pub(crate) async fn metric(&self, name: &str) -> Result<Option<f64>, String> {
        let text = self.ask("/metrics").await?;
        let mut words = text.lines().map(str::split_whitespace);
        Ok(words.find_map(|mut words| {
            let is_it = words.next() == Some(name);
            is_it.then(|| words.next()?.parse().ok()).flatten()
        }))
    }
}

async fn get(
    address: &str,
    path: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, address)
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    let mut answer = std::pin::pin!(answer);
    let (status, body) = tokio::select! {
        answer = &mut answer => answer?,
        _closed = connection => answer.await?,
    };
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}").into())
    }
}
