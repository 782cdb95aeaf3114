//! Servers behind shells and wrappers, and ports that are said at more than one place: what moves, and what is refused.

use serde_json::{Value, json};

use super::servers::{
    args, assert_all_move, command, container, env, image, inject_all, injected, refusal, with,
};

const SCRIPTED: &str = "a shell starts the server with more than one simple command";
const UNKNOWN: &str = "how this server is told another one is not known";
const ELSEWHERE: &str = "so which of them it listens by is not known";

/// Port, server, what is said about it.
fn assert_all_refused(rows: &[(u16, Value, &str)]) {
    for (port, before, reason) in rows {
        let refused = refusal(injected(before, *port));
        assert!(refused.contains(reason), "{before}: {refused}");
        assert!(refused.contains("; "), "{before}: no remedy in {refused}");
    }
}

/// A command of words that have no blanks.
fn line(words: &str) -> Value {
    let words: Vec<&str> = words.split(' ').collect();
    command(&words)
}

/// Words apart by blanks, with a script last.
fn shell(words: &str, script: &str) -> Value {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.push(script);
    command(&words)
}

/// What starts a shell in usual manifests.
const SHELLS: [&str; 20] = [
    "bash -euo pipefail -c",
    "bash -eo pipefail -c",
    "bash -euxo pipefail -c",
    "bash -o pipefail -ec",
    "bash -ce",
    "bash -c -e",
    "tini -g -- bash -c",
    "/sbin/tini -v -s -- sh -c",
    "env A=1 sh -c",
    "numactl --membind=0 sh -c",
    "numactl -N 0 -m 0 sh -c",
    "busybox sh -c",
    "/bin/busybox ash -c",
    "timeout 1h sh -c",
    "timeout -k 5 1h bash -c",
    "gosu u sh -c",
    "nice -n 5 sh -c",
    "conda run -n x --no-capture-output bash -c",
    "dumb-init -r 15:2 -- bash -lc",
    "uv run --with x bash -c",
];

#[test]
fn a_script_of_several_commands_is_seen_behind_whatever_starts_its_shell() {
    let script = "cd /app\nvllm serve M --port 8000";
    let mut all: Vec<Value> = SHELLS.iter().map(|start| shell(start, script)).collect();
    // Shells that are not seen through.
    all.extend([
        with(line("bash -euo pipefail -c"), args(&[script])),
        shell("su user -c", script),
        shell("su - user -s /bin/bash -c", script),
        shell("mpirun -n 1 bash -c", script),
        shell("/entrypoint.sh bash -c", script),
        shell("sh -c", "bash -c \"cd /app && vllm serve M --port 8000\""),
        shell("sh -c", "exec timeout 1h sh -c 'vllm serve M --port 8000'"),
        command(&[
            "bash",
            "-c",
            "exec \"$@\"",
            "bash",
            "vllm",
            "serve",
            "M",
            "--port",
            "8000",
        ]),
        command(&[
            "sh",
            "-c",
            "exec ${1} serve M --port $2",
            "sh",
            "vllm",
            "8000",
        ]),
        args(&["-euo", "pipefail", "-c", script]),
    ]);
    for before in all {
        let before = with(before, env("PORT", "8000"));
        let refused = refusal(injected(&before, 8000));
        assert!(refused.contains(SCRIPTED), "{before}: {refused}");
    }
}

#[test]
fn one_simple_command_is_found_behind_whatever_starts_its_shell() {
    for start in SHELLS {
        assert_all_move(&[(
            8000,
            shell(start, "exec vllm serve M --port 8000"),
            shell(start, "exec vllm serve M --port 18000"),
        )]);
    }
    assert_all_move(&[
        (
            8000,
            shell("tini -s -- sh -c", "vllm serve M"),
            shell("tini -s -- sh -c", "vllm serve M --port 18000"),
        ),
        (
            8000,
            with(
                line("bash -euo pipefail -c"),
                args(&["exec vllm serve M --port 8000 2>&1\n"]),
            ),
            args(&["exec vllm serve M --port 18000 2>&1\n"]),
        ),
        (
            8000,
            shell("sh -c", "vllm serve M 2>&1;"),
            shell("sh -c", "vllm serve M --port 18000 2>&1;"),
        ),
        // The words behind a script are its own to read, and this one reads none.
        (
            8000,
            command(&["sh", "-c", "vllm serve M", "sh", "--port", "7000"]),
            command(&[
                "sh",
                "-c",
                "vllm serve M --port 18000",
                "sh",
                "--port",
                "7000",
            ]),
        ),
        (
            8000,
            shell("sh -c", "numactl -N 0 vllm serve M --port 8000"),
            shell("sh -c", "numactl -N 0 vllm serve M --port 18000"),
        ),
        // What is said before the shell hides the container's own.
        (
            11434,
            shell("env OLLAMA_HOST=0.0.0.0:11434 sh -c", "exec ollama serve"),
            shell("env OLLAMA_HOST=0.0.0.0:21434 sh -c", "exec ollama serve"),
        ),
        (
            8000,
            with(
                shell("env PORT=8000 sh -c", "vllm serve M --port $PORT"),
                env("PORT", "8000"),
            ),
            shell("env PORT=8000 sh -c", "vllm serve M --port 18000"),
        ),
    ]);
}

#[test]
fn a_server_is_found_behind_wrappers_with_options_of_their_own() {
    let rows = [
        "numactl -N 0 vllm serve M",
        "uv run --with vllm vllm serve M",
        "uv run -m vllm.entrypoints.openai.api_server",
        "timeout -s INT 1h vllm serve M",
        "gosu user vllm serve M",
        "conda run -n x vllm serve M",
        "python3 -X dev -m vllm.entrypoints.openai.api_server",
    ];
    for line in rows {
        let words: Vec<&str> = line.split(' ').collect();
        let after = args(&["--port", "18000"]);
        assert_all_move(&[(8000, command(&words), after)]);
    }
}

#[test]
fn the_servers_own_ports_and_flags_are_known() {
    let address = |port: u16| format!("0.0.0.0:{port}");
    assert_all_move(&[
        (
            8000,
            image("registry.redhat.io/rhaiis/vllm-cuda-rhel9:3.2"),
            args(&["--port", "18000"]),
        ),
        (
            8000,
            line("hypercorn a:a -b 0.0.0.0:8000"),
            line("hypercorn a:a -b 0.0.0.0:18000"),
        ),
        (
            8080,
            image("localai/localai:latest-aio-gpu"),
            args(&["--address", &address(18080)]),
        ),
        (
            8080,
            with(
                image("quay.io/go-skynet/local-ai:v2"),
                env("ADDRESS", ":8080"),
            ),
            env("ADDRESS", ":18080"),
        ),
        (
            8080,
            with(image("localai/localai"), env("LOCALAI_ADDRESS", ":8080")),
            env("LOCALAI_ADDRESS", ":18080"),
        ),
        (
            9997,
            line("xinference-local -H 0.0.0.0"),
            args(&["--port", "19997"]),
        ),
    ]);
}

#[test]
fn a_script_goes_by_the_variables_that_it_names_and_by_no_others() {
    let script = "pip install x && vllm serve M --port $(PORT)";
    assert_all_move(&[
        (
            8000,
            with(shell("sh -c", script), env("PORT", "8000")),
            env("PORT", "18000"),
        ),
        (
            8000,
            with(
                shell("sh -c", "cd /app; ./serve --port ${PORT:-8000}"),
                env("PORT", "8000"),
            ),
            env("PORT", "18000"),
        ),
    ]);
    let rows = [
        "echo $PORTAL && ./start",
        "echo ${PORT_NAME}; ./start",
        "./start; echo $(PORTAL)",
        "./start & echo PORT",
    ];
    let rows = rows.map(|script| {
        let before = with(shell("sh -c", script), env("PORT", "8000"));
        (8000, before, SCRIPTED)
    });
    assert_all_refused(&rows);
}

#[test]
fn a_number_that_the_line_says_in_an_unknown_way_keeps_its_variable_from_being_taken_for_it() {
    let lines = [
        line("daphne -b 0.0.0.0 -p 8000 a:a"),
        line("daphne -p8000 a:a"),
        line("./server --http-listen=0.0.0.0:8000"),
        command(&["python3", "-c", "uvicorn.run('a:a', port=8000)"]),
        with(image("registry.example/app"), args(&["serve", ":8000"])),
        shell("sh -c", "exec ./server --http-listen=0.0.0.0:8000"),
    ];
    for line in lines {
        let refused = refusal(injected(&with(line.clone(), env("PORT", "8000")), 8000));
        assert!(refused.contains(ELSEWHERE), "{line}: {refused}");
        assert!(refused.contains("sidescale.dev/port-env"), "{refused}");
    }
    assert_all_refused(&[
        (
            8000,
            json!({"env": [{"name": "PORT", "value": "8000"}, {"name": "SERVER_ARGS", "value": "--listen-on 0.0.0.0:8000"}]}),
            ELSEWHERE,
        ),
        // The size of a batch.
        (8000, line("./server -b 8000"), UNKNOWN),
        (
            8000,
            line("./server --http-port 8000 --port=8000"),
            "--port and --http-port all say 8000",
        ),
    ]);
    assert_all_move(&[
        // Longer numbers are other ones.
        (
            8000,
            with(line("./server --seed 80001"), env("PORT", "8000")),
            env("PORT", "18000"),
        ),
        (
            8000,
            with(line("./server --port 8000"), env("PORT", "8000")),
            line("./server --port 18000"),
        ),
    ]);
}

/// Two variables of a server that nobody knows.
fn pair(first: (&str, &str), second: (&str, &str)) -> Value {
    json!({"env": [
        {"name": first.0, "value": first.1},
        {"name": second.0, "value": second.1},
    ]})
}

fn proxy(host: &str) -> Value {
    with(image("ghcr.io/x/ollama-proxy"), env("OLLAMA_HOST", host))
}

#[test]
fn a_variable_with_another_machines_name_is_left() {
    assert_all_refused(&[
        (8080, proxy("http://ollama:8080"), UNKNOWN),
        (11434, proxy("ollama"), UNKNOWN),
        (11434, proxy("localhost"), UNKNOWN),
        (11434, proxy("10.0.0.1:11434"), UNKNOWN),
        (
            11434,
            with(image("ollama/ollama"), env("OLLAMA_HOST", "ollama")),
            "its OLLAMA_HOST is \"ollama\"",
        ),
        (
            11434,
            with(
                image("ollama/ollama"),
                env("OLLAMA_HOST", "http://ollama:11434"),
            ),
            "its OLLAMA_HOST is \"http://ollama:11434\"",
        ),
        (8000, env("LISTEN_ADDRESS", "10.0.0.1:8000"), UNKNOWN),
        (
            8000,
            pair(("LISTEN_ADDRESS", "$(PEER):8000"), ("PEER", "backend")),
            UNKNOWN,
        ),
        (
            8000,
            pair(("API_HOST", "backend"), ("API_PORT", "8000")),
            UNKNOWN,
        ),
        (
            8000,
            pair(("API_URL", "http://backend:8000/v1"), ("API_PORT", "8000")),
            UNKNOWN,
        ),
        (
            8000,
            json!({"env": [
                {"name": "API_HOST", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "API_PORT", "value": "8000"},
            ]}),
            UNKNOWN,
        ),
        (
            8000,
            line("./app --api-host backend --api-port 8000"),
            UNKNOWN,
        ),
        (8000, line("./app --address=backend:8000"), UNKNOWN),
    ]);
}

#[test]
fn a_variable_with_an_address_of_the_pod_itself_is_changed() {
    assert_all_move(&[
        (11434, proxy("0.0.0.0"), env("OLLAMA_HOST", "0.0.0.0:21434")),
        (11434, proxy("[::]:11434"), env("OLLAMA_HOST", "[::]:21434")),
        (
            11434,
            with(image("ollama/ollama"), env("OLLAMA_HOST", "localhost")),
            env("OLLAMA_HOST", "localhost:21434"),
        ),
        (
            11434,
            with(image("ollama/ollama"), env("OLLAMA_HOST", "[::]")),
            env("OLLAMA_HOST", "[::]:21434"),
        ),
        (
            8000,
            pair(("API_HOST", "0.0.0.0"), ("API_PORT", "8000")),
            pair(("API_HOST", "0.0.0.0"), ("API_PORT", "18000")),
        ),
        (
            8000,
            pair(("HOST", "0.0.0.0"), ("BIND", "$(HOST):8000")),
            pair(("HOST", "0.0.0.0"), ("BIND", "$(HOST):18000")),
        ),
    ]);
}

#[test]
fn a_server_that_listens_at_several_addresses_leaves_the_port_at_all_of_them() {
    assert_all_move(&[
        (
            8000,
            line("gunicorn -b 0.0.0.0:8000 -b [::]:8000 a:a"),
            line("gunicorn -b 0.0.0.0:18000 -b [::]:18000 a:a"),
        ),
        (
            8000,
            line("gunicorn --bind=0.0.0.0:8000 -b[::]:8000 -b 0.0.0.0:9000 a:a"),
            line("gunicorn --bind=0.0.0.0:18000 -b[::]:18000 -b 0.0.0.0:9000 a:a"),
        ),
        (
            8000,
            line("hypercorn a:a --bind 0.0.0.0:8000 -b [::]:8000"),
            line("hypercorn a:a --bind 0.0.0.0:18000 -b [::]:18000"),
        ),
        (
            8000,
            line("hypercorn a:a --bind 0.0.0.0:8000 --bind [::]:8000"),
            line("hypercorn a:a --bind 0.0.0.0:18000 --bind [::]:18000"),
        ),
        (
            8000,
            shell("sh -c", "gunicorn -b 0.0.0.0:8000 -b '[::]:8000' a:a"),
            shell("sh -c", "gunicorn -b 0.0.0.0:18000 -b '[::]:18000' a:a"),
        ),
        (
            8000,
            line("waitress-serve --listen=0.0.0.0:8000 --listen=[::]:8000 a:a"),
            line("waitress-serve --listen=0.0.0.0:18000 --listen=[::]:18000 a:a"),
        ),
        // Both go by one variable.
        (
            8000,
            with(
                line("gunicorn -b 0.0.0.0:$(P) -b [::]:$(P) a:a"),
                env("P", "8000"),
            ),
            with(
                line("gunicorn -b 0.0.0.0:$(P) -b [::]:18000 a:a"),
                env("P", "18000"),
            ),
        ),
        // What a file or a variable with flags says, the line says over it.
        (
            8000,
            json!({"command": ["gunicorn", "a:a"], "env": [
                {"name": "PORT", "value": "8000"},
                {"name": "GUNICORN_CMD_ARGS", "value": "--bind=0.0.0.0:8000"},
            ]}),
            args(&["--bind", "0.0.0.0:18000"]),
        ),
    ]);
    assert_all_refused(&[(
        8000,
        command(&["waitress-serve", "--listen=0.0.0.0:8000 [::]:8000", "a:a"]),
        UNKNOWN,
    )]);
}

#[test]
fn variables_of_which_more_than_one_says_the_port_are_all_changed_or_refused() {
    let nim = "nvcr.io/nim/meta/llama3-8b-instruct:1";
    let both = |first: &str, second: &str| {
        json!({"env": [
            {"name": "NIM_SERVER_PORT", "value": first},
            {"name": "NIM_HTTP_API_PORT", "value": second},
        ]})
    };
    let source = json!({"configMapRef": {"name": "c"}});
    assert_all_move(&[
        (
            8000,
            with(image(nim), both("8000", "8000")),
            both("18000", "18000"),
        ),
        (
            8000,
            with(image(nim), env("NIM_SERVER_PORT", "8000")),
            both("18000", "18000"),
        ),
        (
            9000,
            with(
                image(nim),
                json!({"envFrom": [source], "ports": [{"containerPort": 9000}]}),
            ),
            both("19000", "19000"),
        ),
        (
            8000,
            with(
                image(nim),
                json!({"env": [
                    {"name": "NIM_SERVER_PORT", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                ]}),
            ),
            both("18000", "18000"),
        ),
    ]);
    let twice = |first: &str, second: &str| json!([{"name": "PORT", "value": first}, {"name": "PORT", "value": second}]);
    let more = "the variable PORT, which must change, is there more than once";
    assert_all_refused(&[
        (
            8000,
            with(image(nim), env("NIM_SERVER_PORT", "9000")),
            "its NIM_SERVER_PORT is \"9000\"",
        ),
        (8000, json!({"env": twice("8000", "8000")}), more),
        (8000, json!({"env": twice("7000", "8000")}), more),
        (8000, json!({"env": twice("8000", "7000")}), UNKNOWN),
        (
            8000,
            json!({"image": "vllm/vllm-openai", "args": ["--port", "$(PORT)"], "env": twice("8000", "8000")}),
            more,
        ),
        (
            8000,
            json!({"image": "vllm/vllm-openai", "args": ["--port", "$(PORT)"], "env": twice("8000", "7000")}),
            "its --port is \"$(PORT), which is 7000\"",
        ),
        // Two ports, of which one is not known, are two.
        (
            9000,
            json!({"command": ["mlserver", "start"], "envFrom": [source], "ports": [{"containerPort": 9000}]}),
            "neither MLSERVER_HTTP_PORT nor MLSERVER_GRPC_PORT nor its default",
        ),
    ]);
}

const ANNOUNCED: (&str, &str) = ("ANNOUNCED", "http://$(POD_IP):$(PORT)");

/// Variables behind one that has the pod's own address.
fn pod_env(more: &[(&str, &str)]) -> Value {
    let pod = json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    let more = more.iter();
    let more = more.map(|(name, value)| json!({"name": name, "value": value}));
    let all: Vec<Value> = std::iter::once(pod).chain(more).collect();
    json!({ "env": all })
}

#[test]
fn a_variable_that_others_go_by_too_stays_and_the_flag_says_the_new_number() {
    let worker = |port: &str| {
        command(&[
            "python3",
            "-m",
            "fastchat.serve.vllm_worker",
            "--worker-address",
            "http://$(POD_IP):$(PORT)",
            "--port",
            port,
        ])
    };
    let script = |port: &str| format!("vllm serve M --port {port} --announce $POD_IP:$PORT");
    assert_all_move(&[
        (
            21002,
            with(worker("$(PORT)"), pod_env(&[("PORT", "21002")])),
            worker("31002"),
        ),
        (
            8000,
            with(
                args(&["--port=$(PORT)"]),
                pod_env(&[("PORT", "8000"), ANNOUNCED]),
            ),
            args(&["--port=18000"]),
        ),
        (
            8000,
            with(
                shell("sh -c", &script("${PORT}")),
                pod_env(&[("PORT", "8000")]),
            ),
            shell("sh -c", &script("18000")),
        ),
    ]);
}

#[test]
fn a_variable_that_only_the_server_goes_by_moves() {
    assert_all_move(&[
        // A chain of references is one variable.
        (
            8000,
            with(
                args(&["--port=$(P)"]),
                pod_env(&[("BASE", "8000"), ("P", "$(BASE)")]),
            ),
            pod_env(&[("BASE", "18000"), ("P", "$(BASE)")]),
        ),
        (
            8000,
            with(
                args(&["--port=$(P)"]),
                pod_env(&[("BASE", "8000"), ("P", "$(BASE)"), ("A", "x:$(BASE)")]),
            ),
            args(&["--port=18000"]),
        ),
        // A flag wins over the variable.
        (
            8000,
            with(
                line("uvicorn a:a"),
                pod_env(&[
                    ("UVICORN_PORT", "8000"),
                    ("A", "http://$(POD_IP):$(UVICORN_PORT)"),
                ]),
            ),
            args(&["--port", "18000"]),
        ),
        // It calls itself.
        (
            8000,
            pod_env(&[("PORT", "8000"), ("SELF", "http://localhost:$(PORT)")]),
            pod_env(&[("PORT", "18000"), ("SELF", "http://localhost:$(PORT)")]),
        ),
    ]);
}

#[test]
fn a_variable_that_tells_others_the_port_and_has_no_flag_beside_it_is_refused() {
    let told = "others are told the same port";
    assert_all_refused(&[
        (8000, pod_env(&[("PORT", "8000"), ANNOUNCED]), told),
        (
            8000,
            with(
                line("./app --announce $(POD_IP):$(PORT)"),
                pod_env(&[("PORT", "8000")]),
            ),
            told,
        ),
        (
            8000,
            with(
                shell("sh -c", "./announce $POD_IP:$PORT && ./app --port $PORT"),
                pod_env(&[("PORT", "8000")]),
            ),
            told,
        ),
    ]);
}

#[test]
fn a_refusal_says_the_number_of_the_manifest_and_not_the_one_that_inject_put_there() {
    let server = json!({"name": "server", "command": ["vllm", "serve", "M", "--port", "8000"]});
    let refused = refusal(inject_all(&[server], &[8000, 8001], &json!({})));
    assert!(
        refused.contains("its --port is \"8000\" and the Service targets 8001"),
        "{refused}"
    );
    assert!(!refused.contains("18000"), "{refused}");
}

#[test]
fn an_annotation_says_how_a_server_is_moved_that_is_not_known() {
    let server = json!({
        "name": "server",
        "command": ["daphne", "-p", "8000", "a:a"],
        "env": [{"name": "PORT", "value": "8000"}],
    });
    let annotations = json!({"sidescale.dev/port-flag": "-p"});
    let output = inject_all(&[server], &[8000], &annotations).expect("the flag is named");
    let server = container(&output, "server");
    assert_eq!(server["command"], json!(["daphne", "-p", "18000", "a:a"]));
}
