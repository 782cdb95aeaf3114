//! The Events on the Deployment.

use std::time::Duration;

use serde_json::json;
use sidescale::clock::{Clock, Timestamp};
use sidescale::scale::{Announcement, Announcer, DeploymentView};

use super::api_server::ApiServer;

const POST: &str = "POST /apis/events.k8s.io/v1/namespaces/ml/events?&fieldManager=sidescale";

struct Setting {
    server: ApiServer,
    announcer: Announcer,
    clock: Clock,
    view: DeploymentView,
}

fn setting() -> Setting {
    let (client, server) = ApiServer::start();
    let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), 1.0);
    let view = DeploymentView {
        namespace: "ml".to_owned(),
        name: "bert".to_owned(),
        uid: "d".to_owned(),
        ..DeploymentView::default()
    };
    let announcer = Announcer::new(client, "pod-1_aaaa", clock.clone());
    Setting {
        server,
        announcer,
        clock,
        view,
    }
}

fn trouble(note: &str) -> Announcement {
    Announcement::Trouble {
        reason: "ScaleForbidden".to_owned(),
        note: note.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_is_an_event_of_its_own_with_its_numbers() {
    let Setting {
        mut server,
        mut announcer,
        view,
        ..
    } = setting();
    let mut names = Vec::new();
    for (from, to, reason, note) in [
        (3, 7, "ScaledUp", "from 3 to 7 replicas: forecast"),
        (7, 3, "ScaledDown", "from 7 to 3 replicas: forecast"),
        (3, 7, "ScaledUp", "from 3 to 7 replicas: forecast"),
    ] {
        let scaled = Announcement::Scaled {
            from,
            to,
            why: "forecast".to_owned(),
        };
        tokio::join!(announcer.announce(&view, &scaled), async {
            let asked = server.expect(POST).await;
            let event = asked.body.clone();
            assert_eq!(
                (&event["reason"], &event["note"], &event["type"]),
                (&json!(reason), &json!(note), &json!("Normal"))
            );
            assert_eq!(
                (&event["action"], &event["reportingInstance"]),
                (&json!("Scale"), &json!("pod-1_aaaa"))
            );
            let regarding = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "bert", "namespace": "ml", "uid": "d"});
            assert_eq!(event["regarding"], regarding);
            assert!(
                event["eventTime"]
                    .as_str()
                    .is_some_and(|time| time.starts_with("2023-11-14T22:13:20.")),
                "{event}"
            );
            names.push(event["metadata"]["name"].to_string());
            asked.answer(&event);
        });
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_trouble_that_goes_on_is_said_again_after_half_an_hour_and_another_at_once() {
    let Setting {
        mut server,
        mut announcer,
        clock,
        view,
    } = setting();
    for (note, after, said) in [
        ("no right", Duration::ZERO, true),
        ("no right", Duration::from_secs(60), false),
        ("no other right", Duration::ZERO, true),
        ("no right", Duration::from_secs(1_800), true),
    ] {
        clock.sleep(after).await;
        let announcement = trouble(note);
        if said {
            tokio::join!(announcer.announce(&view, &announcement), async {
                let asked = server.expect(POST).await;
                assert_eq!(
                    (&asked.body["type"], &asked.body["note"]),
                    (&json!("Warning"), &json!(note))
                );
                asked.refuse(403, "Forbidden", "events is forbidden");
            });
        } else {
            announcer.announce(&view, &announcement).await;
            assert!(server.is_quiet(), "{note} after {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_note_is_cut_to_what_the_api_server_takes() {
    let Setting {
        mut server,
        mut announcer,
        view,
        ..
    } = setting();
    let long = "\u{fc}".repeat(2_000);
    let announcement = trouble(&long);
    tokio::join!(announcer.announce(&view, &announcement), async {
        let asked = server.expect(POST).await;
        let note = asked.body["note"].as_str().expect("text");
        assert!(
            note.len() <= 1_024 && note.len() > 1_000 && note.ends_with("\u{fc}..."),
            "{}",
            note.len()
        );
        let event = asked.body.clone();
        asked.answer(&event);
    });
}
