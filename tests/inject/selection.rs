//! Whom `--selector` picks, and what it says about whom it does not.

use serde_json::{Value, json};
use sidescale::inject::{self, Ahead, Options, Output, Selector, Source};

use super::{objects, options};

fn deployment(own: &Value, template: &Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8000}]);
    let server = json!({"name": "server", "image": "registry.example/bert:2", "ports": ports});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bert", "labels": own},
        "spec": {
            "selector": {"matchLabels": {"app": "llm"}},
            "template": {"metadata": {"labels": template}, "spec": {"containers": [server]}},
        },
    })
}

fn source(items: &[Value]) -> [Source; 1] {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    [Source {
        name: "-".to_owned(),
        text: list.to_string(),
    }]
}

fn selecting(labels: &str) -> Options {
    Options {
        selector: Some(Selector::parse(labels).expect("labels")),
        ..options("-")
    }
}

fn injected(items: &[Value], labels: &str) -> Output {
    inject::inject(&source(items), &selecting(labels)).expect("nothing is refused")
}

fn said(output: &Output) -> String {
    let notes = output.notes.iter().map(|note| format!("{note}\n"));
    notes.collect()
}

#[test]
fn a_selector_picks_workloads_and_nothing_else_that_carries_the_label() {
    let labels = json!({"app": "llm"});
    let of = |api: &str, kind: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": "beside", "labels": labels}});
    let pod = |metadata: Value, restart: Value| {
        let mut pod = of("v1", "Pod");
        for (key, value) in metadata.as_object().into_iter().flatten() {
            pod["metadata"][key] = value.clone();
        }
        pod["spec"] =
            json!({"restartPolicy": restart, "containers": [{"name": "test", "image": "busybox"}]});
        pod
    };
    let helm = json!({"annotations": {"helm.sh/hook": "test"}});
    let items = [
        deployment(&labels, &labels),
        of("v1", "Service"),
        of("v1", "ServiceAccount"),
        of("v1", "ConfigMap"),
        of("batch/v1", "Job"),
        pod(helm, Value::Null),
        pod(json!({}), json!("Never")),
        pod(json!({}), json!("OnFailure")),
    ];
    let output = injected(&items, "app=llm");
    assert_eq!(output.changed, 1);
    let after = objects(&output.manifests);
    for item in &items[1..] {
        assert!(after.contains(item), "{item}");
    }
    let component = inject::component(&source(&items), &selecting("app=llm")).expect("it can");
    assert_eq!(component.changed, 1);
    let both = Ahead {
        rbac: true,
        policy: true,
    };
    let ahead = inject::ahead(&source(&items), &selecting("app=llm"), both).expect("it can");
    assert_eq!(ahead.changed, 1);
}

#[test]
fn a_label_of_the_template_counts_beside_the_workloads_own() {
    let (own, template) = (json!({"tier": "gpu"}), json!({"app": "llm"}));
    for labels in ["app=llm", "tier=gpu", "app=llm,tier=gpu"] {
        let output = injected(&[deployment(&own, &template)], labels);
        assert_eq!(output.changed, 1, "{labels}");
        assert!(!said(&output).contains("picks nothing"), "{labels}");
    }
    assert_eq!(
        injected(&[deployment(&own, &template)], "app=other").changed,
        0
    );
}

#[test]
fn a_selector_that_picks_nothing_says_so_with_what_there_is() {
    let labels = json!({"app": "llm"});
    let output = injected(&[deployment(&labels, &labels)], "app=lm,tier=gpu");
    assert_eq!(output.changed, 0);
    let said = said(&output);
    assert!(
        said.contains("--selector app=lm,tier=gpu: picks nothing"),
        "{said}"
    );
    assert!(said.contains("there are deployment/bert"), "{said}");
    // Also where an annotation picks somebody else.
    let mut asks = deployment(&labels, &labels);
    asks["metadata"]["annotations"] = json!({"sidescale.dev/inject": "true"});
    let output = injected(&[asks], "app=lm");
    assert_eq!(output.changed, 1);
    assert!(self::said(&output).contains("picks nothing"));
}

#[test]
fn pods_of_other_kinds_that_a_selector_names_are_passed_over_and_named() {
    let labels = json!({"app": "llm"});
    let mut rollout = deployment(&labels, &labels);
    rollout["apiVersion"] = json!("argoproj.io/v1alpha1");
    rollout["kind"] = json!("Rollout");
    let output = injected(&[rollout, deployment(&labels, &labels)], "app=llm");
    assert_eq!(output.changed, 1);
    assert!(said(&output).contains("rollout/bert: --selector names its labels"));
}
