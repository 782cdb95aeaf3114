//! The store against the embedded API server, with the answers that lose histories.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::leader::{Claim, Token};
use crate::local::{Action, Cluster, Settings};
use crate::report::Load;

const NAME: &str = "sidescale-bert-history";
const TERM: u64 = 5;

struct Setting {
    cluster: Cluster,
    maps: Api<ConfigMap>,
    clock: Clock,
    leadership: watch::Sender<Leadership>,
}

impl Setting {
    /// A cluster with the ConfigMap as `inject` emits it, and `saved` in it, and a claim for an hour.
    async fn new(saved: Option<&[u8]>) -> Self {
        let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), 1.0);
        let cluster = Cluster::start(Settings::new(clock.clone(), 1));
        let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client("test"));
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            binary_data: saved.map(|bytes| [(KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
            ..ConfigMap::default()
        };
        let created = maps.create(&PostParams::default(), &map).await;
        created.expect("it is new");
        let claim = Claim {
            holder: "bert-0_a".to_owned(),
            token: Token::draw(&mut StdRng::seed_from_u64(1)),
            after_term: TERM - 1,
            renewed: "2".to_owned(),
            valid_until: clock.instant() + Duration::from_secs(3_600),
        };
        Self {
            cluster,
            maps,
            clock,
            leadership: watch::Sender::new(Leadership::Leading(claim)),
        }
    }

    fn store(&self) -> Store {
        Store::new(
            self.cluster.client("sidescale"),
            "default",
            "bert",
            self.clock.clone(),
            self.leadership.subscribe(),
            TERM,
        )
    }

    async fn map(&self) -> ConfigMap {
        self.maps.get(NAME).await.expect("it is there")
    }

    async fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let data = self.map().await.binary_data?;
        data.get(key).map(|bytes| bytes.0.clone())
    }

    async fn patch(&self, patch: serde_json::Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.maps.patch(NAME, &params, &patch).await;
        patched.expect("a test may write it");
    }
}

/// Ten minutes of load.
fn history() -> History {
    let mut history = History::new(Duration::from_secs(86_400));
    for second in 0..600 {
        let load = Load {
            pod_seconds: 2.0,
            arrivals: 7.0,
            ..Load::default()
        };
        history.record(Timestamp::from_secs(1_700_000_000 + second), &load);
    }
    history
}

fn saved(sections: &Sections) -> Vec<u8> {
    history::encode(&history(), sections)
}

/// As a program of the future would have written it.
fn newer() -> Vec<u8> {
    let mut bytes = saved(&Sections::new());
    bytes[8] = 9;
    bytes
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_read_is_not_written_over() {
    let before = saved(&Sections::new());
    let setting = Setting::new(Some(&before)).await;
    let mut store = setting.store();
    for answer in [Action::Fail(503), Action::Fail(401), Action::Drop] {
        setting.cluster.faults().set_hook(move |_| answer.clone());
        assert!(store.load().await.is_err());
    }
    setting.cluster.faults().clear_hook();
    let empty = History::new(Duration::from_secs(86_400));
    let refused = store.save(&empty, None).await.expect_err("nobody read it");
    assert!(refused.contains("not read yet"), "{refused}");
    assert_eq!(setting.bytes(KEY).await.as_ref(), Some(&before));
    // Once it answers, it is read, and then written.
    let loaded = store.load().await.expect("it answers");
    let Loaded::History { history, awaits } = loaded else {
        panic!("no history");
    };
    assert_eq!((history.minutes_kept(), awaits), (1_440, None));
    store.save(&history, None).await.expect("it was read");
    let term = setting.map().await.metadata.annotations.expect("one")[ANNOTATION_TERM].clone();
    assert_eq!(term, TERM.to_string());
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_as_previous_by_the_write_that_replaces_it() {
    for unreadable in [newer(), b"nonsense".to_vec()] {
        let setting = Setting::new(Some(&unreadable)).await;
        let mut store = setting.store();
        let loaded = store.load().await.expect("it answers");
        assert!(matches!(loaded, Loaded::Unreadable(_)));
        // A write that fails moves nothing and loses nothing.
        setting.cluster.faults().set_hook(|request| {
            if request.method() == Method::PUT {
                Action::Fail(500)
            } else {
                Action::Pass
            }
        });
        let zero = Some(Duration::ZERO);
        assert!(store.save(&history(), zero).await.is_err());
        assert_eq!(setting.bytes(KEY).await.as_ref(), Some(&unreadable));
        setting.cluster.faults().clear_hook();
        store.save(&history(), zero).await.expect("it was read");
        assert_eq!(setting.bytes(PREVIOUS).await.as_ref(), Some(&unreadable));
        let now = setting.bytes(KEY).await.expect("it was saved");
        assert!(history::decode(&now).is_ok());
        // The next save leaves it there.
        store.save(&history(), None).await.expect("it was read");
        assert_eq!(setting.bytes(PREVIOUS).await, Some(unreadable));
    }
}

#[tokio::test]
async fn a_configmap_that_was_deleted_meanwhile_is_made_again() {
    let setting = Setting::new(Some(&saved(&Sections::new()))).await;
    let mut store = setting.store();
    store.load().await.expect("it answers");
    store.save(&history(), None).await.expect("it was read");
    let deleted = setting.maps.delete(NAME, &DeleteParams::default()).await;
    deleted.expect("it is there");
    store.save(&history(), None).await.expect("it is made");
    assert!(setting.bytes(KEY).await.is_some());
    // And by somebody else: another object of the same name.
    let deleted = setting.maps.delete(NAME, &DeleteParams::default()).await;
    deleted.expect("it is there");
    let mut empty = ConfigMap::default();
    empty.metadata.name = Some(NAME.to_owned());
    let created = setting.maps.create(&PostParams::default(), &empty).await;
    created.expect("it is new");
    store.save(&history(), None).await.expect("it is written");
    assert!(setting.bytes(KEY).await.is_some());
}

#[tokio::test]
async fn a_write_that_meets_another_keeps_what_the_other_wrote_unless_it_is_a_newer_leader() {
    let setting = Setting::new(Some(&saved(&Sections::new()))).await;
    let mut store = setting.store();
    store.load().await.expect("it answers");
    setting
        .patch(json!({"metadata": {"labels": {"team": "search"}}}))
        .await;
    store.save(&history(), None).await.expect("made anew");
    let map = setting.map().await;
    assert_eq!(map.metadata.labels.expect("kept")["team"], "search");
    assert_eq!(setting.bytes(PREVIOUS).await, None, "nothing was replaced");

    // A backup that a person put back is not lost either.
    let backup = saved(&[("mine".to_owned(), vec![1])].into());
    let value = serde_json::to_value(ByteString(backup.clone())).expect("base64");
    setting
        .patch(json!({"binaryData": {KEY: value}, "metadata": {"annotations": {ANNOTATION_TERM: null}}}))
        .await;
    store.save(&history(), None).await.expect("made anew");
    assert_eq!(setting.bytes(PREVIOUS).await, Some(backup));

    setting
        .patch(json!({"metadata": {"annotations": {ANNOTATION_TERM: "6"}}}))
        .await;
    let version = setting.map().await.metadata.resource_version;
    let refused = store.save(&history(), None).await.expect_err("deposed");
    assert!(refused.contains("another leads"), "{refused}");
    assert_eq!(setting.map().await.metadata.resource_version, version);
}

#[tokio::test]
async fn a_term_from_before_the_lease_was_made_anew_does_not_stop_the_saving() {
    let setting = Setting::new(Some(&saved(&Sections::new()))).await;
    let old = json!({"metadata": {"annotations": {ANNOTATION_TERM: "70"}}});
    setting.patch(old).await;
    let mut store = setting.store();
    store.load().await.expect("it answers");
    setting
        .patch(json!({"metadata": {"labels": {"team": "search"}}}))
        .await;
    store.save(&history(), None).await.expect("it was read so");
}

#[tokio::test]
async fn without_a_valid_claim_nothing_is_sent() {
    let setting = Setting::new(None).await;
    let mut store = setting.store();
    assert!(matches!(store.load().await, Ok(Loaded::Nothing)));
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    setting.cluster.faults().set_hook(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Action::Pass
    });
    setting.leadership.send_modify(|leadership| {
        if let Leadership::Leading(claim) = leadership {
            claim.valid_until = setting.clock.instant();
        }
    });
    assert!(store.save(&history(), None).await.is_err());
    setting.leadership.send_replace(Leadership::Unknown);
    assert!(store.save(&history(), None).await.is_err());
    assert_eq!(sent.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_others_keep_beside_the_history_stays_and_a_past_that_is_awaited_says_so() {
    let sections: Sections = [("model".to_owned(), vec![1, 2, 3])].into();
    let setting = Setting::new(Some(&saved(&sections))).await;
    let mut store = setting.store();
    store.load().await.expect("it answers");
    for awaits in [Some(Duration::from_millis(90_500)), None] {
        store.save(&history(), awaits).await.expect("it was read");
        let bytes = setting.bytes(KEY).await.expect("it was saved");
        let (_history, found) = history::decode(&bytes).expect("just written");
        assert_eq!(found.get("model"), Some(&vec![1, 2, 3]));
        let loaded = setting.store().load().await.expect("it answers");
        assert!(matches!(loaded, Loaded::History { awaits: found, .. } if found == awaits));
    }
    assert_eq!(millis(b"short"), Duration::ZERO);
}
