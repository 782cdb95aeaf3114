//! Injection at admission: what is applied ahead of it, and what becomes of a pod.
//!
//! `admission` holds what `inject --rbac --admission-policy` says about each case (`UPDATE_EXPECT=1` writes it anew). That a real API
//! server evaluates the policies is held in `tests/cluster`.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use sidescale::inject::{self, Admission, Ahead, Options, Refusal, Source};

use super::hostile::{at, odd, places};
use super::{CASES, assert_approved, case, objects, options};

const BOTH: Ahead = Ahead {
    rbac: true,
    policy: true,
};

#[test]
fn what_is_applied_ahead_is_as_it_was_read_and_approved() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inject/admission");
    for name in CASES {
        let written = inject::ahead(&[case(name)], &options(name), BOTH);
        assert_approved(&folder, name, written);
    }
}

#[test]
fn what_is_applied_ahead_is_apart_from_the_workloads() {
    let kinds = |wanted| {
        let name = "vllm.yaml";
        let output = inject::ahead(&[case(name)], &options(name), wanted).expect("it can");
        let kinds = objects(&output.manifests);
        let kinds = kinds.iter().filter_map(|object| object["kind"].as_str());
        kinds.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let beside = "ServiceAccount ConfigMap ConfigMap Lease Role RoleBinding";
    let policies = "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding";
    let rbac = Ahead {
        policy: false,
        ..BOTH
    };
    let policy = Ahead {
        rbac: false,
        ..BOTH
    };
    assert_eq!(kinds(rbac), beside);
    assert_eq!(kinds(policy), policies);
    assert_eq!(kinds(BOTH), format!("{beside} {policies}"));
}

#[test]
fn an_account_that_the_template_names_for_it_is_made_and_stays() {
    let text = case("vllm.yaml").text;
    let named = "      serviceAccountName: sidescale-llama\n      containers:\n";
    let named = text.replacen("      containers:\n", named, 1);
    assert_ne!(named, text);
    let source = |text: &str| Source {
        name: "named.yaml".to_owned(),
        text: text.to_owned(),
    };
    let has_account = |manifests: &str| {
        let objects = objects(manifests);
        let mut accounts = objects
            .iter()
            .filter(|object| object["kind"] == "ServiceAccount");
        accounts.any(|account| account["metadata"]["name"] == "sidescale-llama")
    };
    let ahead = inject::ahead(&[source(&named)], &options("-"), BOTH).expect("it can");
    assert!(has_account(&ahead.manifests));
    let said = |output: &inject::Output, words: &str| {
        let mut notes = output.notes.iter();
        notes.any(|note| note.text.contains(words))
    };
    assert!(!said(&ahead, "names no ServiceAccount"));
    let injected = inject::inject(&[source(&named)], &options("-")).expect("it can");
    assert!(has_account(&injected.manifests));
    let back = inject::uninject(&[source(&injected.manifests)]).expect("it was injected");
    assert!(has_account(&back.manifests), "its pods need it");
}

#[test]
fn what_the_webhook_cannot_see_is_said_to_who_applies_the_role() {
    let rbac = Ahead {
        policy: false,
        ..BOTH
    };
    let notes = |text: String| {
        let source = Source {
            name: "-".to_owned(),
            text,
        };
        let output = inject::ahead(&[source], &options("-"), rbac).expect("it can");
        let notes = output.notes.iter();
        let notes = notes.map(|note| note.text.as_str());
        notes
            .filter(|note| note.contains("`sidescale webhook`"))
            .collect::<String>()
    };
    // Its annotation is the Deployment's own.
    let text = case("vllm.yaml").text;
    let missing = "write sidescale.dev/inject into the template's annotations, too";
    assert!(notes(text.clone()).contains(missing));
    let annotations = "      annotations: {sidescale.dev/inject: \"true\"}\n    spec:\n";
    let asks = text.replacen("    spec:\n", annotations, 1);
    assert_eq!(notes(asks.clone()), "");
    // A second name, which no Service targets, would move with the first.
    let two = "{name: http, containerPort: 8000}\n            - {name: debug, containerPort: 5678}";
    let two = asks.replacen("{name: http, containerPort: 8000}", two, 1);
    assert!(notes(two).contains("takes every named port"));
}

/// A pod of `deployment`, as its ReplicaSet creates it.
fn pod_of(deployment: &Value) -> Value {
    let name = deployment["metadata"]["name"].as_str().expect("a name");
    let template = &deployment["spec"]["template"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    for (key, value) in deployment["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
    {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    pod["metadata"]["annotations"]["sidescale.dev/inject"] = json!("true");
    pod["metadata"]["labels"]["pod-template-hash"] = json!("5d9f7");
    pod["metadata"]["generateName"] = json!(format!("{name}-5d9f7-"));
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d9f7"), "uid": "1", "controller": true,
    }]);
    pod["spec"]["serviceAccountName"] = json!(format!("sidescale-{name}"));
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    if pod["spec"]["terminationGracePeriodSeconds"].is_null() {
        pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    }
    pod
}

/// The pod as it comes out of admission.
fn admitted(pod: &Value, options: &Options) -> Result<Option<Value>, Refusal> {
    Ok(match inject::pod(pod, options)? {
        Admission::Injected(admitted) => Some(patched(pod, admitted.patch)),
        Admission::Unchanged => None,
    })
}

fn patched(pod: &Value, steps: Vec<Value>) -> Value {
    let patch: json_patch::Patch =
        serde_json::from_value(Value::from(steps)).expect("a JSON patch");
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("the patch is for this pod");
    pod
}

/// The cases whose pods get a sidecar at admission; the others' have no name that could move, or are refused anyway.
const ADMITTED: [&str; 11] = [
    "classic.yaml",
    "costs.yaml",
    "flask-elsewhere.yaml",
    "flask.yaml",
    "hpa-argo.yaml",
    "labelled.json",
    "passive.yaml",
    "production-stack.yaml",
    "torchserve.yaml",
    "triton.yaml",
    "vllm.yaml",
];

#[test]
fn a_pod_gets_what_its_manifest_would_have_got() {
    let mut seen = Vec::new();
    for name in CASES {
        let options = options(name);
        let is_refused = inject::ahead(&[case(name)], &options, BOTH).is_err();
        let Ok(injected) = inject::inject(&[case(name)], &options) else {
            continue;
        };
        let before = objects(&case(name).text);
        let after = objects(&injected.manifests);
        for deployment in before
            .iter()
            .filter(|object| object["kind"] == "Deployment")
        {
            let same = |object: &&Value| {
                object["kind"] == "Deployment"
                    && object["metadata"]["name"] == deployment["metadata"]["name"]
            };
            let expected = after.iter().find(same).expect("it is there still");
            let pod = pod_of(deployment);
            let Ok(Some(got)) = admitted(&pod, &options) else {
                continue;
            };
            if is_refused {
                continue;
            }
            let mut wanted = expected["spec"]["template"]["spec"].clone();
            for key in ["serviceAccountName", "automountServiceAccountToken"] {
                wanted[key] = pod["spec"][key].clone();
            }
            if wanted["terminationGracePeriodSeconds"].is_null() {
                wanted["terminationGracePeriodSeconds"] = json!(30);
            }
            assert_eq!(got["spec"], wanted, "{name}");
            let again = inject::pod(&got, &options).expect("it has one");
            assert_eq!(again, Admission::Unchanged, "{name}");
            seen.push(name);
        }
    }
    assert_eq!(
        seen, ADMITTED,
        "a case whose pods come without is there for that"
    );
}

#[test]
fn a_pod_that_cannot_have_a_sidecar_comes_without_and_with_a_reason() {
    let deployment = &objects(&case("vllm.yaml").text)[0];
    let good = pod_of(deployment);
    let check = |at: &str, value: Value, reason: &str| {
        let mut pod = good.clone();
        *pod.pointer_mut(at).expect("it is there") = value;
        let refusal = inject::pod(&pod, &options("-")).expect_err(reason);
        let warning = refusal.warning();
        assert!(warning.contains(reason), "{warning}");
        assert!(warning.len() <= 256, "{warning}");
        assert!(warning.starts_with("no sidescale sidecar: "), "{warning}");
    };
    let asks = "/metadata/annotations/sidescale.dev~1inject";
    check(asks, json!("yes"), "sidescale.dev/inject is \"yes\"");
    let owner = "/metadata/ownerReferences/0";
    check(owner, json!({}), "no ReplicaSet of a Deployment owns it");
    let foreign = "/metadata/ownerReferences/0/name";
    check(foreign, json!("llama"), "no ReplicaSet of a Deployment");
    let account = "/spec/serviceAccountName";
    check(account, json!("default"), "names no account of its own");
    let ports = "/spec/containers/0/ports";
    let nameless = json!([{"containerPort": 8000}]);
    check(ports, nameless, "no port has a name");
    let mut taken = good.clone();
    taken["metadata"]["annotations"]["sidescale.dev/admin-port"] = json!("8000");
    let refusal = inject::pod(&taken, &options("-")).expect_err("the server has it");
    assert_eq!(
        refusal.reason,
        "8000 is taken by containers[vllm] and wanted for the sidecar"
    );
    let mut numbered = good.clone();
    numbered["metadata"]["annotations"]["sidescale.dev/ports"] = json!("8000");
    let refusal = inject::pod(&numbered, &options("-")).expect_err("a number");
    let warning = refusal.warning();
    assert!(warning.contains("only a name can move"), "{warning}");
    let mut long = good.clone();
    long["spec"]["containers"][0]["name"] = json!("ä".repeat(300));
    long["spec"]["containers"][0]["ports"] = json!([]);
    let refusal = inject::pod(&long, &options("-")).expect_err("no port");
    assert!(refusal.to_string().len() > 256);
    assert!(refusal.warning().len() <= 256);
}

#[test]
fn a_pod_that_does_not_ask_is_left_alone() {
    let deployment = &objects(&case("vllm.yaml").text)[0];
    let mut pod = pod_of(deployment);
    assert!(matches!(
        inject::pod(&pod, &options("-")),
        Ok(Admission::Injected(_))
    ));
    pod["metadata"]["annotations"]["sidescale.dev/inject"] = json!("false");
    let no = inject::pod(&pod, &options("-")).expect("it is a word");
    assert_eq!(no, Admission::Unchanged);
    pod["metadata"]["annotations"] = json!(null);
    let silent = inject::pod(&pod, &options("-")).expect("it says nothing");
    assert_eq!(silent, Admission::Unchanged);
}

#[test]
fn only_an_account_with_the_role_of_its_fleet_gets_a_sidecar() {
    let binding = json!({"subjects": [{"kind": "User", "name": "mine"}, {"kind": "ServiceAccount", "name": "bert"}]});
    let place = "deployment/bert";
    assert_eq!(inject::has_the_role(&binding, "bert", place), Ok(()));
    for (binding, account, reason) in [
        (&binding, "mine", "its Role is not for the account mine"),
        (&Value::Null, "bert", "its Role is not there"),
    ] {
        let refusal = inject::has_the_role(binding, account, place).expect_err(reason);
        assert_eq!(refusal.reason, reason);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn odd_pods_are_answered_by_patches_that_apply(
        number in 0..CASES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 0..4),
    ) {
        let name = CASES[number];
        let all = objects(&case(name).text);
        let deployment = all.iter().find(|object| object["kind"] == "Deployment");
        let Some(deployment) = deployment else { return Ok(()) };
        let mut pod = pod_of(deployment);
        for (index, odd) in changes {
            let mut place = index.index(places(&pod));
            at(&mut pod, &mut place, &mut |value| *value = odd.clone());
        }
        match admitted(&pod, &options(name)) {
            Ok(Some(got)) => {
                let list = if name.starts_with("classic") { "containers" } else { "initContainers" };
                prop_assert_eq!(&got["spec"][list][0]["name"], "sidescale");
            }
            Ok(None) => {}
            Err(refusal) => prop_assert!(refusal.warning().len() <= 256),
        }
    }
}
