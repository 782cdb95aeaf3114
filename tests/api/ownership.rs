//! From the pod to its Deployment.

use serde_json::{Value, json};
use sidescale::clock::{Clock, Timestamp};
use sidescale::scale::{NoOwner, Owner, owner_of_pod};

use super::api_server::{ApiServer, Asked};

const POD: &str = "GET /api/v1/namespaces/ml/pods/bert-7d-x";
const SET: &str = "GET /apis/apps/v1/namespaces/ml/replicasets/bert-7d";

fn owned_by(kind: &str, name: &str) -> Value {
    json!({"metadata": {"name": "x", "ownerReferences": [
        {"apiVersion": "v1", "kind": "Team", "name": "search", "uid": "t"},
        {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "d", "controller": true},
    ]}})
}

type Answering = Box<dyn FnOnce(Asked)>;

/// Answers one request after the other, and says what was made of it.
async fn resolve(answers: Vec<(&str, Answering)>) -> Result<Owner, NoOwner> {
    let (client, mut server) = ApiServer::start();
    let clock = Clock::scaled(Timestamp::from_secs(0), 1.0);
    let (owner, ()) = tokio::join!(owner_of_pod(client, "ml", "bert-7d-x", &clock), async {
        for (line, answer) in answers {
            answer(server.expect(line).await);
        }
    });
    assert!(server.is_quiet());
    owner
}

#[tokio::test]
async fn a_pod_leads_over_its_replicaset_to_its_deployment() {
    let owner = resolve(vec![
        (
            POD,
            Box::new(|asked| asked.answer(&owned_by("ReplicaSet", "bert-7d"))),
        ),
        (
            SET,
            Box::new(|asked| asked.answer(&owned_by("Deployment", "bert"))),
        ),
    ]);
    let expected = Owner {
        deployment: "bert".to_owned(),
        uid: "d".to_owned(),
    };
    assert_eq!(owner.await.expect("a Deployment's pod"), expected);
}

#[tokio::test]
async fn what_is_no_deployments_pod_is_refused_with_the_flag_that_helps() {
    let check = async |answers: Vec<(&str, Answering)>, words: &[&str]| {
        let text = resolve(answers)
            .await
            .expect_err("no Deployment")
            .to_string();
        for word in words.iter().chain(&["--target deployment/NAME"]) {
            assert!(text.contains(word), "{word} not in {text}");
        }
    };
    check(
        vec![(
            POD,
            Box::new(|asked| asked.answer(&owned_by("StatefulSet", "bert"))),
        )],
        &["pod ml/bert-7d-x is controlled by StatefulSet bert"],
    )
    .await;
    check(
        vec![(
            POD,
            Box::new(|asked| asked.answer(&json!({"metadata": {"name": "x"}}))),
        )],
        &["pod ml/bert-7d-x is controlled by nothing"],
    )
    .await;
    check(
        vec![
            (
                POD,
                Box::new(|asked| asked.answer(&owned_by("ReplicaSet", "bert-7d"))),
            ),
            (
                SET,
                Box::new(|asked| asked.answer(&owned_by("Rollout", "bert"))),
            ),
        ],
        &["replicaset ml/bert-7d is controlled by Rollout bert"],
    )
    .await;
    check(
        vec![(
            POD,
            Box::new(|asked| asked.refuse(404, "NotFound", "not found")),
        )],
        &["pod ml/bert-7d-x does not exist", "POD_NAME"],
    )
    .await;
    check(
        vec![
            (
                POD,
                Box::new(|asked| asked.answer(&owned_by("ReplicaSet", "bert-7d"))),
            ),
            (
                SET,
                Box::new(|asked| asked.refuse(403, "Forbidden", "cannot get")),
            ),
        ],
        &[
            "may not get replicasets ml/bert-7d",
            "apiGroups: [\"apps\"]",
            "resources: [\"replicasets\"]",
        ],
    )
    .await;
}
