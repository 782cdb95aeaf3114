//! What only the embedded server does: it fails when told to, forgets old versions, and knows whom it admits.

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, Error};
use serde_json::json;
use sidescale::clock::{Clock, Timestamp};
use sidescale::local::{Action, Cluster, Gate, Identity, Settings};

fn cluster() -> Cluster {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 20.0);
    Cluster::start(Settings::new(clock, 1))
}

fn leases(client: Client) -> Api<Lease> {
    Api::default_namespaced(client)
}

async fn make_lease(leases: &Api<Lease>, name: &str) -> Lease {
    let lease = serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"holderIdentity": "a"}}),
    );
    let lease = lease.expect("the lease is well-formed");
    leases
        .create(&PostParams::default(), &lease)
        .await
        .expect("it is new")
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> u16 {
    let error = answer.expect_err("the server refuses this");
    let Error::Api(status) = error else {
        panic!("no refusal but {error}");
    };
    status.code
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 20.0);
    let cluster = Cluster::start(Settings {
        window: 4,
        ..Settings::new(clock, 1)
    });
    let leases = leases(cluster.client("test"));
    for n in 0..6 {
        make_lease(&leases, &format!("x{n}")).await;
    }
    let watch = leases
        .watch(&WatchParams::default(), "2")
        .await
        .expect("it can be watched");
    let events: Vec<_> = watch.try_collect().await.expect("the error is an event");
    let [WatchEvent::Error(status)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

#[tokio::test]
async fn a_server_that_is_away_breaks_requests_and_watches_and_keeps_its_objects() {
    let cluster = cluster();
    let leases = leases(cluster.client("test"));
    make_lease(&leases, "x").await;
    let mut watch = leases
        .watch(&WatchParams::default(), "0")
        .await
        .expect("it can be watched")
        .boxed();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    cluster.faults().set_available(false);
    assert!(matches!(watch.next().await, Some(Err(_)) | None));
    assert!(matches!(leases.get("x").await, Err(Error::Service(_))));
    cluster.faults().set_available(true);
    assert!(leases.get("x").await.is_ok());
}

#[tokio::test]
async fn a_held_patch_arrives_although_its_sender_has_given_up() {
    let cluster = cluster();
    let (old, new) = (leases(cluster.client("old")), leases(cluster.client("new")));
    let seen = make_lease(&new, "x").await;
    let gate = Gate::default();
    let held = gate.clone();
    cluster.faults().set_hook(move |request| {
        let agent = request.headers().get(http::header::USER_AGENT);
        if agent.is_some_and(|agent| agent == "old") {
            Action::Hold(held.clone())
        } else {
            Action::Pass
        }
    });
    let take = |holder: &str| {
        Patch::Merge(json!({
            "metadata": {"resourceVersion": seen.metadata.resource_version},
            "spec": {"holderIdentity": holder},
        }))
    };
    let (parameters, patch) = (PatchParams::default(), take("old"));
    let until_held = async {
        while gate.held() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = old.patch("x", &parameters, &patch) => panic!("it is held, and yet answered: {answer:?}"),
        () = until_held => {}
    }
    assert_eq!(gate.held(), 1);
    // Nobody waits for it any more, and yet it is the first to be served.
    gate.open();
    let mut watch = new
        .watch(&WatchParams::default(), "0")
        .await
        .expect("it can be watched")
        .boxed();
    loop {
        let event = watch
            .next()
            .await
            .expect("the watch goes on")
            .expect("the watch lives");
        let (WatchEvent::Added(lease) | WatchEvent::Modified(lease)) = event else {
            panic!("{event:?}");
        };
        if lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some("old") {
            break;
        }
    }
    assert_eq!(code(new.patch("x", &parameters, &take("new")).await), 409);
}

#[tokio::test]
async fn a_hook_fails_requests_of_its_choice_without_effect() {
    let cluster = cluster();
    let leases = leases(cluster.client("test"));
    make_lease(&leases, "x").await;
    cluster
        .faults()
        .set_hook(|request| match request.method().as_str() {
            "PATCH" => Action::Fail(500),
            "DELETE" => Action::Drop,
            _ => Action::Pass,
        });
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": "b"}}));
    assert_eq!(
        code(leases.patch("x", &PatchParams::default(), &patch).await),
        500
    );
    assert!(matches!(
        leases.delete("x", &DeleteParams::default()).await,
        Err(Error::Service(_))
    ));
    cluster.faults().clear_hook();
    let lease = leases.get("x").await.expect("it is still there");
    assert_eq!(
        lease.spec.and_then(|spec| spec.holder_identity).as_deref(),
        Some("a")
    );
}

#[tokio::test]
async fn a_role_that_lacks_a_right_refuses_in_the_real_words() {
    let cluster = cluster();
    let admin = cluster.client("admin");
    make_lease(&leases(admin.clone()), "sidescale-web").await;
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "sidescale-web"}, "rules": [{
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["sidescale-web"],
        "verbs": ["get"],
    }]}))
    .expect("the role is well-formed");
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "sidescale-web"},
        "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "default"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sidescale-web"},
    }))
    .expect("the binding is well-formed");
    Api::default_namespaced(admin.clone())
        .create(&PostParams::default(), &role)
        .await
        .expect("it is new");
    Api::default_namespaced(admin)
        .create(&PostParams::default(), &binding)
        .await
        .expect("it is new");

    let mine = leases(cluster.client_as("web", Identity::service_account("default", "web")));
    assert!(mine.get("sidescale-web").await.is_ok());
    assert_eq!(code(mine.get("other").await), 403);
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": "b"}}));
    let refused = mine
        .patch("sidescale-web", &PatchParams::default(), &patch)
        .await;
    let Err(Error::Api(status)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        status.message,
        "leases.coordination.k8s.io \"sidescale-web\" is forbidden: User \"system:serviceaccount:default:web\" cannot \
         patch resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"default\""
    );
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
}

#[tokio::test]
async fn requests_are_counted_by_who_sent_them() {
    let cluster = cluster();
    let (one, two) = (
        leases(cluster.client("one/1")),
        leases(cluster.client("two/1")),
    );
    make_lease(&one, "x").await;
    for _ in 0..3 {
        two.list(&ListParams::default())
            .await
            .expect("they can be listed");
    }
    let counts = cluster.faults().requests_by_agent();
    assert_eq!((counts["one/1"], counts["two/1"]), (1, 3));
    let lists = cluster
        .faults()
        .requests()
        .into_iter()
        .find(|(asked, _)| asked.verb == "list");
    let (asked, count) = lists.expect("they were counted");
    assert_eq!((asked.resource.as_str(), count), ("leases", 3));
}

#[tokio::test(start_paused = true)]
async fn a_watch_marks_its_version_every_minute_and_at_its_end() {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 20.0);
    let cluster = Cluster::start(Settings::new(clock.clone(), 1));
    let leases = leases(cluster.client("test"));
    let made = make_lease(&leases, "x").await;
    let version = made.metadata.resource_version.expect("it has one");
    let start = clock.instant();
    let parameters = WatchParams::default().timeout(150);
    let watch = leases
        .watch(&parameters, &version)
        .await
        .expect("it can be watched");
    let events: Vec<_> = watch.try_collect().await.expect("it ends in good order");
    assert_eq!(clock.instant().since(start).as_secs(), 150);
    let marks = events.iter().map(|event| match event {
        WatchEvent::Bookmark(mark) => mark.metadata.resource_version.as_str(),
        WatchEvent::Added(_)
        | WatchEvent::Modified(_)
        | WatchEvent::Deleted(_)
        | WatchEvent::Error(_) => panic!("{event:?}"),
    });
    assert_eq!(marks.collect::<Vec<_>>(), [&version; 3]);
}
