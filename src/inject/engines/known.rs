//! The servers that are known: how they are started, and what they take for their ports.
//!
//! From the servers' own references and images. A server is known by what it is started with; its image says it only where
//! the manifest leaves the start to the image. What a model or a folder is called says nothing.

use super::command::Command;
use super::wrappers::base;

/// What one server takes for its ports.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) name: &'static str,
    /// What it is started with: the program's first words.
    starts: &'static [&'static str],
    /// Images whose entry point it is, by the end of their names; words like `-rocm` may follow.
    images: &'static [&'static str],
    /// A flag on the line wins over variables in all of them.
    pub(super) flags: &'static [Setting],
    pub(super) variables: &'static [Setting],
}

impl Engine {
    /// Whether all that it takes says one and the same port.
    pub(super) fn is_one(&self) -> bool {
        let mut variables = self.variables.iter().map(|variable| variable.defaults);
        match self.flags {
            [] => variables
                .next()
                .is_some_and(|first| variables.all(|other| other == first)),
            [_one] => true,
            _ => false,
        }
    }
}

/// One flag or variable for a port.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its names, the best one first.
    pub(super) names: &'static [&'static str],
    pub(super) form: Form,
    /// The port where nobody says one, in the program and in its image.
    pub(super) defaults: &'static [u16],
}

/// How a port is said where nothing is said yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `--port 8000`
    Apart,
    /// `--port=8000`
    Joined,
    /// `--bind 0.0.0.0:8000`
    Address,
}

const fn apart(names: &'static [&'static str], defaults: &'static [u16]) -> Setting {
    Setting {
        names,
        form: Form::Apart,
        defaults,
    }
}

const fn joined(names: &'static [&'static str], defaults: &'static [u16]) -> Setting {
    Setting {
        names,
        form: Form::Joined,
        defaults,
    }
}

const fn address(names: &'static [&'static str], defaults: &'static [u16]) -> Setting {
    Setting {
        names,
        form: Form::Address,
        defaults,
    }
}

const fn server(
    name: &'static str,
    starts: &'static [&'static str],
    images: &'static [&'static str],
    flags: &'static [Setting],
    variables: &'static [Setting],
) -> Engine {
    Engine {
        name,
        starts,
        images,
        flags,
        variables,
    }
}

const ENGINES: &[Engine] = &[
    server(
        "vLLM",
        &[
            "vllm serve",
            "-m vllm.entrypoints.openai.api_server",
            "-m vllm.entrypoints.api_server",
        ],
        &["vllm", "vllm-openai"],
        // VLLM_PORT is where its own processes meet, and no port of requests.
        &[apart(&["--port"], &[8000])],
        &[],
    ),
    server(
        "SGLang",
        &["-m sglang.launch_server", "sglang serve"],
        &[],
        &[apart(&["--port"], &[30_000])],
        &[],
    ),
    server(
        "Triton",
        &["tritonserver"],
        &[],
        &[
            apart(&["--http-port"], &[8000]),
            apart(&["--grpc-port"], &[8001]),
            // No requests, where a Service shows it by another name than `metrics`.
            apart(&["--metrics-port"], &[8002]),
        ],
        &[],
    ),
    server(
        "TGI",
        &["text-generation-launcher", "lorax-launcher"],
        &[
            "text-generation-inference",
            "huggingface/lorax",
            "predibase/lorax",
            "tgi-gaudi",
        ],
        // The launcher's own is 3000; its image sets PORT=80.
        &[apart(&["--port", "-p"], &[80, 3000])],
        &[apart(&["PORT"], &[])],
    ),
    server(
        "TEI",
        &["text-embeddings-router"],
        &["text-embeddings-inference"],
        &[apart(&["--port", "-p"], &[80, 3000])],
        &[apart(&["PORT"], &[])],
    ),
    server(
        "llama.cpp",
        &["llama-server"],
        &["llama.cpp"],
        &[apart(&["--port"], &[8080])],
        &[apart(&["LLAMA_ARG_PORT"], &[])],
    ),
    server(
        "llama-cpp-python",
        &["-m llama_cpp.server"],
        &["llama-cpp-python"],
        &[apart(&["--port"], &[8000])],
        &[apart(&["PORT"], &[])],
    ),
    server(
        "Ollama",
        &["ollama serve"],
        &["ollama/ollama"],
        &[],
        &[address(&["OLLAMA_HOST"], &[11_434])],
    ),
    server(
        "NIM",
        &[],
        &["nim/"],
        &[],
        // Language models know the first one, the others the second one.
        &[
            apart(&["NIM_SERVER_PORT"], &[8000]),
            apart(&["NIM_HTTP_API_PORT"], &[8000]),
        ],
    ),
    server(
        "TensorFlow Serving",
        &["tensorflow_model_server", "tf_serving_entrypoint.sh"],
        &["tensorflow/serving"],
        &[
            joined(&["--rest_api_port"], &[8501]),
            joined(&["--port"], &[8500]),
        ],
        &[],
    ),
    server(
        "TensorRT-LLM",
        &["trtllm-serve"],
        &[],
        &[apart(&["--port"], &[8000])],
        &[],
    ),
    server(
        "LMDeploy",
        &[
            "lmdeploy serve api_server",
            "-m lmdeploy.serve.openai.api_server",
        ],
        &[],
        &[apart(&["--server-port"], &[23_333])],
        &[],
    ),
    server(
        "infinity",
        &["infinity_emb"],
        &["michaelf34/infinity"],
        &[apart(&["--port"], &[7997])],
        &[apart(&["INFINITY_PORT"], &[])],
    ),
    server(
        "speaches",
        &[],
        &["speaches-ai/speaches", "fedirz/faster-whisper-server"],
        &[],
        &[apart(&["UVICORN_PORT"], &[8000])],
    ),
    server(
        "whisper.cpp",
        &["whisper-server"],
        &[],
        &[apart(&["--port"], &[8080])],
        &[],
    ),
    server(
        "Ray Serve",
        &["serve start"],
        &[],
        &[apart(&["--http-port"], &[8000])],
        &[],
    ),
    server(
        "Ray Serve",
        &["serve run"],
        &[],
        &[],
        &[apart(&["RAY_SERVE_DEFAULT_HTTP_PORT"], &[8000])],
    ),
    server(
        "MLServer",
        &["mlserver start"],
        &["mlserver"],
        &[],
        &[
            apart(&["MLSERVER_HTTP_PORT"], &[8080]),
            apart(&["MLSERVER_GRPC_PORT"], &[8081]),
        ],
    ),
    server(
        "BentoML",
        &["bentoml serve", "bentoml serve-http"],
        &[],
        &[apart(&["--port", "-p"], &[3000])],
        &[apart(&["BENTOML_PORT"], &[])],
    ),
    server(
        "uvicorn",
        &["uvicorn", "-m uvicorn"],
        &[],
        &[apart(&["--port"], &[8000])],
        &[apart(&["UVICORN_PORT"], &[])],
    ),
    server(
        "FastAPI",
        &["fastapi run", "-m fastapi run"],
        &[],
        &[apart(&["--port"], &[8000])],
        &[apart(&["PORT"], &[])],
    ),
    server(
        "gunicorn",
        &["gunicorn", "-m gunicorn"],
        &[],
        &[address(&["--bind", "-b"], &[8000])],
        // Its own address where no flag says one.
        &[apart(&["PORT"], &[])],
    ),
    server(
        "LocalAI",
        &["local-ai"],
        &["localai/localai", "go-skynet/local-ai"],
        &[address(&["--address"], &[8080])],
        // It looks for them in this order.
        &[
            address(&["LOCALAI_ADDRESS"], &[]),
            address(&["ADDRESS"], &[]),
        ],
    ),
    server(
        "Xinference",
        &["xinference-local"],
        &[],
        &[apart(&["--port", "-p"], &[9997])],
        &[],
    ),
    server(
        "Flask",
        &["flask run", "-m flask run"],
        &[],
        &[apart(&["--port", "-p"], &[5000])],
        &[apart(&["FLASK_RUN_PORT"], &[])],
    ),
];

/// What may follow the name of an image that is an engine's: the hardware or the make.
const MAKES: [&str; 37] = [
    "openai", "cpu", "gpu", "cuda", "rocm", "tpu", "xpu", "hpu", "npu", "gaudi", "neuron",
    "neuronx", "musa", "ascend", "metal", "vulkan", "intel", "amd", "nvidia", "arm", "arm64",
    "aarch64", "x86", "amd64", "gh200", "jetson", "dev", "nightly", "release", "server", "serve",
    "serving", "slim", "rhel8", "rhel9", "ubi8", "ubi9",
];

/// Of a flag or a variable that says a server's port, whoever's it is.
pub(super) const FLAGS: [&str; 13] = [
    "--port",
    "--http-port",
    "--server-port",
    "--server.port",
    "--rest-port",
    "--rest-api-port",
    "--api-port",
    "--listen-port",
    "--bind",
    "-b",
    "--listen",
    "--addr",
    "--address",
];
pub(super) const VARIABLES: [&str; 23] = [
    "PORT",
    "HTTP_PORT",
    "SERVER_PORT",
    "SERVICE_PORT",
    "SERVING_PORT",
    "APP_PORT",
    "API_PORT",
    "REST_PORT",
    "WEB_PORT",
    "LISTEN_PORT",
    "BIND_PORT",
    "UVICORN_PORT",
    "FLASK_RUN_PORT",
    "GRADIO_SERVER_PORT",
    "STREAMLIT_SERVER_PORT",
    "BENTOML_PORT",
    "OLLAMA_HOST",
    "BIND",
    "BIND_ADDR",
    "BIND_ADDRESS",
    "LISTEN_ADDR",
    "LISTEN_ADDRESS",
    "LOCALAI_ADDRESS",
];

/// Their names, each once.
pub(super) fn names() -> String {
    let mut names: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
    names.dedup();
    names.join(", ")
}

/// The server that a container is, by its command or else by its image.
pub(super) fn engine(command: &Command, image: &str) -> Option<&'static Engine> {
    let program = command.program();
    let by_start = started(&program);
    if by_start.is_some() || command.is_named() {
        return by_start;
    }
    let made = |engine: &&Engine| engine.images.iter().any(|known| is_image(image, known));
    ENGINES.iter().find(made)
}

/// Whether the words of a program are those of a server that is known.
pub(super) fn is_start(program: &[&str]) -> bool {
    let mut program = program.to_vec();
    if let Some(first) = program.first_mut() {
        *first = base(first);
    }
    started(&program).is_some()
}

fn started(program: &[&str]) -> Option<&'static Engine> {
    let is_it = |engine: &&Engine| engine.starts.iter().any(|start| begins(program, start));
    ENGINES.iter().find(is_it)
}

/// The server in a script of several commands that goes by a variable alone, whatever else is in the script.
pub(super) fn in_a_script(script: &str) -> Option<&'static Engine> {
    let blank = |sign: char| sign.is_whitespace() || ";&|()".contains(sign);
    let words: Vec<&str> = script
        .split(blank)
        .filter(|word| !word.is_empty())
        .collect();
    let starts = |start: &&str| (0..words.len()).any(|at| begins(&words[at..], start));
    let found = |engine: &&Engine| engine.flags.is_empty() && engine.starts.iter().any(&starts);
    ENGINES.iter().find(found)
}

fn begins(program: &[&str], start: &str) -> bool {
    let mut program = program.iter();
    start.split(' ').all(|word| program.next() == Some(&word))
        // What a file says about ports is not known.
        && (start != "serve run" || !program.any(|word| is_a_file(word)))
}

fn is_a_file(word: &str) -> bool {
    let end = word.rsplit_once('.').map(|(_, end)| end);
    matches!(end, Some("yaml" | "yml" | "json"))
}

fn is_image(image: &str, known: &str) -> bool {
    let image = image.split('@').next().unwrap_or_default();
    let (folder, last) = image.rsplit_once('/').unwrap_or(("", image));
    let last = last.split(':').next().unwrap_or_default();
    if let Some(known) = known.strip_suffix('/') {
        return folder.split('/').any(|step| step == known);
    }
    let (known_folder, known) = known.rsplit_once('/').unwrap_or(("", known));
    let is_there = known_folder.is_empty()
        || folder == known_folder
        || folder.ends_with(&format!("/{known_folder}"));
    let Some(rest) = last.strip_prefix(known).filter(|_rest| is_there) else {
        return false;
    };
    let is_make =
        |word: &str| MAKES.contains(&word) || word.starts_with(|sign: char| sign.is_ascii_digit());
    rest.is_empty() || (rest.starts_with(['-', '_']) && rest.split(['-', '_']).skip(1).all(is_make))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_an_engines_by_its_own_name_and_not_by_a_word_in_it() {
        let rows = [
            ("vllm/vllm-openai:v0.10.2", "vllm-openai", true),
            ("vllm/vllm-openai", "vllm-openai", true),
            (
                "registry:5000/vllm/vllm-openai@sha256:00",
                "vllm-openai",
                true,
            ),
            ("vllm/vllm-tpu:nightly", "vllm", true),
            ("lmcache/vllm-router", "vllm", false),
            ("registry.example/vllm-chat-ui:1", "vllm", false),
            ("registry.example/vllm/frontend:1", "vllm", false),
            ("ollama/ollama:0.5", "ollama/ollama", true),
            ("docker.io/ollama/ollama", "ollama/ollama", true),
            ("registry.example/my-ollama/ollama", "ollama/ollama", false),
            ("nvcr.io/nim/meta/llama3-8b-instruct:1", "nim/", true),
            ("registry.example/nim:1", "nim/", false),
        ];
        for (image, known, expected) in rows {
            assert_eq!(is_image(image, known), expected, "{image}");
        }
    }
}
