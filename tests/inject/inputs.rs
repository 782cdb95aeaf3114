//! What stands beside workloads in an input: documents that nobody can read, other front doors, kinds that are none.

use serde_json::{Value, json};
use sidescale::inject::{self, Output, Refusal, Source};

use super::{objects, options};

const SERVER: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: a, annotations: {sidescale.dev/inject: \"true\"}}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
        - {name: server, image: vllm/vllm-openai, ports: [{name: http, containerPort: 8000}]}
";

fn injected(documents: &[&str]) -> Result<Output, Vec<Refusal>> {
    let source = Source {
        name: "-".to_owned(),
        text: documents.join("---\n"),
    };
    inject::inject(&[source], &options("-"))
}

fn notes(output: &Output) -> String {
    let notes: Vec<String> = output.notes.iter().map(ToString::to_string).collect();
    notes.join("\n")
}

fn listens(output: &Output) -> String {
    let objects = objects(&output.manifests);
    let deployment = objects
        .iter()
        .find(|object| object["metadata"]["name"] == "a" && object["kind"] == "Deployment");
    let pod = &deployment.expect("it is there")["spec"]["template"]["spec"];
    pod["initContainers"][0]["env"][0]["value"].to_string()
}

#[test]
fn what_cannot_be_read_goes_on_letter_by_letter_and_is_said_and_the_rest_is_injected() {
    for odd in [
        "kind: ConfigMap\ndata: {a: 1}\ndata: {a: 2}\n",
        "kind: Service\nspec: {{ .Values.spec | toYaml }}\n",
        "{{- if .Values.x }}\nkind: Secret\n{{- end }}\n",
        "just words\n",
        "kind: 'Secret\n",
    ] {
        let output =
            injected(&[odd, SERVER]).unwrap_or_else(|refusals| panic!("{odd}: {}", refusals[0]));
        assert_eq!(output.changed, 1, "{odd}");
        assert!(output.manifests.starts_with(odd), "{}", output.manifests);
        let said = notes(&output);
        assert!(
            said.contains("- line 1: ")
                && said.contains("it cannot be read and is left letter by letter"),
            "{said}"
        );
        let back = inject::uninject(&[Source {
            name: "-".to_owned(),
            text: output.manifests,
        }]);
        assert!(
            back.expect("inject wrote it").manifests.starts_with(odd),
            "{odd}"
        );
    }
    // The line is that of the whole text, and what the reader would set is nobody's here.
    let output = injected(&[SERVER, "kind: A\ndata: {}\ndata: {}\n"]).expect("it is passed on");
    let said = notes(&output);
    let line = SERVER.lines().count() + 4;
    assert!(
        said.contains(&format!("at line {line}, column 1")),
        "{said}"
    );
    assert!(!said.contains("Options"), "{said}");
    // Where somebody asks for a sidecar in it, it has to be read.
    let twice = format!("{SERVER}spec: {{}}\n");
    let refused = injected(&[&twice]).map(|output| output.changed);
    let refused = refused.expect_err("it asks")[0].to_string();
    assert!(
        refused.contains("mend the YAML, as it asks for a sidecar or has one"),
        "{refused}"
    );
}

#[test]
fn a_pool_or_a_router_that_finds_the_pods_gets_the_number_and_is_named() {
    let pool = |version: &str, spec: &str| {
        format!("apiVersion: {version}\nkind: InferencePool\nmetadata: {{name: p}}\nspec: {spec}\n")
    };
    let v1 = "inference.networking.k8s.io/v1";
    let old = "inference.networking.x-k8s.io/v1alpha2";
    let router = |args: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: r}}\nspec:\n  template:\n    spec:\n      containers:\n        - {{name: r, image: r, args: [{args}]}}\n"
        )
    };
    let doors = [
        (
            pool(
                v1,
                "{selector: {matchLabels: {app: a}}, targetPorts: [{number: 8000}]}",
            ),
            "inferencepool/p",
        ),
        (
            pool(old, "{selector: {app: a}, targetPortNumber: 8000}"),
            "inferencepool/p",
        ),
        (
            router("--service-discovery, k8s, --k8s-label-selector, 'app=a', --k8s-port, '8000'"),
            "the router of deployment/r",
        ),
        (
            router("--service-discovery=k8s, --k8s-label-selector=app=a"),
            "the router of deployment/r",
        ),
        (
            router("'--service-discovery --selector app=a --service-discovery-port 8000'"),
            "the router of deployment/r",
        ),
    ];
    for (door, who) in &doors {
        let output =
            injected(&[SERVER, door]).unwrap_or_else(|refusals| panic!("{door}: {}", refusals[0]));
        assert_eq!(listens(&output), "\"0.0.0.0:8000\"", "{door}");
        let said = notes(&output);
        assert!(said.contains(&format!("{who} finds the pods itself and sends requests to 8000 by its number, which the sidecar takes")), "{said}");
        let asked = SERVER.replace("\"true\"", "\"true\", sidescale.dev/ports: http");
        let said = notes(&injected(&[&asked, door]).expect("the name moves"));
        assert!(said.contains("its requests to 8000 pass sidescale by: add 8000 to the annotation sidescale.dev/ports"), "{said}");
    }
    let none = router("--service-discovery, --selector, app=a");
    let said = notes(&injected(&[SERVER, &none]).expect("the name moves"));
    assert!(said.contains("sends requests to a number that is not said here: write it into the annotation sidescale.dev/ports"), "{said}");
    let aibrix = SERVER.replace(
        "labels: {app: a}}",
        "labels: {app: a, model.aibrix.ai/name: m, model.aibrix.ai/port: \"8000\"}}",
    );
    assert_eq!(
        listens(&injected(&[&aibrix]).expect("it can be injected")),
        "\"0.0.0.0:8000\""
    );
    for other in [
        pool(
            v1,
            "{selector: {matchLabels: {app: b}}, targetPorts: [{number: 8000}]}",
        ),
        router("--service-discovery, static, --k8s-label-selector, app=a"),
        router("--selector, app=a"),
    ] {
        let output = injected(&[SERVER, &other]).expect("it is nobody's door");
        assert_eq!(listens(&output), "\"0.0.0.0:8080\"", "{other}");
    }
}

#[test]
fn a_namespace_on_one_of_two_documents_is_no_different_one() {
    let service = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a{namespace}}}\nspec:\n  selector: {{app: a}}\n  ports: [{{port: 80, targetPort: 8000}}]\n"
        )
    };
    let placed = SERVER.replace("name: a,", "name: a, namespace: one,");
    for (server, namespace, listen) in [
        (SERVER, ", namespace: one", "\"0.0.0.0:8000\""),
        (&placed, "", "\"0.0.0.0:8000\""),
        (&placed, ", namespace: one", "\"0.0.0.0:8000\""),
        (&placed, ", namespace: two", "\"0.0.0.0:8080\""),
    ] {
        let output = injected(&[server, &service(namespace)]).expect("it can be injected");
        assert_eq!(listens(&output), listen, "{namespace}");
    }
}

#[test]
fn a_kind_that_can_have_no_sidecar_is_refused_in_its_own_words() {
    let rows = [
        (
            "extensions/v1beta1",
            "Deployment",
            "no API server has extensions/v1beta1 since Kubernetes 1.16",
        ),
        (
            "apps/v1beta2",
            "StatefulSet",
            "no API server has apps/v1beta2",
        ),
        ("apps/v1", "DaemonSet", "it has a pod on each node"),
        ("apps/v1", "ReplicaSet", "annotate its Deployment"),
        ("batch/v1", "Job", "it runs to its end"),
        (
            "serving.kserve.io/v1beta1",
            "InferenceService",
            "KServe makes its pods",
        ),
        (
            "serving.kserve.io/v1alpha1",
            "LLMInferenceService",
            "KServe makes its pods",
        ),
        (
            "serving.knative.dev/v1",
            "Service",
            "Knative makes its pods",
        ),
        ("ray.io/v1", "RayService", "KubeRay makes its pods"),
        (
            "leaderworkerset.x-k8s.io/v1",
            "LeaderWorkerSet",
            "its groups are scaled as a whole",
        ),
        (
            "apps.nvidia.com/v1alpha1",
            "NIMService",
            "NVIDIA's NIM operator makes its pods",
        ),
        (
            "argoproj.io/v1alpha1",
            "Rollout",
            "Argo Rollouts makes its pods",
        ),
        ("kubeai.org/v1", "Model", "KubeAI makes its pods"),
        (
            "nvidia.com/v1alpha1",
            "DynamoGraphDeployment",
            "Dynamo makes its pods",
        ),
        (
            "apps.openshift.io/v1",
            "DeploymentConfig",
            "make it a Deployment",
        ),
        (
            "example.org/v1",
            "Model",
            "only a Deployment, a StatefulSet or a Pod can have a sidecar",
        ),
    ];
    for (version, kind, reason) in rows {
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x", "annotations": {"sidescale.dev/inject": "true"}}});
        let refused = injected(&[&format!("{object}\n")]).map(|output| output.changed);
        let refused = refused.expect_err(kind)[0].to_string();
        assert!(refused.contains(reason), "{version} {kind}: {refused}");
    }
}

#[test]
fn a_text_that_begins_with_a_tab_is_quoted() {
    for text in [
        "\tindented\nwith a tab\n",
        "\n\tbehind\na line",
        " \tbehind a blank\nx",
        "\tone line",
    ] {
        let mut server = objects(SERVER).remove(0);
        let script = json!([text]);
        server["spec"]["template"]["spec"]["containers"][0]["args"] = script.clone();
        let output = injected(&[&format!("{server}\n")]).expect("it can be injected");
        let args = |objects: Vec<Value>| {
            let deployment = objects
                .into_iter()
                .find(|object| object["kind"] == "Deployment");
            deployment.expect("it is there")["spec"]["template"]["spec"]["containers"][0]["args"]
                .clone()
        };
        assert_eq!(args(objects(&output.manifests)), script);
        // As kubectl's reader, which takes a tab at the beginning of a block for its indentation.
        let line = output.manifests.lines().find(|line| line.contains("\\t"));
        assert!(
            line.is_some_and(|line| line.trim_start().starts_with("- \"")),
            "{}",
            output.manifests
        );
    }
}
