//! The embedded server on a real socket, as other processes use it.

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::json;
use sidescale::clock::Clock;
use sidescale::local::{Cluster, Identity, Settings};

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("JSON is YAML");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is complete");
    config.default_retry = false;
    Client::try_from(config).expect("the client can be made")
}

fn lease() -> Lease {
    serde_json::from_value(json!({"metadata": {"name": "x"}})).expect("the lease is well-formed")
}

#[tokio::test]
async fn a_client_of_another_process_reads_writes_and_watches() {
    let cluster = Cluster::start(Settings::new(Clock::real(), 1));
    let address = cluster.serve().await.expect("a port is free");
    let client = client(&Cluster::kubeconfig(address, None, "default")).await;
    let version = client.apiserver_version().await.expect("it has one");
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "36")
    );
    let leases: Api<Lease> = Api::default_namespaced(client);
    let mut watch = leases
        .watch(&WatchParams::default(), "0")
        .await
        .expect("it can be watched")
        .boxed();
    leases
        .create(&PostParams::default(), &lease())
        .await
        .expect("it is new");
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    cluster.faults().set_available(false);
    assert!(
        matches!(watch.next().await, Some(Err(_)) | None),
        "the connection breaks"
    );
    assert!(leases.get("x").await.is_err());
    cluster.faults().set_available(true);
    assert!(leases.get("x").await.is_ok());
}

#[tokio::test]
async fn a_token_says_who_asks() {
    let cluster = Cluster::start(Settings::new(Clock::real(), 1));
    let address = cluster.serve().await.expect("a port is free");
    cluster.admit("secret", Identity::administrator());
    let with = |token: Option<&'static str>| async move {
        let client = client(&Cluster::kubeconfig(address, token, "default")).await;
        let leases: Api<Lease> = Api::default_namespaced(client);
        match leases.create(&PostParams::default(), &lease()).await {
            Ok(_) => 201,
            Err(Error::Api(status)) => status.code,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(with(None).await, 403);
    assert_eq!(with(Some("wrong")).await, 401);
    assert_eq!(with(Some("secret")).await, 201);
    cluster.expel("secret");
    cluster.admit("another", Identity::administrator());
    assert_eq!(with(Some("secret")).await, 401);
}
