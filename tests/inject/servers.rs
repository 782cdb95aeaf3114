//! How servers are told to listen elsewhere, one container a row.

use serde_json::{Value, json};
use sidescale::inject::{self, Output, Refusal, Source};

use super::{objects, options};

/// A Deployment whose one container is `container`, and the Service that targets `port` of it by its number.
pub(crate) fn injected(container: &Value, port: u16) -> Result<Output, Vec<Refusal>> {
    let mut container = container.clone();
    container["name"] = json!("server");
    inject_all(&[container], &[port], &json!({}))
}

/// The same with several containers and ports, and other annotations.
pub(crate) fn inject_all(
    containers: &[Value],
    ports: &[u16],
    annotations: &Value,
) -> Result<Output, Vec<Refusal>> {
    let labels = json!({"app": "a"});
    let mut deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    });
    deployment["metadata"]["annotations"]["sidescale.dev/inject"] = json!("true");
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({"name": format!("p{port}"), "port": port, "targetPort": port}))
        .collect();
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"selector": labels, "ports": ports},
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]});
    let source = Source {
        name: "-".to_owned(),
        text: list.to_string(),
    };
    inject::inject(&[source], &options("-"))
}

/// What stands in a container of the output.
pub(crate) fn container(output: &Output, name: &str) -> Value {
    let objects = objects(&output.manifests);
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let pod = &deployment.expect("it is there")["spec"]["template"]["spec"];
    let lists = ["containers", "initContainers"].iter();
    let mut all = lists.flat_map(|list| pod[*list].as_array().into_iter().flatten());
    all.find(|one| one["name"] == name)
        .expect("it is there")
        .clone()
}

/// That what was injected can be injected again, and taken out.
fn assert_twice_is_once(output: &Output) {
    let source = Source {
        name: "-".to_owned(),
        text: output.manifests.clone(),
    };
    let twice = inject::inject(std::slice::from_ref(&source), &options("-"));
    assert_eq!(twice.expect("once went well").manifests, output.manifests);
    let back = inject::uninject(&[source]).expect("inject wrote it");
    let again = Source {
        name: "-".to_owned(),
        text: back.manifests,
    };
    let again = inject::inject(&[again], &options("-")).expect("it went well before");
    assert_eq!(again.manifests, output.manifests);
}

/// That the server of `before` moves from `port` by having what `after` has.
fn assert_moves(port: u16, before: &Value, after: &Value) {
    let output = injected(before, port);
    let output = output.unwrap_or_else(|refusals| panic!("{before}: {}", refusals[0]));
    assert_twice_is_once(&output);
    let server = container(&output, "server");
    for key in ["command", "args", "env"] {
        let expected = after.get(key).or_else(|| before.get(key));
        assert_eq!(server.get(key), expected, "{key} of {before}");
    }
}

pub(crate) fn refusal(refused: Result<Output, Vec<Refusal>>) -> String {
    match refused {
        Ok(output) => panic!("it was taken: {}", output.manifests),
        Err(refusals) => refusals[0].to_string(),
    }
}

pub(crate) fn args(words: &[&str]) -> Value {
    json!({ "args": words })
}

pub(crate) fn command(words: &[&str]) -> Value {
    json!({ "command": words })
}

pub(crate) fn env(name: &str, value: &str) -> Value {
    json!({"env": [{"name": name, "value": value}]})
}

pub(crate) fn with(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

pub(crate) fn image(image: &str) -> Value {
    json!({ "image": image })
}

/// Port, server before, what is in it afterwards.
pub(crate) fn assert_all_move(rows: &[(u16, Value, Value)]) {
    for (port, before, after) in rows {
        assert_moves(*port, before, after);
    }
}

#[test]
fn a_port_that_is_said_on_the_line_is_changed_there_and_one_that_nobody_says_is_said() {
    assert_all_move(&[
        (
            8000,
            command(&["gunicorn", "-b0.0.0.0:8000", "a:a"]),
            command(&["gunicorn", "-b0.0.0.0:18000", "a:a"]),
        ),
        (
            8000,
            command(&["gunicorn", "--bind=[::]:8000", "a:a"]),
            command(&["gunicorn", "--bind=[::]:18000", "a:a"]),
        ),
        (
            8000,
            command(&["gunicorn", "a:a"]),
            with(
                command(&["gunicorn", "a:a"]),
                args(&["--bind", "0.0.0.0:18000"]),
            ),
        ),
        (
            8500,
            command(&["tensorflow_model_server"]),
            args(&["--port=18500"]),
        ),
        (
            9000,
            command(&["python", "app.py", "--server_port=9000"]),
            command(&["python", "app.py", "--server_port=19000"]),
        ),
        (
            9000,
            command(&["./app", "--listen", ":9000"]),
            command(&["./app", "--listen", ":19000"]),
        ),
        (
            8000,
            command(&[
                "tini",
                "--",
                "python3",
                "-u",
                "-m",
                "sglang.launch_server",
                "--port",
                "8000",
            ]),
            command(&[
                "tini",
                "--",
                "python3",
                "-u",
                "-m",
                "sglang.launch_server",
                "--port",
                "18000",
            ]),
        ),
        // The last one counts.
        (
            8000,
            args(&["--port", "7000", "--port", "8000"]),
            args(&["--port", "7000", "--port", "18000"]),
        ),
    ]);
}

#[test]
fn a_port_in_a_variable_is_changed_there_also_where_the_line_names_the_variable() {
    assert_all_move(&[
        (
            8000,
            with(args(&["--port=$(API)"]), env("API", "8000")),
            env("API", "18000"),
        ),
        (
            8000,
            with(args(&["--bind", "0.0.0.0:$(API)"]), env("API", "8000")),
            env("API", "18000"),
        ),
        (
            8080,
            with(
                image("ghcr.io/ggml-org/llama.cpp:server"),
                env("LLAMA_ARG_PORT", "8080"),
            ),
            env("LLAMA_ARG_PORT", "18080"),
        ),
        (
            11434,
            with(
                image("ollama/ollama"),
                env("OLLAMA_HOST", "http://0.0.0.0:11434"),
            ),
            env("OLLAMA_HOST", "http://0.0.0.0:21434"),
        ),
        (
            11434,
            with(image("ollama/ollama"), env("OLLAMA_HOST", "0.0.0.0")),
            env("OLLAMA_HOST", "0.0.0.0:21434"),
        ),
        (
            11434,
            command(&["ollama", "serve"]),
            env("OLLAMA_HOST", "0.0.0.0:21434"),
        ),
        (
            8000,
            json!({"env": [{"name": "A", "value": "8000"}, {"name": "PORT", "value": "$(A)"}]}),
            json!({"env": [{"name": "A", "value": "18000"}, {"name": "PORT", "value": "$(A)"}]}),
        ),
        // What only the cluster knows is the port that the Service knows, where the container declares it.
        (
            8000,
            json!({"args": ["--port", "$(P)"], "env": [{"name": "P", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            "ports": [{"containerPort": 8000}]}),
            args(&["--port", "18000"]),
        ),
    ]);
}

#[test]
fn a_shell_with_one_simple_command_is_looked_through() {
    assert_all_move(&[
        (
            8000,
            command(&["sh", "-c", "exec vllm serve M --port 8000"]),
            command(&["sh", "-c", "exec vllm serve M --port 18000"]),
        ),
        (
            8000,
            command(&["/bin/bash", "-lc", "vllm serve M \\\n --port \"8000\"\n"]),
            command(&["/bin/bash", "-lc", "vllm serve M \\\n --port \"18000\"\n"]),
        ),
        (
            8000,
            with(command(&["bash", "-c", "--"]), args(&["vllm serve M"])),
            args(&["vllm serve M --port 18000"]),
        ),
        (
            8000,
            with(
                command(&["sh", "-c", "vllm serve M --port $PORT"]),
                env("PORT", "8000"),
            ),
            env("PORT", "18000"),
        ),
        (
            8000,
            command(&["sh", "-c", "vllm serve M --port ${PORT:-8000}"]),
            command(&["sh", "-c", "vllm serve M --port 18000"]),
        ),
        (
            11434,
            command(&["sh", "-c", "OLLAMA_HOST=0.0.0.0:11434 ollama serve"]),
            command(&["sh", "-c", "OLLAMA_HOST=0.0.0.0:21434 ollama serve"]),
        ),
    ]);
}

#[test]
fn a_script_of_several_commands_leaves_the_variables_that_they_go_by() {
    assert_all_move(&[
        (
            8000,
            with(
                command(&["sh", "-c", "pip install x && vllm serve M --port $PORT"]),
                env("PORT", "8000"),
            ),
            env("PORT", "18000"),
        ),
        // A server that looks into a variable does so in whatever script.
        (
            11434,
            command(&[
                "sh",
                "-c",
                "ollama serve & sleep 5; ollama pull llama3; wait",
            ]),
            env("OLLAMA_HOST", "0.0.0.0:21434"),
        ),
        (
            11434,
            with(
                command(&["sh", "-c", "ollama serve & wait"]),
                env("OLLAMA_HOST", "0.0.0.0:11434"),
            ),
            env("OLLAMA_HOST", "0.0.0.0:21434"),
        ),
        // A file may say it, and what stands on the line wins.
        (
            5000,
            json!({"command": ["gunicorn", "-c", "conf.py", "a:a"], "ports": [{"containerPort": 5000}]}),
            args(&["--bind", "0.0.0.0:15000"]),
        ),
    ]);
}

#[test]
fn no_server_goes_where_the_node_takes_ports_for_itself() {
    assert_all_move(&[
        (
            30000,
            command(&["python", "-m", "sglang.launch_server"]),
            args(&["--port", "20000"]),
        ),
        (
            65535,
            args(&["--port", "65535"]),
            args(&["--port", "25535"]),
        ),
        (
            22767,
            args(&["--port", "22767"]),
            args(&["--port", "32767"]),
        ),
        (
            22768,
            args(&["--port", "22768"]),
            args(&["--port", "12768"]),
        ),
    ]);
}

#[test]
fn a_server_is_known_by_its_command_and_not_by_what_an_image_or_a_model_is_called() {
    let unknown = "how this server is told another one is not known";
    let rows = [
        (
            json!({"command": ["python", "app.py", "--model", "vllm"], "image": "vllm/vllm-openai"}),
            unknown,
        ),
        (
            json!({"args": ["--model", "sglang/uvicorn"], "image": "registry.example/app"}),
            unknown,
        ),
        (json!({"image": "registry.example/vllm-chat-ui:2"}), unknown),
        (json!({"image": "registry.example/vllm/router:2"}), unknown),
        (json!({"command": ["vllm", "bench", "serve"]}), unknown),
        (json!({"command": ["serve", "run", "config.yaml"]}), unknown),
        (
            json!({"env": [{"name": "REDIS_PORT", "value": "8000"}]}),
            unknown,
        ),
        (
            json!({"command": ["ray", "start", "--address", "head:8000"]}),
            unknown,
        ),
        (
            json!({"args": ["--port", "7000"], "image": "vllm/vllm-openai"}),
            "its --port is \"7000\" and the Service targets 8000",
        ),
        (
            json!({"image": "ollama/ollama", "env": [{"name": "OLLAMA_HOST", "value": "0.0.0.0:7000"}]}),
            "its OLLAMA_HOST is \"0.0.0.0:7000\"",
        ),
        (
            json!({"image": "lmsysorg/sglang", "command": ["python3", "-m", "sglang.launch_server"]}),
            "the Service targets 8000, where neither --port nor its default",
        ),
        (
            json!({"command": ["sh", "-c", "pip install x && vllm serve M --port 8000"]}),
            "more than one simple command",
        ),
        (
            json!({"command": ["sh", "-c", "vllm serve M --port 8000 | tee log"]}),
            "more than one simple command",
        ),
        (
            json!({"command": ["sh", "-c", "vllm serve M --port $(cat port)"]}),
            "more than one simple command",
        ),
        (
            json!({"command": ["sh", "-c", "export OLLAMA_HOST=0.0.0.0; ollama serve & wait"]}),
            "more than one simple command",
        ),
        // `VLLM_PORT` is not where vLLM serves.
        (
            json!({"command": ["vllm", "serve"], "args": ["--port", "$(VLLM_PORT)"], "env": [{"name": "VLLM_PORT", "value": "9000"}]}),
            "its --port is \"$(VLLM_PORT), which is 9000\"",
        ),
    ];
    for (before, reason) in rows {
        let refused = refusal(injected(&before, 8000));
        assert!(refused.contains(reason), "{before}: {refused}");
        assert!(refused.contains("give the container's port a name and roll that out, then let the Service target the name, and inject after that"));
    }
}

#[test]
fn the_server_is_the_container_that_declares_what_the_service_targets_or_else_the_one_with_an_accelerator()
 {
    let port = |name: &str, port: u16| json!({"name": name, "args": ["--port", port.to_string()], "ports": [{"containerPort": port}]});
    let output = inject_all(&[port("a", 7000), port("b", 8000)], &[8000], &json!({}));
    let output = output.expect("b declares it");
    assert_eq!(container(&output, "b")["args"], json!(["--port", "18000"]));
    assert_eq!(container(&output, "a")["args"], json!(["--port", "7000"]));
    for accelerator in [
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.10gb",
        "google.com/tpu",
        "habana.ai/gaudi",
        "amd.com/gpu",
        "aws.amazon.com/neuron",
        "aws.amazon.com/neuroncore",
        "gpu.intel.com/i915",
        "huawei.com/Ascend910",
    ] {
        let mut server = port("b", 8000);
        server["resources"] = json!({"limits": {accelerator: "1"}});
        let output = inject_all(&[port("a", 7000), server], &[7000, 8000], &json!({}));
        let output = output.unwrap_or_else(|refusals| panic!("{accelerator}: {}", refusals[0]));
        let listen = &container(&output, "sidescale")["env"][0];
        // The other number is the other container's, and the Service may go on there.
        assert_eq!(listen["value"], "0.0.0.0:8000", "{accelerator}");
    }
}

#[test]
fn who_calls_a_number_that_moved_is_named() {
    let server = json!({
        "name": "server",
        "command": ["vllm", "serve", "M", "--port", "8000"],
        "ports": [{"containerPort": 8000}],
        "env": [{"name": "SELF", "value": "http://localhost:8000/v1"}, {"name": "OTHER", "value": "http://other:8000"}],
        "livenessProbe": {"exec": {"command": ["sh", "-c", "curl -f localhost:8000/health"]}},
    });
    let beside = json!({
        "name": "beside",
        "args": ["--backend=http://127.0.0.1:8000", "--other=http://x:8000"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}},
    });
    let output = inject_all(&[server, beside], &[8000], &json!({})).expect("it can be injected");
    let notes: Vec<String> = output.notes.iter().map(ToString::to_string).collect();
    let expected = "deployment/a: containers[server].livenessProbe.exec, containers[server].env[SELF], \
                    containers[beside].readinessProbe, containers[beside].args: what is called there at 8000 is the sidecar \
                    now; let it call 18000 where the server itself is meant";
    assert!(notes.iter().any(|note| note == expected), "{notes:#?}");
}

#[test]
fn the_user_can_be_left_to_the_namespace() {
    let rows = [
        (json!({}), json!(65532)),
        (
            json!({"sidescale.dev/run-as-user": "namespace"}),
            Value::Null,
        ),
        (json!({"sidescale.dev/run-as-user": "1000"}), json!(1000)),
    ];
    let server = json!({"name": "server", "args": ["--port", "8000"]});
    for (annotations, user) in rows {
        let output = inject_all(std::slice::from_ref(&server), &[8000], &annotations);
        let output = output.expect("it can be injected");
        let context = &container(&output, "sidescale")["securityContext"];
        for key in ["runAsUser", "runAsGroup"] {
            assert_eq!(
                context.get(key).unwrap_or(&Value::Null),
                &user,
                "{annotations}"
            );
        }
        assert_eq!(context["runAsNonRoot"], true);
    }
    for odd in ["0", "-1", "root", ""] {
        let annotations = json!({"sidescale.dev/run-as-user": odd});
        let refused = refusal(inject_all(
            std::slice::from_ref(&server),
            &[8000],
            &annotations,
        ));
        assert!(refused.contains("is no user"), "{refused}");
    }
}
