//! A lead: a sidecar that stands in front of no server.

use super::*;

fn as_lead(config: &mut Config) {
    config.part = Part::Lead;
    config.routes.clear();
    // Longer than a test: nothing may wait for it.
    config.propagation = Duration::from_secs(3_600);
    config.grace = Duration::from_secs(3_600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_leads_has_no_load_to_show_and_ends_at_once_whatever_the_data_path() {
    let policy = format!("dataPath: passive\n{POLICY}");
    let setting = Setting::changed("lead", |_| Action::Pass, None, &policy, as_lead).await;
    setting
        .until("it leads", |shared| shared.board().is_some())
        .await;
    let running = &setting.running;
    assert!(running.routes().is_empty() && running.is_ready());
    let metrics = running.source().metrics().text;
    assert!(metrics.contains("sidescale_leader 1"), "{metrics}");
    for not_its_own in ["sidescale_requests", "sidescale_gpu", "sidescale_server"] {
        assert!(!metrics.contains(not_its_own), "{not_its_own} in {metrics}");
    }
    let report = running.shared.report();
    assert!(report.ready && !report.follows);
    running.drain().await;
    assert!(!running.is_ready() && running.shared.board().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_never_takes_its_own_deployment_for_its_target() {
    let policy = "maxReplicas: many\n";
    let setting = Setting::changed("unfit", |_| Action::Pass, None, policy, as_lead).await;
    let refused = |shared: &Shared| shared.faults.text(Fault::Target).is_some();
    setting.until("it has no Deployment", refused).await;
    let shared = &setting.running.shared;
    let text = shared.faults.text(Fault::Target).unwrap_or_default();
    // The Deployment that owns its pod is its own, and must not be scaled for want of a better one.
    assert!(text.contains("--target"), "{text}");
    assert!(!shared.report().ready);
    let why = setting.running.source().ready().expect_err("no target");
    assert!(why.contains("--target"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_may_not_write_the_lease_says_so_until_it_may() {
    let hook = |request: &Request<Bytes>| {
        if request.method() == http::Method::PUT && request.uri().path().contains("/leases/") {
            return Action::Fail(403);
        }
        Action::Pass
    };
    let setting = Setting::changed("refused", hook, None, POLICY, as_lead).await;
    let refused = |shared: &Shared| shared.faults.text(Fault::Lease).is_some();
    setting.until("its write is refused", refused).await;
    let shared = &setting.running.shared;
    assert!(shared.report().follows && !shared.report().ready);
    // It goes on trying, reads the Lease in between, and says it once.
    let count = |shared: &Shared| {
        let counts = shared.faults.counts();
        let lease = counts.iter().find(|fault| fault.kind == "lease");
        lease.map_or(0, |fault| fault.count)
    };
    setting.clock.sleep(Duration::from_secs(30)).await;
    assert_eq!(count(shared), 1);
    assert!(shared.faults.text(Fault::Lease).is_some());
    setting.cluster.faults().set_hook(|_| Action::Pass);
    setting
        .until("it leads", |shared| shared.board().is_some())
        .await;
    assert_eq!(shared.faults.text(Fault::Lease), None);
    assert!(shared.report().ready && !shared.report().follows);
}
