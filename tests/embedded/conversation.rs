//! The words of the conversation: versions, conflicts, watches, subresources, refusals.

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::place::{Place, merge, read, refusal};
use super::workloads::{deployment, settled};

crate::on_its_server! {
    what_is_the_same_makes_no_version
    a_watch_shows_what_came_after_its_version
    an_object_that_leaves_the_selection_is_deleted_to_the_watch
    refusals_have_the_real_words
}

async fn make_lease(place: &Place, name: &str) -> Lease {
    let lease: Lease = read(
        json!({"metadata": {"name": name}, "spec": {"holderIdentity": "a", "leaseTransitions": 0}}),
    );
    place
        .api()
        .create(&PostParams::default(), &lease)
        .await
        .expect("the lease is new")
}

async fn what_is_the_same_makes_no_version(place: &Place) {
    let leases: Api<Lease> = place.api();
    let present = make_lease(place, "x").await;
    let again = leases
        .replace("x", &PostParams::default(), &present)
        .await
        .expect("the version is current");
    assert_eq!(again.resource_version(), present.resource_version());
    // With a version set, the real server does not even look whether it is there.
    let anew = refusal(leases.create(&PostParams::default(), &present).await);
    assert_eq!(anew.code, 500, "{anew:?}");
}

async fn a_watch_shows_what_came_after_its_version(place: &Place) {
    let leases: Api<Lease> = place.api();
    make_lease(place, "old").await;
    let list = leases
        .list(&ListParams::default())
        .await
        .expect("it can be listed");
    let version = list
        .metadata
        .resource_version
        .expect("a list has a version");
    make_lease(place, "new").await;
    let rename = Patch::Merge(json!({"spec": {"holderIdentity": "b"}}));
    leases
        .patch("old", &merge("t"), &rename)
        .await
        .expect("it is there");
    leases
        .delete("new", &DeleteParams::default())
        .await
        .expect("it is there");
    let events = leases
        .watch(&WatchParams::default(), &version)
        .await
        .expect("it can be watched");
    let seen: Vec<String> = events
        .take(3)
        .map_ok(|event| match event {
            WatchEvent::Added(lease) => format!("added {}", lease.name_any()),
            WatchEvent::Modified(lease) => format!("modified {}", lease.name_any()),
            WatchEvent::Deleted(lease) => format!("deleted {}", lease.name_any()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(status) => format!("error {status:?}"),
        })
        .try_collect()
        .await
        .expect("the watch lives");
    assert_eq!(seen, ["added new", "modified old", "deleted new"]);
}

async fn an_object_that_leaves_the_selection_is_deleted_to_the_watch(place: &Place) {
    let maps: Api<ConfigMap> = place.api();
    let map: ConfigMap = read(json!({"metadata": {"name": "m", "labels": {"tier": "gpu"}}}));
    let made = maps
        .create(&PostParams::default(), &map)
        .await
        .expect("it is new");
    let wanted = WatchParams::default().labels("tier in (gpu, tpu),!hidden");
    let version = made.resource_version().expect("it has a version");
    for patch in [
        json!({"data": {"a": "1"}}),
        json!({"metadata": {"labels": {"hidden": ""}}}),
    ] {
        maps.patch("m", &merge("t"), &Patch::Merge(patch))
            .await
            .expect("it is there");
    }
    let events: Vec<_> = maps
        .watch(&wanted, &version)
        .await
        .expect("it can be watched")
        .take(2)
        .try_collect()
        .await
        .expect("the watch lives");
    assert!(
        matches!(&events[0], WatchEvent::Modified(_)),
        "{:?}",
        events[0]
    );
    // It is shown as it was when it still was selected, under the version at which it left.
    let WatchEvent::Deleted(last) = &events[1] else {
        panic!("{:?}", events[1]);
    };
    assert!(!last.labels().contains_key("hidden"));
    let present = maps.get("m").await.expect("it is still there");
    assert_eq!(last.resource_version(), present.resource_version());
}

async fn refusals_have_the_real_words(place: &Place) {
    make_lease(place, "x").await;
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 0))
        .await
        .expect("it is new");
    settled(&deployments, "web", 0).await;
    let namespace = &place.namespace;
    let rows: Vec<&str> = include_str!("refusals.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(rows.len() > 40, "the table is read");
    for row in rows.chunks(2) {
        let [asked, answered] = row else {
            panic!("a request without its refusal: {row:?}");
        };
        let mut words = asked.splitn(3, ' ');
        let method = words.next().expect("a row has a method");
        let path = words
            .next()
            .expect("a row has a path")
            .replace(
                "LEASES",
                &format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            )
            .replace(
                "WEBLESS",
                &format!("/apis/apps/v1/namespaces/{namespace}/deployments/webless"),
            )
            .replace(
                "WEB",
                &format!("/apis/apps/v1/namespaces/{namespace}/deployments/web"),
            );
        let body = words.next().unwrap_or_default();
        let content_type = match (method, body) {
            (_, "?") => "application/foo",
            ("PATCH", _) => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body.replace('?', "{}").into_bytes())
            .expect("the request is well-formed");
        let status = refusal(place.client.request::<Value>(request).await);
        let (code, message) = answered
            .split_once(' ')
            .expect("a row has a code and a message");
        let (start, end) = message.split_once('*').unwrap_or((message, ""));
        assert_eq!(status.code.to_string(), code, "{asked}: {}", status.message);
        assert!(
            status.message.starts_with(start) && status.message.ends_with(end),
            "{asked}: {}",
            status.message
        );
    }
}
