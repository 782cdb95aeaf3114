//! The requests to the Lease, by scenario.

use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sidescale::clock::{Clock, Timestamp};
use sidescale::leader::machine::Beacon;
use sidescale::leader::{
    Candidacy, Elector, Leadership, LeaseApi, LeaseFault, Part, Timings, sha256_hex,
};
use sidescale::lifecycle::Tasks;

use super::api_server::{ApiServer, Asked};

const ME: &str = "pod-1_aaaa";
const OTHER: &str = "pod-2_bbbb";
const GET: &str = "GET /apis/coordination.k8s.io/v1/namespaces/ml/leases/sidescale-bert";
const PUT: &str =
    "PUT /apis/coordination.k8s.io/v1/namespaces/ml/leases/sidescale-bert?&fieldManager=sidescale";
const POST: &str = "POST /apis/coordination.k8s.io/v1/namespaces/ml/leases?&fieldManager=sidescale";

struct Setting {
    server: ApiServer,
    candidacy: Candidacy,
    clock: Clock,
    /// Held: dropping it ends the elector.
    tasks: Tasks,
}

fn candidate() -> Setting {
    let (client, server) = ApiServer::start();
    let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), 1.0);
    let timings = Timings::default();
    let lease = LeaseApi::new(
        client,
        "ml",
        "sidescale-bert",
        Part::Sidecar,
        clock.clone(),
        timings.request_timeout(),
    );
    let rng = StdRng::seed_from_u64(1);
    let (elector, candidacy) = Elector::new(
        ME.to_owned(),
        Part::Sidecar,
        lease,
        timings,
        clock.clone(),
        rng,
    );
    let tasks = Tasks::here();
    tasks.spawn(elector.run());
    Setting {
        server,
        candidacy,
        clock,
        tasks,
    }
}

/// A Lease as another tool made it, with things that are none of ours.
fn lease(version: u32, holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "sidescale-bert", "namespace": "ml", "uid": "l", "resourceVersion": version.to_string(),
            "labels": {"team": "search"}, "annotations": {"note": "kept", "sidescale.dev/term": "6"},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 4},
    })
}

/// What the server stores of a write.
fn stored(asked: &Asked, version: u32) -> Value {
    let mut lease = asked.body.clone();
    lease["metadata"]["resourceVersion"] = json!(version.to_string());
    lease
}

impl Setting {
    /// Lets it win a free Lease: version 2, sent at the returned time.
    async fn win(&mut self) -> Duration {
        self.server.expect(GET).await.answer(&lease(1, ""));
        let asked = self.server.expect(PUT).await;
        let sent = self.clock.instant().offset();
        let stored = stored(&asked, 2);
        asked.answer(&stored);
        self.until(|leadership| leadership.claim().is_some()).await;
        sent
    }

    async fn until(&self, reached: impl FnMut(&Leadership) -> bool) -> Leadership {
        let mut leadership = self.candidacy.leadership();
        leadership
            .wait_for(reached)
            .await
            .expect("the elector lives")
            .clone()
    }

    async fn fault(&self) -> LeaseFault {
        let mut fault = self.candidacy.fault();
        let fault = fault
            .wait_for(Option::is_some)
            .await
            .expect("the elector lives");
        fault.clone().expect("waited for")
    }

    fn beacon(&self, renewed: &str) {
        self.candidacy.beacon(Beacon {
            holder: OTHER.to_owned(),
            term: 7,
            renewed: renewed.to_owned(),
            members: 3,
            standby: true,
            defers: false,
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_replaced_at_the_version_that_was_read_and_renewed_each_retry_period() {
    let mut setting = candidate();
    setting.server.expect(GET).await.answer(&lease(1, ""));
    let asked = setting.server.expect(PUT).await;
    let sent = setting.clock.instant();
    let (metadata, spec) = (&asked.body["metadata"], &asked.body["spec"]);
    assert_eq!(metadata["resourceVersion"], "1");
    assert_eq!(metadata["labels"], json!({"team": "search"}));
    assert_eq!(metadata["annotations"]["note"], "kept");
    assert_eq!(metadata["managedFields"], Value::Null);
    assert_eq!(spec["holderIdentity"], ME);
    assert_eq!(
        (&spec["leaseDurationSeconds"], &spec["leaseTransitions"]),
        (&json!(15), &json!(5))
    );
    assert!(
        spec["renewTime"]
            .as_str()
            .is_some_and(|time| time.starts_with("2023-11-14T22:13:20")),
        "{spec}"
    );
    let hash = metadata["annotations"]["sidescale.dev/token-sha256"].clone();
    let answer = stored(&asked, 2);
    asked.answer(&answer);
    let claim = setting
        .until(|leadership| leadership.claim().is_some())
        .await
        .claim()
        .cloned()
        .expect("waited for");
    assert_eq!((claim.renewed.as_str(), claim.after_term), ("2", 6));
    assert_eq!(json!(sha256_hex(claim.token.reveal())), hash);
    assert_eq!(claim.valid_until, sent + Duration::from_secs(10));

    setting.candidacy.stamped(8).await;
    let asked = setting.server.expect(PUT).await;
    assert_eq!(setting.clock.instant(), sent + Duration::from_secs(2));
    assert_eq!(asked.body["metadata"]["resourceVersion"], "2");
    assert_eq!(
        asked.body["metadata"]["annotations"]["sidescale.dev/term"],
        "8"
    );
    assert_eq!(asked.body["spec"]["leaseTransitions"], 5);
}

#[tokio::test(start_paused = true)]
async fn a_release_empties_the_holder_after_the_claim_is_gone_and_keeps_the_transitions() {
    let mut setting = candidate();
    setting.win().await;
    let candidacy = setting.candidacy.clone();
    let leadership = candidacy.leadership();
    let released = tokio::join!(candidacy.release(), async {
        let asked = setting.server.expect(PUT).await;
        assert!(
            leadership.borrow().claim().is_none(),
            "the claim is gone before the Lease is"
        );
        assert_eq!(asked.body["metadata"]["resourceVersion"], "2");
        assert_eq!(asked.body["spec"]["holderIdentity"], "");
        assert_eq!(asked.body["spec"]["leaseTransitions"], 5);
        assert_eq!(
            asked.body["metadata"]["annotations"]["sidescale.dev/token-sha256"],
            Value::Null
        );
        let answer = stored(&asked, 3);
        asked.answer(&answer);
    });
    assert_eq!(released, ((), ()));
    setting.clock.sleep(Duration::from_secs(300)).await;
    assert!(setting.server.is_quiet(), "it does not come back");
}

#[tokio::test(start_paused = true)]
async fn of_two_who_take_a_free_lease_the_one_that_is_refused_reads_and_follows() {
    let mut setting = candidate();
    setting.server.expect(GET).await.answer(&lease(1, ""));
    setting
        .server
        .expect(PUT)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    setting.server.expect(GET).await.answer(&lease(2, OTHER));
    let leadership = setting
        .until(|leadership| leadership.holder().is_some())
        .await;
    assert_eq!(leadership.holder(), Some(OTHER));
    assert!(
        setting.candidacy.fault().borrow().is_none(),
        "a conflict is no fault"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_lease_is_created_or_the_fault_says_what_to_apply() {
    let mut setting = candidate();
    setting
        .server
        .expect(GET)
        .await
        .refuse(404, "NotFound", "not found");
    let asked = setting.server.expect(POST).await;
    assert_eq!(asked.body["metadata"]["name"], "sidescale-bert");
    assert_eq!(
        (
            &asked.body["spec"]["holderIdentity"],
            &asked.body["spec"]["leaseTransitions"]
        ),
        (&json!(ME), &json!(0))
    );
    asked.refuse(403, "Forbidden", "leases is forbidden");
    let fault = setting.fault().await.to_string();
    assert!(
        fault.contains("lease ml/sidescale-bert does not exist")
            && fault.contains("sidescale inject"),
        "{fault}"
    );
    // Somebody applies it.
    setting.win().await;
    assert!(setting.candidacy.fault().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_read_becomes_a_fault_with_the_rule_and_is_tried_again() {
    let mut setting = candidate();
    let message =
        "leases \"sidescale-bert\" is forbidden: User \"system:serviceaccount:ml:bert\" cannot get";
    setting
        .server
        .expect(GET)
        .await
        .refuse(403, "Forbidden", message);
    let fault = setting.fault().await.to_string();
    for words in [
        "may not get leases ml/sidescale-bert",
        message,
        "resourceNames: [\"sidescale-bert\"]",
        "\"update\"",
    ] {
        assert!(fault.contains(words), "{words} not in {fault}");
    }
    setting
        .server
        .expect(GET)
        .await
        .refuse(401, "Unauthorized", "Unauthorized");
    let mut faults = setting.candidacy.fault();
    let void = |fault: &Option<LeaseFault>| is(fault.as_ref(), "unauthorized");
    faults.wait_for(void).await.expect("the elector lives");
    setting.win().await;
    assert!(setting.candidacy.fault().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewals_hang_gives_each_up_and_steps_down_at_the_deadline() {
    let mut setting = candidate();
    let sent = setting.win().await;
    let at = |setting: &Setting| {
        setting
            .clock
            .instant()
            .offset()
            .saturating_sub(sent)
            .as_secs()
    };
    let first = setting.server.expect(PUT).await;
    assert_eq!(at(&setting), 2);
    let second = setting.server.expect(PUT).await;
    assert_eq!(at(&setting), 6);
    setting
        .until(|leadership| leadership.claim().is_none())
        .await;
    assert_eq!(at(&setting), 10);
    let fault = setting.candidacy.fault().borrow().clone();
    assert!(is(fault.as_ref(), "timed_out"), "{fault:?}");
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_standby_watches_from_the_version_it_read_and_takes_the_lease_at_expiry() {
    let watch = "GET /apis/coordination.k8s.io/v1/namespaces/ml/leases?&watch=true&timeoutSeconds=290\
                 &fieldSelector=metadata.name%3Dsidescale-bert&resourceVersion=";
    let mut setting = candidate();
    setting.server.expect(GET).await.answer(&lease(1, OTHER));
    setting.beacon("1");
    let mut stream = setting.server.expect(&format!("{watch}1")).await.stream();
    let event = json!({"type": "MODIFIED", "object": lease(2, OTHER)});
    setting.clock.sleep(Duration::from_secs(3)).await;
    stream
        .send_data(Bytes::from(format!("{event}\n")))
        .await
        .expect("the watch is open");
    // Broken, it is opened again from the newest version, a retry period later.
    drop(stream);
    let stream = setting.server.expect(&format!("{watch}2")).await.stream();
    assert_eq!(setting.clock.instant().offset().as_secs(), 5);
    loop {
        let asked = setting.server.next().await;
        if asked.line == GET {
            asked.answer(&lease(2, OTHER));
        } else {
            assert_eq!(
                (
                    asked.line.as_str(),
                    asked.body["metadata"]["resourceVersion"].as_str()
                ),
                (PUT, Some("2"))
            );
            break;
        }
    }
    assert_eq!(setting.clock.instant().offset().as_secs(), 18);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn the_named_successor_takes_the_lease_with_no_time_lost() {
    let mut setting = candidate();
    setting.server.expect(GET).await.answer(&lease(1, OTHER));
    setting
        .until(|leadership| leadership.holder() == Some(OTHER))
        .await;
    let at = setting.clock.instant();
    setting
        .candidacy
        .goodbye(OTHER.to_owned(), Some(ME.to_owned()))
        .await;
    setting.server.expect(GET).await.answer(&lease(5, ""));
    let asked = setting.server.expect(PUT).await;
    assert_eq!(asked.body["metadata"]["resourceVersion"], "5");
    assert_eq!(setting.clock.instant(), at);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_loses_its_claim_and_reads_the_lease() {
    let mut setting = candidate();
    setting.win().await;
    setting.candidacy.deposed().await;
    setting.server.expect(GET).await.answer(&lease(9, OTHER));
    let leadership = setting
        .until(|leadership| leadership.holder() == Some(OTHER))
        .await;
    assert!(leadership.claim().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_leaders_token_is_checked_against_the_lease_with_one_request_at_most() {
    let mut held = lease(1, OTHER);
    held["metadata"]["annotations"]["sidescale.dev/token-sha256"] = json!(sha256_hex("secret"));
    let mut setting = candidate();
    setting.server.expect(GET).await.answer(&held);
    setting
        .until(|leadership| leadership.holder() == Some(OTHER))
        .await;
    assert_eq!(setting.candidacy.verify(OTHER, "secret").await, Ok(true));
    assert!(setting.server.is_quiet(), "the hash was known");
    for (holder, token, proven) in [(OTHER, "guess", false), (ME, "secret", false)] {
        let candidacy = setting.candidacy.clone();
        let (verdict, ()) = tokio::join!(candidacy.verify(holder, token), async {
            setting.server.expect(GET).await.answer(&held);
        });
        assert_eq!(verdict, Ok(proven), "{holder} {token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_tree_drops_the_request_under_way_and_releases_nothing() {
    let mut setting = candidate();
    setting.win().await;
    let mut leadership = setting.candidacy.leadership();
    leadership.mark_unchanged();
    drop(setting.tasks);
    assert!(leadership.changed().await.is_err(), "the elector is gone");
    assert!(
        setting.server.is_quiet(),
        "as a crash does, it says nothing"
    );
}

/// Whether a request came to nothing in this way.
fn is(fault: Option<&LeaseFault>, label: &str) -> bool {
    matches!(fault, Some(LeaseFault::Api(fault)) if fault.kind.label() == label)
}
