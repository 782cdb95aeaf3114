//! The requests to the Deployment: the stamp, the patch, and what is not sent.

use std::error::Error as _;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sidescale::clock::{Clock, Timestamp};
use sidescale::leader::{Claim, Leadership, Token};
use sidescale::scale::{DeploymentView, ScaleError, Scaled, Scaler};
use tokio::sync::watch;

use super::api_server::ApiServer;

const GET: &str = "GET /apis/apps/v1/namespaces/ml/deployments/bert";
const STAMP: &str =
    "PATCH /apis/apps/v1/namespaces/ml/deployments/bert/status?&fieldManager=sidescale";
const SCALE: &str =
    "PATCH /apis/apps/v1/namespaces/ml/deployments/bert/scale?&fieldManager=sidescale";

struct Setting {
    server: ApiServer,
    scaler: Scaler,
    clock: Clock,
    leadership: watch::Sender<Leadership>,
}

/// A leader after term 4, whose claim is valid for ten seconds.
fn leader() -> Setting {
    let (client, server) = ApiServer::start();
    let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), 1.0);
    let claim = Claim {
        holder: "pod-1_aaaa".to_owned(),
        token: Token::draw(&mut StdRng::seed_from_u64(1)),
        after_term: 4,
        renewed: "2".to_owned(),
        valid_until: clock.instant() + Duration::from_secs(10),
    };
    let (leadership, seen) = watch::channel(Leadership::Leading(claim));
    let scaler = Scaler::new(client, "ml", "bert", clock.clone(), seen);
    Setting {
        server,
        scaler,
        clock,
        leadership,
    }
}

fn deployment(version: u32, replicas: u32, stamp: Option<&str>) -> Value {
    let annotations = stamp.map_or(json!({}), |stamp| json!({"sidescale.dev/term": stamp}));
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "bert", "namespace": "ml", "uid": "d", "resourceVersion": version.to_string(),
                     "generation": 1, "annotations": annotations},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "bert"}}, "template": {}},
    })
}

fn scale(version: u32, replicas: u32) -> Value {
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "bert", "namespace": "ml", "uid": "d", "resourceVersion": version.to_string()},
        "spec": {"replicas": replicas}, "status": {"replicas": 3},
    })
}

impl Setting {
    /// Stamps term 5 on version 41, which makes it version 42 with three replicas.
    async fn stamped(&mut self) -> DeploymentView {
        let (stamp, ()) = tokio::join!(self.scaler.stamp(), async {
            self.server
                .expect(GET)
                .await
                .answer(&deployment(41, 3, None));
            self.server
                .expect(STAMP)
                .await
                .answer(&deployment(42, 3, Some("5")));
        });
        stamp.expect("nothing is in the way").view
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_is_stamped_through_the_status_and_the_replicas_set_through_the_scale_of_that_version()
 {
    let mut setting = leader();
    let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
        setting
            .server
            .expect(GET)
            .await
            .answer(&deployment(41, 3, Some("3")));
        let asked = setting.server.expect(STAMP).await;
        assert_eq!(asked.content_type, "application/merge-patch+json");
        let patch = json!({"metadata": {
            "uid": "d", "resourceVersion": "41", "annotations": {"sidescale.dev/term": "5"},
        }});
        assert_eq!(asked.body, patch);
        asked.answer(&deployment(42, 3, Some("5")));
    });
    let stamp = stamp.expect("nothing is in the way");
    assert_eq!(
        (stamp.term, stamp.view.resource_version.as_str()),
        (5, "42")
    );
    assert_eq!(setting.scaler.term(), Some(5));

    let (scaled, ()) = tokio::join!(setting.scaler.set_replicas(&stamp.view, 7), async {
        let asked = setting.server.expect(SCALE).await;
        assert_eq!(asked.content_type, "application/merge-patch+json");
        let patch =
            json!({"metadata": {"uid": "d", "resourceVersion": "42"}, "spec": {"replicas": 7}});
        assert_eq!(asked.body, patch);
        asked.answer(&scale(43, 7));
    });
    let changed = Scaled::Changed {
        from: 3,
        to: 7,
        resource_version: "43".to_owned(),
    };
    assert_eq!(scaled.expect("nothing is in the way"), changed);
}

#[tokio::test(start_paused = true)]
async fn what_is_already_so_is_not_written() {
    let mut setting = leader();
    let view = setting.stamped().await;
    assert_eq!(
        setting
            .scaler
            .set_replicas(&view, 3)
            .await
            .expect("nothing is in the way"),
        Scaled::Unchanged
    );
    let (again, ()) = tokio::join!(setting.scaler.stamp(), async {
        setting
            .server
            .expect(GET)
            .await
            .answer(&deployment(44, 3, Some("5")));
    });
    assert_eq!(
        again.expect("nothing is in the way").view.resource_version,
        "44"
    );
    assert!(setting.server.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_stamp_that_meets_another_version_is_decided_anew_above_what_it_finds() {
    let mut setting = leader();
    let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
        setting
            .server
            .expect(GET)
            .await
            .answer(&deployment(41, 3, Some("4")));
        setting
            .server
            .expect(STAMP)
            .await
            .refuse(409, "Conflict", "the object has been modified");
        // The last stamp of a former leader came through meanwhile.
        setting
            .server
            .expect(GET)
            .await
            .answer(&deployment(45, 3, Some("8")));
        let asked = setting.server.expect(STAMP).await;
        assert_eq!(asked.body["metadata"]["resourceVersion"], "45");
        assert_eq!(
            asked.body["metadata"]["annotations"]["sidescale.dev/term"],
            "9"
        );
        asked.answer(&deployment(46, 3, Some("9")));
    });
    assert_eq!(stamp.expect("the second try").term, 9);
}

#[tokio::test(start_paused = true)]
async fn a_scale_that_meets_another_version_is_a_conflict_and_not_sent_again() {
    let mut setting = leader();
    let view = setting.stamped().await;
    let (scaled, ()) = tokio::join!(setting.scaler.set_replicas(&view, 7), async {
        setting
            .server
            .expect(SCALE)
            .await
            .refuse(409, "Conflict", "the object has been modified");
    });
    assert!(
        matches!(scaled, Err(ScaleError::Conflict { .. })),
        "{scaled:?}"
    );
    assert!(setting.server.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn without_a_valid_claim_nothing_is_sent() {
    let mut setting = leader();
    let view = setting.stamped().await;
    setting.clock.sleep(Duration::from_secs(10)).await;
    let refused = setting
        .scaler
        .set_replicas(&view, 7)
        .await
        .expect_err("the claim has lapsed");
    assert_eq!(refused.label(), "refused");
    setting.leadership.send_replace(Leadership::Unknown);
    assert!(setting.scaler.set_replicas(&view, 7).await.is_err());
    assert!(setting.server.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_lapses_while_the_deployment_is_read_stamps_nothing() {
    let mut setting = leader();
    setting.clock.sleep(Duration::from_secs(6)).await;
    let clock = setting.clock.clone();
    let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
        let asked = setting.server.expect(GET).await;
        clock.sleep(Duration::from_secs(4)).await;
        asked.answer(&deployment(41, 3, None));
    });
    let refused = stamp.expect_err("the claim has lapsed");
    assert!(!refused.is_deposed());
    assert!(
        refused
            .source()
            .is_some_and(|source| source.to_string().contains("does not lead"))
    );
    assert!(setting.server.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_higher_stamp_deposes_and_a_lost_one_has_to_be_written_again() {
    let mut setting = leader();
    let view = setting.stamped().await;
    let higher = DeploymentView {
        stamp: 6,
        ..view.clone()
    };
    assert!(
        setting
            .scaler
            .set_replicas(&higher, 7)
            .await
            .is_err_and(|error| error.is_deposed())
    );
    let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
        setting
            .server
            .expect(GET)
            .await
            .answer(&deployment(50, 3, Some("6")));
    });
    assert!(stamp.is_err_and(|error| error.is_deposed()));
    let lost = DeploymentView { stamp: 0, ..view };
    let refused = setting.scaler.set_replicas(&lost, 7).await;
    assert!(refused.is_err_and(|error| error.is_unstamped() && !error.is_deposed()));
    assert!(setting.server.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_lost_stamp_is_written_again_and_never_below_what_this_reign_has_shown() {
    let mut setting = leader();
    // A former leader's stamp is above what the Lease tells of.
    let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
        let found = deployment(41, 3, Some("8"));
        setting.server.expect(GET).await.answer(&found);
        let stamped = deployment(42, 3, Some("9"));
        setting.server.expect(STAMP).await.answer(&stamped);
    });
    assert_eq!(stamp.expect("nothing is in the way").term, 9);
    // The annotation was removed, and then the whole Deployment was made anew.
    let mut anew = deployment(7, 1, None);
    anew["metadata"]["uid"] = json!("e");
    for found in [deployment(43, 3, None), anew] {
        let (stamp, ()) = tokio::join!(setting.scaler.stamp(), async {
            setting.server.expect(GET).await.answer(&found);
            let asked = setting.server.expect(STAMP).await;
            let metadata = &asked.body["metadata"];
            assert_eq!(metadata["uid"], found["metadata"]["uid"]);
            assert_eq!(metadata["annotations"]["sidescale.dev/term"], "9");
            let mut stamped = found.clone();
            stamped["metadata"]["annotations"] = metadata["annotations"].clone();
            asked.answer(&stamped);
        });
        assert_eq!(stamp.expect("the claim is valid").term, 9);
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_stamp_nothing_is_scaled() {
    let setting = leader();
    let view = DeploymentView {
        uid: "d".to_owned(),
        stamp: 4,
        ..DeploymentView::default()
    };
    let error = setting
        .scaler
        .set_replicas(&view, 7)
        .await
        .expect_err("nothing was stamped");
    assert_eq!(error.label(), "refused");
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_with_the_rules_to_add() {
    let mut setting = leader();
    let view = setting.stamped().await;
    let (scaled, ()) = tokio::join!(setting.scaler.set_replicas(&view, 7), async {
        setting.server.expect(SCALE).await.refuse(
            403,
            "Forbidden",
            "deployments.apps \"bert\" is forbidden",
        );
    });
    let text = scaled.expect_err("refused").to_string();
    for words in [
        "may not patch deployments/scale ml/bert",
        "is forbidden",
        "resources: [\"deployments/status\", \"deployments/scale\"]",
        "resourceNames: [\"bert\"]",
    ] {
        assert!(text.contains(words), "{words} not in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up_after_five_seconds() {
    let mut setting = leader();
    let view = setting.stamped().await;
    let at = setting.clock.instant();
    let (scaled, _held) = tokio::join!(
        setting.scaler.set_replicas(&view, 7),
        setting.server.expect(SCALE)
    );
    assert!(
        scaled
            .as_ref()
            .is_err_and(|error| error.label() == "timed_out"),
        "{scaled:?}"
    );
    assert_eq!(setting.clock.instant().since(at), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_not_there_says_how_to_name_it() {
    let mut setting = leader();
    let (read, ()) = tokio::join!(setting.scaler.read(), async {
        setting.server.expect(GET).await.refuse(
            404,
            "NotFound",
            "deployments.apps \"bert\" not found",
        );
    });
    let text = read.expect_err("not there").to_string();
    assert!(
        text.contains("deployment ml/bert does not exist") && text.contains("--target"),
        "{text}"
    );
}
