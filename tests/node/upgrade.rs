//! A fleet gets a new sidecar, and no server is restarted for it.

use std::time::Duration;

use tokio::process::Command;

use crate::cluster::{Cluster, SOON, image, restarts};
use crate::manifests::{TARGET, injected, plain};
use crate::visitors::{Visitors, Way};

const PODS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_new_sidecar_comes_into_running_pods_and_no_request_fails() {
    let cluster = Cluster::new("upgrade").await;
    cluster.apply(&injected(&plain(PODS, 2), false)).await;
    cluster.is_rolled_out(TARGET, SOON).await;
    let before = names(&cluster).await;
    let clients = [(Way::Fresh, 4), (Way::Kept, 4), (Way::Stream(5), 4)];
    let visitors = Visitors::start(&cluster.address(TARGET).await, &clients);

    let (code, said) = upgrade(&cluster, "no-such-image.invalid/sidescale:0", "20s").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("has ghcr.io") || said.contains(&image()),
        "{said}"
    );
    cluster.is_rolled_out(TARGET, SOON).await;
    visitors.assert_none_failed("an image that cannot be had");

    let next = next_image();
    let (code, said) = upgrade(&cluster, &next, "60s").await;
    assert_eq!(code, Some(0), "{said}");
    cluster.is_rolled_out(TARGET, SOON).await;
    assert_eq!(names(&cluster).await, before, "no pod was replaced");
    for pod in cluster.pods_of(TARGET).await {
        assert_eq!(restarts(&pod, "server"), 0, "{:?}", pod.metadata.name);
        assert!(restarts(&pod, "sidescale") >= 1);
        let spec = pod.spec.expect("a pod has a spec");
        let first = spec
            .init_containers
            .and_then(|list| list.into_iter().next());
        assert_eq!(first.and_then(|sidecar| sidecar.image), Some(next.clone()));
    }
    let seen = visitors.assert_none_failed("the upgrade");
    cluster.print(&format!(
        "{said}\n{PODS} pods have a new sidecar, no server restarted, none failed of {:?}",
        seen.served
    ));

    // Whoever is asked to do what is done does nothing.
    let (code, said) = upgrade(&cluster, &next, "60s").await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    cluster.end().await;
}

/// The program itself, with the rights of whoever runs the tests.
async fn upgrade(cluster: &Cluster, image: &str, patience: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidescale"))
        .args(["upgrade", TARGET, "--image", image, "--patience", patience])
        .args(["--namespace", cluster.namespace()])
        .output();
    let output = sidescale::clock::Clock::real()
        .timeout(Duration::from_secs(600), output)
        .await;
    let output = output.expect("it ends").expect("it was built");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// The same program under another name.
#[expect(clippy::disallowed_methods, reason = "a person's wish, at the edge")]
fn next_image() -> String {
    std::env::var("SIDESCALE_NEXT_IMAGE").unwrap_or_else(|_unset| format!("{}-next", image()))
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods_of(TARGET).await.into_iter();
    let mut names: Vec<String> = pods.filter_map(|pod| pod.metadata.name).collect();
    names.sort();
    names
}
